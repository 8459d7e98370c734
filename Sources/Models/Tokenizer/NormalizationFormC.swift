@_spi(_Unicode) import Swift

/// Brings the well-formed parts of `text` to normalization form C (UAX #15); bytes that are not
/// part of well-formed UTF-8 stay as they are and separate the parts.
///
/// - Returns: nil if a look at the lead bytes already shows that nothing changes.
func normalizedToFormC(_ text: Span<UInt8>) -> [UInt8]? {
  guard mayChangeUnderFormC(text) else { return nil }
  var result: [UInt8] = []
  result.reserveCapacity(text.count)
  var part = NormalizationPart()
  var offset = 0
  while offset < text.count {
    let symbol = TextSymbol(in: text, at: offset)
    if let scalar = symbol.scalar {
      part.append(scalar)
    } else {
      part.moveFormC(to: &result)
      result.append(text[offset])
    }
    offset += symbol.byteCount
  }
  part.moveFormC(to: &result)
  return result
}

/// No scalar below U+0300 changes or joins another one, and their lead bytes are below 0xCC.
private func mayChangeUnderFormC(_ text: Span<UInt8>) -> Bool {
  for index in text.indices where text[index] >= 0xcc { return true }
  return false
}

/// A well-formed text on its way to normalization form C.
///
/// The standard library normalizes, but sorts the marks after a letter in quadratic time. No
/// language stacks more than a handful; input that does so on purpose is sorted here first, which
/// gives a canonically equivalent text that the library then passes over in linear time.
private struct NormalizationPart {
  private var scalars = String.UnicodeScalarView()
  /// The marks since the last scalar that is none.
  private var marks: [Unicode.Scalar] = []
  private static let longestTrustedRun = 32

  mutating func append(_ scalar: Unicode.Scalar) {
    switch scalar.properties.generalCategory {
    case .nonspacingMark, .spacingMark, .enclosingMark:
      switch scalar {
      case "\u{f73}", "\u{f75}", "\u{f81}":
        // Of class 0 themselves but not their parts, which the library then fails to sort.
        marks.append(contentsOf: String(scalar)._nfd)
      default:
        marks.append(scalar)
      }
    default:
      if !marks.isEmpty { moveMarks() }
      scalars.append(scalar)
    }
  }

  /// Appends the UTF-8 of the normalized part to `result` and empties the part.
  mutating func moveFormC(to result: inout [UInt8]) {
    moveMarks()
    guard !scalars.isEmpty else { return }
    var normalized = String.UnicodeScalarView()
    for scalar in String(scalars)._nfc { normalized.append(scalar) }
    result.append(contentsOf: String(normalized).utf8)
    scalars.removeAll()
  }

  private mutating func moveMarks() {
    if marks.count > Self.longestTrustedRun { marks = canonicallyOrdered(marks) }
    scalars.append(contentsOf: marks)
    marks.removeAll(keepingCapacity: true)
  }
}

/// The decomposition of `marks` in canonical order: by combining class between marks of class 0,
/// which stay in their places, and within a class as they came.
private func canonicallyOrdered(_ marks: [Unicode.Scalar]) -> [Unicode.Scalar] {
  var keyed: [(key: Int, scalar: Unicode.Scalar)] = []
  var barrierCount = 0
  for mark in marks {
    for scalar in String(mark)._nfd {
      let combiningClass = Int(scalar.properties.canonicalCombiningClass.rawValue)
      if combiningClass == 0 { barrierCount += 1 }
      keyed.append((barrierCount << 8 | combiningClass, scalar))
    }
  }
  let order = keyed.indices.sorted { (keyed[$0].key, $0) < (keyed[$1].key, $1) }
  return order.map { keyed[$0].scalar }
}

/// What the rule of DeepSeek-V3 tells apart.
private enum DeepSeekKind {
  /// General categories L and M.
  case word
  /// P and S.
  case mark
  case space
  case lineBreak
  /// Numbers, and ideographs and kana: text is cut around runs of either first.
  case number
  case ideograph
  /// Controls, unassigned scalars and invalid bytes.
  case other

  init(_ symbol: TextSymbol) {
    guard let scalar = symbol.scalar else {
      self = .other
      return
    }
    switch symbol.kind {
    case .lineBreak: self = .lineBreak
    case .space: self = .space
    case .number: self = .number
    case .letter, .other:
      switch scalar.value {
      case 0x4e00...0x9fa5, 0x3040...0x30ff: self = .ideograph
      default: self = Self(scalar.properties.generalCategory)
      }
    }
  }

  private init(_ category: Unicode.GeneralCategory) {
    switch category {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter,
      .nonspacingMark, .spacingMark, .enclosingMark:
      self = .word
    case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation,
      .initialPunctuation, .finalPunctuation, .otherPunctuation, .mathSymbol, .currencySymbol,
      .modifierSymbol, .otherSymbol:
      self = .mark
    default: self = .other
    }
  }

  /// Whether text is cut before and after it.
  var isCut: Bool { self == .number || self == .ideograph }
}

/// The rule of DeepSeek-V3; its alternatives in their order.
func deepSeek3PieceEnd(in text: Span<UInt8>, from start: Int) -> Int {
  func kind(at offset: Int) -> DeepSeekKind? {
    offset < text.count ? DeepSeekKind(TextSymbol(in: text, at: offset)) : nil
  }
  func end(of kinds: DeepSeekKind, from start: Int, limit: Int = .max) -> Int {
    var (end, count) = (start, 0)
    while end < text.count, count < limit {
      let symbol = TextSymbol(in: text, at: end)
      guard DeepSeekKind(symbol) == kinds else { break }
      end += symbol.byteCount
      count += 1
    }
    return end
  }
  let symbol = TextSymbol(in: text, at: start)
  let (first, next) = (DeepSeekKind(symbol), start + symbol.byteCount)
  switch first {
  case .number: return end(of: .number, from: start, limit: 3)
  case .ideograph: return end(of: .ideograph, from: start)
  default: break
  }
  if isASCIIMark(text[start]), next < text.count, isASCIILetter(text[next]) {
    var end = next
    while end < text.count, isASCIILetter(text[end]) { end += 1 }
    return end
  }
  if first == .word { return end(of: .word, from: start) }
  if first == .space || first == .other, kind(at: next) == .word {
    return end(of: .word, from: next)
  }
  if first == .mark || (symbol.scalar == " " && kind(at: next) == .mark) {
    let marks = end(of: .mark, from: first == .mark ? start : next)
    return runEnd(of: .lineBreak, in: text, from: marks)
  }
  if first == .other {
    // Nothing matches: a piece of all such symbols up to one that comes before a word.
    var end = next
    while kind(at: end) == .other {
      let after = end + TextSymbol(in: text, at: end).byteCount
      if kind(at: after) == .word { break }
      end = after
    }
    return end
  }
  let run = WhitespaceRun(in: text, from: start) { DeepSeekKind($0).isCut }
  return run.lastLineBreakEnd ?? run.pieceEnd
}

private func isASCIILetter(_ byte: UInt8) -> Bool {
  (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
}

/// The punctuation and symbols of ASCII.
private func isASCIIMark(_ byte: UInt8) -> Bool {
  (0x21...0x7e).contains(byte) && !isASCIILetter(byte) && !(0x30...0x39).contains(byte)
}

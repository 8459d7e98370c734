/// One Unicode scalar of a text, or one byte that is not part of well-formed UTF-8.
struct TextSymbol {
  /// What the splitting rules tell apart.
  enum Kind {
    /// General category L.
    case letter
    /// General category N.
    case number
    /// Carriage return or line feed.
    case lineBreak
    /// White space other than `lineBreak`.
    case space
    /// All else: marks, punctuation, symbols, controls, unassigned scalars and invalid bytes.
    case other

    /// Whether `\s` matches.
    var isWhitespace: Bool { self == .space || self == .lineBreak }
  }

  /// The scalar; nil for an invalid byte.
  let scalar: Unicode.Scalar?
  /// The number of bytes that the symbol takes in the text.
  let byteCount: Int

  /// Reads the symbol that starts at `offset`, which must be inside `bytes`.
  ///
  /// Well-formed sequences are those of the Unicode Standard, table 3-7.
  init(in bytes: Span<UInt8>, at offset: Int) {
    let lead = bytes[offset]
    if lead < 0x80 {
      scalar = Unicode.Scalar(lead)
      byteCount = 1
      return
    }
    let length = Self.sequenceLength(lead: lead)
    guard length > 0, offset + length <= bytes.count,
      Self.secondByteRange(lead: lead).contains(bytes[offset + 1])
    else {
      scalar = nil
      byteCount = 1
      return
    }
    var value = UInt32(lead) & (0x7f >> UInt32(length))
    for index in 1..<length {
      let byte = bytes[offset + index]
      guard byte & 0xc0 == 0x80 else {
        scalar = nil
        byteCount = 1
        return
      }
      value = value << 6 | UInt32(byte & 0x3f)
    }
    scalar = Unicode.Scalar(value)
    byteCount = length
  }

  /// The kind of the symbol.
  var kind: Kind {
    guard let scalar else { return .other }
    if scalar.value < 0x80 { return Self.asciiKinds[Int(scalar.value)] }
    return Self.kind(of: scalar)
  }

  /// The kind of the symbol, for rules that take marks for letters if `joiningMarks`.
  func kind(joiningMarks: Bool) -> Kind {
    let kind = kind
    guard joiningMarks, kind == .other, wordCase() == .neither else { return kind }
    return .letter
  }

  /// What rules tell apart within words.
  enum WordCase {
    /// General categories Lu and Lt.
    case upper
    /// General category Ll.
    case lower
    /// The other letters, and marks: Lm, Lo and M.
    case neither
  }

  /// Whether the scalar is of the script Han (Unicode 15.1).
  var isHan: Bool {
    guard let value = scalar?.value, value >= 0x2e80 else { return false }
    return Self.hanRanges.contains { $0.contains(value) }
  }

  private static let hanRanges: [ClosedRange<UInt32>] = [
    0x4e00...0x9fff, 0x3400...0x4dbf, 0x2e80...0x2e99, 0x2e9b...0x2ef3, 0x2f00...0x2fd5,
    0x3005...0x3005, 0x3007...0x3007, 0x3021...0x3029, 0x3038...0x303b, 0xf900...0xfa6d,
    0xfa70...0xfad9, 0x16fe2...0x16fe3, 0x16ff0...0x16ff1, 0x20000...0x2a6df, 0x2a700...0x2b739,
    0x2b740...0x2b81d, 0x2b820...0x2cea1, 0x2ceb0...0x2ebe0, 0x2ebf0...0x2ee5d, 0x2f800...0x2fa1d,
    0x30000...0x3134a, 0x31350...0x323af,
  ]

  /// The case of a letter or mark; nil for all else.
  /// - Parameter withoutHan: whether ideographs count as all else.
  func wordCase(withoutHan: Bool = false) -> WordCase? {
    guard let scalar, !(withoutHan && isHan) else { return nil }
    switch scalar.value {
    case 0x41...0x5a: return .upper
    case 0x61...0x7a: return .lower
    case ..<0x80: return nil
    default: break
    }
    switch scalar.properties.generalCategory {
    case .uppercaseLetter, .titlecaseLetter: return .upper
    case .lowercaseLetter: return .lower
    case .modifierLetter, .otherLetter, .nonspacingMark, .spacingMark, .enclosingMark:
      return .neither
    default: return nil
    }
  }

  /// The length of the sequence that a non-ASCII `lead` byte opens; 0 if it opens none.
  static func sequenceLength(lead: UInt8) -> Int {
    switch lead {
    case 0xc2...0xdf: 2
    case 0xe0...0xef: 3
    case 0xf0...0xf4: 4
    default: 0
    }
  }

  /// The second bytes that may follow `lead`: no overlong forms, surrogates or values past U+10FFFF.
  static func secondByteRange(lead: UInt8) -> ClosedRange<UInt8> {
    switch lead {
    case 0xe0: 0xa0...0xbf
    case 0xed: 0x80...0x9f
    case 0xf0: 0x90...0xbf
    case 0xf4: 0x80...0x8f
    default: 0x80...0xbf
    }
  }

  private static let asciiKinds: [Kind] = (UInt8(0)..<0x80).map { kind(of: Unicode.Scalar($0)) }

  private static func kind(of scalar: Unicode.Scalar) -> Kind {
    if scalar == "\r" || scalar == "\n" { return .lineBreak }
    let properties = scalar.properties
    if properties.isWhitespace { return .space }
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter:
      return .letter
    case .decimalNumber, .letterNumber, .otherNumber:
      return .number
    default:
      return .other
    }
  }
}

/// Turns tokens into text as they come, holding back a character until all its bytes are there.
///
/// The pieces joined are `String(decoding:as:)` of all the bytes: a byte that can no longer become
/// part of a character gives U+FFFD.
public struct StreamingDecoder: Sendable {
  private let tokenizer: Tokenizer
  private let skipsControl: Bool
  /// The start of a character whose other bytes have not come yet: at most three bytes.
  private var pending: [UInt8] = []

  /// Creates a decoder; with `skipsControl` control tokens give no text.
  public init(_ tokenizer: Tokenizer, skipsControl: Bool = true) {
    self.tokenizer = tokenizer
    self.skipsControl = skipsControl
  }

  /// Takes one token and returns the text that is complete with it, perhaps none.
  /// - Throws: `TokenizerError.tokenOutOfRange`; the decoder is then as before.
  public mutating func append(_ id: Int32) throws(TokenizerError) -> String {
    try tokenizer.appendBytes(of: id, skipsControl: skipsControl, to: &pending)
    let completeCount = pending.count - incompleteSuffixByteCount(pending.span)
    let text = String(decoding: pending[..<completeCount], as: UTF8.self)
    pending.removeFirst(completeCount)
    return text
  }

  /// Ends the text and returns what was held back: U+FFFD if a character was left unfinished.
  public mutating func flush() -> String {
    defer { pending.removeAll() }
    return String(decoding: pending, as: UTF8.self)
  }
}

/// The number of bytes at the end of `bytes` that start a character without completing it.
private func incompleteSuffixByteCount(_ bytes: Span<UInt8>) -> Int {
  for byteCount in 1...3 where byteCount <= bytes.count {
    let leadOffset = bytes.count - byteCount
    let lead = bytes[leadOffset]
    if lead & 0xc0 == 0x80 { continue }
    guard byteCount < TextSymbol.sequenceLength(lead: lead) else { return 0 }
    if byteCount > 1, !TextSymbol.secondByteRange(lead: lead).contains(bytes[leadOffset + 1]) {
      return 0
    }
    return byteCount
  }
  return 0
}

/// GPT-2's way of writing arbitrary bytes as printable text.
///
/// The printable bytes of Latin-1 stand for themselves; the other 68, in order, are written as
/// U+0100, U+0101 and so on (a space is U+0120 "Ġ").
/// Source: `bytes_to_unicode` in openai/gpt-2 `src/encoder.py`.
struct ByteAlphabet {
  /// The byte that each scalar below U+0144 stands for.
  private let byteOfScalar: [UInt8?]

  init() {
    var bytes: [UInt8?] = Array(repeating: nil, count: 256)
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 0x21...0x7e, 0xa1...0xac, 0xae...0xff: bytes[Int(byte)] = byte
      default: bytes.append(byte)
      }
    }
    byteOfScalar = bytes
  }

  /// The bytes that `text` stands for, or nil if it is not written in the alphabet.
  func bytes(of text: Span<UInt8>) -> [UInt8]? {
    var result: [UInt8] = []
    result.reserveCapacity(text.count)
    var offset = 0
    while offset < text.count {
      let symbol = TextSymbol(in: text, at: offset)
      guard let scalar = symbol.scalar, scalar.value < UInt32(byteOfScalar.count),
        let byte = byteOfScalar[Int(scalar.value)]
      else { return nil }
      result.append(byte)
      offset += symbol.byteCount
    }
    return result
  }
}

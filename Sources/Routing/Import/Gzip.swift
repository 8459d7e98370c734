/// Decompresses gzip files (RFC 1952) of deflate data (RFC 1951).
enum Gzip {
  /// Why data cannot be decompressed.
  struct Failure: Error, Hashable, Sendable {
    let reason: String
  }

  /// Whether `bytes` begin as a gzip file does.
  static func isCompressed(_ bytes: [UInt8]) -> Bool {
    bytes.count >= 3 && bytes[0] == 0x1f && bytes[1] == 0x8b && bytes[2] == 8
  }

  /// The text of every member of the file, one after the other.
  /// - Parameter limit: the most bytes of text, so that no file fills the memory.
  static func decompress(
    _ bytes: [UInt8], limit: Int, progress: TraceProgress = { _, _ in }
  ) throws(Failure) -> [UInt8] {
    var output: [UInt8] = []
    var input = BitInput(bytes: bytes, position: 0)
    repeat {
      let first = output.count
      try skipHeader(&input)
      try Inflate.inflate(&input, into: &output, limit: limit, progress: progress)
      input.alignToByte()
      let checksum = try input.readInteger(byteCount: 4)
      let length = try input.readInteger(byteCount: 4)
      guard length == (output.count - first) & 0xffff_ffff, checksum == crc32(output[first...])
      else { throw Failure(reason: "its checksum or length is wrong") }
    } while !input.isAtEnd
    return output
  }

  private static func skipHeader(_ input: inout BitInput) throws(Failure) {
    guard try input.readInteger(byteCount: 3) == 0x08_8b1f else {
      throw Failure(reason: "bytes that are no gzip member follow its end")
    }
    let flags = try input.readInteger(byteCount: 1)
    _ = try input.readInteger(byteCount: 6)
    if flags & 4 != 0 {
      for _ in 0..<(try input.readInteger(byteCount: 2)) { _ = try input.readInteger(byteCount: 1) }
    }
    // The name and the comment, each ended by a zero.
    for flag in [8, 16] where flags & flag != 0 {
      while try input.readInteger(byteCount: 1) != 0 {}
    }
    if flags & 2 != 0 { _ = try input.readInteger(byteCount: 2) }
  }

  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in
      value & 1 == 1 ? 0xedb8_8320 ^ (value >> 1) : value >> 1
    }
  }

  private static func crc32(_ bytes: ArraySlice<UInt8>) -> Int {
    var value: UInt32 = 0xffff_ffff
    for byte in bytes { value = table[Int(UInt8(truncatingIfNeeded: value) ^ byte)] ^ (value >> 8) }
    return Int(~value)
  }
}

/// Bits of bytes, the lowest first.
struct BitInput {
  let bytes: [UInt8]
  private(set) var position: Int
  private var buffer: UInt64 = 0
  private var bitCount = 0

  init(bytes: [UInt8], position: Int) {
    self.bytes = bytes
    self.position = position
  }

  var isAtEnd: Bool { bitCount < 8 && position == bytes.count }

  /// At least `count` bits, as far as there are any; the rest are zero.
  mutating func peek(_ count: Int) -> Int {
    while bitCount < count, position < bytes.count {
      buffer |= UInt64(bytes[position]) << UInt64(bitCount)
      position += 1
      bitCount += 8
    }
    return Int(buffer & (1 << UInt64(count) - 1))
  }

  mutating func skip(_ count: Int) throws(Gzip.Failure) {
    guard count <= bitCount else { throw Gzip.Failure(reason: "it ends too early") }
    buffer >>= UInt64(count)
    bitCount -= count
  }

  mutating func read(_ count: Int) throws(Gzip.Failure) -> Int {
    let value = peek(count)
    try skip(count)
    return value
  }

  mutating func alignToByte() {
    buffer >>= UInt64(bitCount % 8)
    bitCount -= bitCount % 8
  }

  /// The next bytes, which are aligned, as a little-endian number.
  mutating func readInteger(byteCount: Int) throws(Gzip.Failure) -> Int {
    var value = 0
    for index in 0..<byteCount { value |= try read(8) << (8 * index) }
    return value
  }
}

/// Deflate's decoder (RFC 1951).
private enum Inflate {
  private static let lengthBases = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163,
    195, 227, 258,
  ]
  private static let lengthBits = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
  ]
  private static let codeLengthOrder = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
  ]

  static func inflate(
    _ input: inout BitInput, into output: inout [UInt8], limit: Int, progress: TraceProgress
  ) throws(Gzip.Failure) {
    var isLast = false
    let first = output.count
    while !isLast {
      progress(input.position, input.bytes.count)
      isLast = try input.read(1) == 1
      switch try input.read(2) {
      case 0:
        try copyStored(&input, into: &output, limit: limit)
      case 1:
        let lengths =
          Array(repeating: 8, count: 144) + Array(repeating: 9, count: 112)
          + Array(repeating: 7, count: 24) + Array(repeating: 8, count: 8)
        try copyCompressed(
          &input, literals: try HuffmanTable(lengths: lengths),
          distances: try HuffmanTable(lengths: Array(repeating: 5, count: 30)), into: &output,
          first: first, limit: limit)
      case 2:
        let (literals, distances) = try readTables(&input)
        try copyCompressed(
          &input, literals: literals, distances: distances, into: &output, first: first,
          limit: limit)
      default:
        throw Gzip.Failure(reason: "a block is of an unknown kind")
      }
    }
  }

  private static func copyStored(
    _ input: inout BitInput, into output: inout [UInt8], limit: Int
  ) throws(Gzip.Failure) {
    input.alignToByte()
    let length = try input.readInteger(byteCount: 2)
    guard try input.readInteger(byteCount: 2) == length ^ 0xffff else {
      throw Gzip.Failure(reason: "the length of a stored block is damaged")
    }
    for _ in 0..<length { try append(UInt8(try input.read(8)), to: &output, limit: limit) }
  }

  private static func readTables(
    _ input: inout BitInput
  ) throws(Gzip.Failure) -> (HuffmanTable, HuffmanTable) {
    let literalCount = try input.read(5) + 257
    let distanceCount = try input.read(5) + 1
    var codeLengths = Array(repeating: 0, count: 19)
    for index in 0..<(try input.read(4) + 4) {
      codeLengths[codeLengthOrder[index]] = try input.read(3)
    }
    let codes = try HuffmanTable(lengths: codeLengths)
    var lengths: [Int] = []
    while lengths.count < literalCount + distanceCount {
      let symbol = try codes.decode(&input)
      switch symbol {
      case 0..<16: lengths.append(symbol)
      case 16:
        guard let previous = lengths.last else {
          throw Gzip.Failure(reason: "a code repeats nothing")
        }
        lengths += Array(repeating: previous, count: try input.read(2) + 3)
      case 17: lengths += Array(repeating: 0, count: try input.read(3) + 3)
      default: lengths += Array(repeating: 0, count: try input.read(7) + 11)
      }
    }
    guard lengths.count == literalCount + distanceCount else {
      throw Gzip.Failure(reason: "there are too many code lengths")
    }
    return (
      try HuffmanTable(lengths: Array(lengths[..<literalCount])),
      try HuffmanTable(lengths: Array(lengths[literalCount...]))
    )
  }

  private static func copyCompressed(
    _ input: inout BitInput, literals: HuffmanTable, distances: HuffmanTable,
    into output: inout [UInt8], first: Int, limit: Int
  ) throws(Gzip.Failure) {
    while true {
      let symbol = try literals.decode(&input)
      if symbol < 256 {
        try append(UInt8(symbol), to: &output, limit: limit)
        continue
      }
      guard symbol > 256 else { return }
      guard symbol - 257 < lengthBases.count else {
        throw Gzip.Failure(reason: "a length code is unknown")
      }
      let length = lengthBases[symbol - 257] + (try input.read(lengthBits[symbol - 257]))
      let code = try distances.decode(&input)
      guard code < 30 else { throw Gzip.Failure(reason: "a distance code is unknown") }
      // Codes from 4 on come in pairs with one bit more for each pair.
      let bits = max(0, code / 2 - 1)
      let base = code < 4 ? code + 1 : ((2 + code % 2) << bits) + 1
      let distance = base + (try input.read(bits))
      guard distance <= output.count - first else {
        throw Gzip.Failure(reason: "a distance reaches before the beginning")
      }
      for _ in 0..<length {
        try append(output[output.count - distance], to: &output, limit: limit)
      }
    }
  }

  private static func append(
    _ byte: UInt8, to output: inout [UInt8], limit: Int
  ) throws(Gzip.Failure) {
    guard output.count < limit else {
      throw Gzip.Failure(reason: "its text is longer than \(limit) bytes")
    }
    output.append(byte)
  }
}

/// A prefix code as a table over every sequence of as many bits as its longest word has.
private struct HuffmanTable {
  /// The symbol times 16, plus the length of its word; 0 where there is none.
  private var entries: [UInt16]
  private let bitCount: Int

  /// - Parameter lengths: the length of each symbol's word, 0 for none, at most 15.
  init(lengths: [Int]) throws(Gzip.Failure) {
    bitCount = max(1, lengths.max() ?? 0)
    entries = Array(repeating: 0, count: 1 << bitCount)
    var word = 0
    for length in 1...bitCount {
      for symbol in lengths.indices where lengths[symbol] == length {
        guard word < 1 << length else {
          throw Gzip.Failure(reason: "a code has too many words")
        }
        let reversed = Self.reverse(word, bitCount: length)
        for index in stride(from: reversed, to: entries.count, by: 1 << length) {
          entries[index] = UInt16(symbol << 4 | length)
        }
        word += 1
      }
      word <<= 1
    }
  }

  private static func reverse(_ word: Int, bitCount: Int) -> Int {
    (0..<bitCount).reduce(0) { $0 << 1 | (word >> $1) & 1 }
  }

  func decode(_ input: inout BitInput) throws(Gzip.Failure) -> Int {
    let entry = entries[input.peek(bitCount)]
    guard entry != 0 else { throw Gzip.Failure(reason: "a word is in no code") }
    try input.skip(Int(entry & 15))
    return Int(entry >> 4)
  }
}

internal import FoundationEssentials

/// A `tiktoken.model`, as Kimi-K2's folders have it in place of a `tokenizer.json`, in GGUF's keys: a line for each
/// token, its bytes in base 64 and its rank, which is its id; two neighbours become one token if their bytes
/// together are one, that of the lowest rank first. Special tokens follow, with names in `tokenizer_config.json`.
package struct TiktokenVocabulary {
  private(set) var metadata: [String: MetadataValue] = [:]

  static let fileName = "tiktoken.model"
  /// Special tokens after the others, with a name or without.
  private static let reservedCount = 256
  /// Far more than any has.
  private static let maximumByteCount: UInt64 = 64 << 20

  /// - Parameters:
  ///   - path: a `tiktoken.model`.
  ///   - configPath: the `tokenizer_config.json` beside it.
  ///   - vocabularySize: tokens of the model, of which the tokenizer may have fewer.
  /// - Throws: `CheckpointError` naming the file and the line that is not as it should be.
  init(path: String, configPath: String, vocabularySize: Int) throws(CheckpointError) {
    let bytes = try Self.tokens(path)
    guard (1...1 << 24).contains(vocabularySize), bytes.count <= vocabularySize else {
      throw .invalidValue(
        path: path, key: "the number of tokens", found: "\(bytes.count)",
        expected: "at most \(vocabularySize), as config.json says")
    }
    var tokens = bytes.map(Self.text)
    var types = [TokenType](repeating: .normal, count: tokens.count)
    let names = try JSONFile(configPath).value["added_tokens_decoder"]
    for id in bytes.count..<min(bytes.count + Self.reservedCount, vocabularySize) {
      let named = names?["\(id)"]
      tokens.append(named?["content"]?.string ?? "<|reserved_token_\(id)|>")
      types.append(named?["special"]?.bool == false ? .userDefined : .control)
    }
    for id in tokens.count..<vocabularySize {
      tokens.append("[PAD\(id)]")
      types.append(.unused)
    }
    metadata = [
      "tokenizer.ggml.model": .string("gpt2"),
      "tokenizer.ggml.pre": .string("kimi-k2"),
      "tokenizer.ggml.tokens": .array(.string(StringTable(tokens))),
      "tokenizer.ggml.token_type": .array(.int32(types.map(\.rawValue))),
      Self.mergesByRankKey: .bool(true),
      "tokenizer.ggml.add_bos_token": .bool(false),
    ]
  }

  /// Says that merges follow from the order of tokens; there is no list of them then.
  package static let mergesByRankKey = "tokenizer.ggml.merges_by_rank"

  /// The bytes of each token, in the order of ids.
  private static func tokens(_ path: String) throws(CheckpointError) -> [Data] {
    var reader = try HeaderReader(path: path)
    guard reader.byteCount <= maximumByteCount else {
      throw .headerTooLarge(path: path, item: "the file", limit: maximumByteCount)
    }
    var content = Data()
    try reader.bytes(count: Int(reader.byteCount), "the file") { content.append(contentsOf: $0) }
    var tokens: [Data] = []
    for (number, line) in content.split(separator: UInt8(ascii: "\n")).enumerated() {
      let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
      guard words.count == 2, let bytes = Data(base64Encoded: Data(words[0])), !bytes.isEmpty,
        Int(String(decoding: words[1], as: UTF8.self)) == number
      else {
        throw .invalidValue(
          path: path, key: "line \(number + 1)",
          found: "'\(String(decoding: line.prefix(80), as: UTF8.self))'",
          expected: "a token in base 64, a space and \(number)")
      }
      tokens.append(bytes)
    }
    return tokens
  }

  /// Bytes in GPT-2's alphabet: those that are printable in Latin-1 for themselves, the others from U+0100 on.
  private static func text(_ bytes: Data) -> String {
    var text = String.UnicodeScalarView()
    for byte in bytes { text.append(alphabet[Int(byte)]) }
    return String(text)
  }

  private static let alphabet: [Unicode.Scalar] = {
    var next: UInt32 = 0x100
    return (UInt32(0)..<256).map { byte in
      if (0x21...0x7e).contains(byte) || (0xa1...0xff).contains(byte) && byte != 0xad {
        return Unicode.Scalar(byte)!
      }
      defer { next += 1 }
      return Unicode.Scalar(next)!
    }
  }()
}

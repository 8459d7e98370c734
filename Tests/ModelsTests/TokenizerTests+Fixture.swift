import Checkpoints
import FoundationEssentials

@testable import Models

/// A vocabulary and what Hugging Face's tokenizers made of some texts with it; written by
/// `Tests/Fixtures/make_tokenizer_fixtures.py`.
struct TokenizerFixture: Decodable {
  struct Case: Decodable {
    var text: String
    var ids: [Int32]
    var normalized: String?

    var bytes: [UInt8] { bytesOfHex(text) }
    var normalizedBytes: [UInt8] { bytesOfHex(normalized ?? text) }
  }

  /// The kind of tokenizer; byte-level merges without it.
  var model: String?
  var pre: String
  var tokens: [String]
  var types: [Int32]
  var merges: [String]
  var scores: [Float]?
  var bos: Int32
  var eos: Int32
  var cases: [Case]

  static let names = [
    "qwen2", "qwen35", "olmo", "llama-bpe", "refact", "gpt-4o", "kimi-k2", "deepseek-v3",
    "deepseek-llm", "demo",
  ]

  static func load(_ name: String) throws -> TokenizerFixture {
    try loadFixture("tokenizer-\(name).json")
  }

  var vocabulary: TokenizerVocabulary {
    var vocabulary = TokenizerVocabulary(
      model: model ?? "gpt2", preTokenizer: pre, tokens: StringTable(tokens), tokenTypes: types,
      merges: StringTable(merges), bosID: bos, eosID: eos, addBOS: model == "llama")
    vocabulary.scores = scores ?? []
    return vocabulary
  }

  func tokenizer() throws -> Tokenizer { try Tokenizer(vocabulary) }
}

/// What Hugging Face's tokenizers know of single scalars.
struct UnicodeFacts: Decodable {
  struct Range: Decodable {
    var first: UInt32
    var last: UInt32
    var kind: String
  }

  struct Normalization: Decodable {
    var text: String
    var normalized: String
  }

  var ranges: [Range]
  var normalized: [Normalization]

  static func load() throws -> UnicodeFacts { try loadFixture("tokenizer-unicode.json") }
}

/// Reads a JSON file of `Tests/Fixtures`.
private func loadFixture<T: Decodable>(_ name: String) throws -> T {
  let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  let data = try Data(contentsOf: folder.appending(path: "Fixtures").appending(path: name))
  return try JSONDecoder().decode(T.self, from: data)
}

/// The bytes that a string of hexadecimal digits spells.
func bytesOfHex(_ hex: String) -> [UInt8] {
  let digits = hex.utf8.compactMap { Character(Unicode.Scalar($0)).hexDigitValue }
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] * 16 + digits[$0 + 1]) }
}

/// A smallest vocabulary: the 256 bytes in the byte alphabet, then what a test adds.
func byteVocabulary(
  pre: String = "gpt-2", adding tokens: [(text: String, type: Int32)] = [], merges: [String] = [],
  bosID: Int32? = nil, eosID: Int32? = nil, addBOS: Bool = false
) -> TokenizerVocabulary {
  var texts: [String] = []
  var next: UInt32 = 0x100
  for byte in UInt32(0)..<256 {
    let isPrintable = (0x21...0x7e).contains(byte) || (0xa1...0xff).contains(byte) && byte != 0xad
    texts.append(String(Unicode.Scalar(isPrintable ? byte : next)!))
    if !isPrintable { next += 1 }
  }
  return TokenizerVocabulary(
    model: "gpt2", preTokenizer: pre, tokens: StringTable(texts + tokens.map(\.text)),
    tokenTypes: Array(repeating: 1, count: 256) + tokens.map(\.type),
    merges: StringTable(merges), bosID: bosID, eosID: eosID, addBOS: addBOS)
}

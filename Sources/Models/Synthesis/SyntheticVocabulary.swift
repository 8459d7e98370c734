internal import Checkpoints

/// The text side of a synthesized model: a byte-level vocabulary that encodes any text, mostly byte
/// by byte, and fills up with tokens that only generation uses.
struct SyntheticVocabulary {
  /// In rank order, in GPT-2's byte alphabet; each makes one token.
  private static let merges = [
    "Ġ t", "h e", "i n", "e r", "Ġ a", "o n", "r e", "Ġt he", "a t", "e n", "Ġ s", "Ġ w", "o r",
    "Ġ o", "Ġo f", "a n", "n d", "Ġa nd", "in g", "Ġ in", "l l", "e s", "e d", "Ġt o",
  ]
  private static let controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

  /// Bytes, merges and control tokens, which every vocabulary has.
  static let minimumTokenCount = 256 + merges.count + controls.count

  /// The tokens in id order.
  let tokens: StringTable
  /// Their types (`TokenType`).
  let types: [Int32]
  private let endID: UInt32
  private let preTokenizer: PreTokenizer

  init(tokenCount: Int, preTokenizer: PreTokenizer) {
    precondition(tokenCount >= Self.minimumTokenCount, "too small a vocabulary")
    self.preTokenizer = preTokenizer
    var tokens = StringTable()
    for scalar in byteAlphabetScalars() { tokens.append(String(Character(scalar)).utf8) }
    for merge in Self.merges { tokens.append(merge.filter { $0 != " " }.utf8) }
    endID = UInt32(tokens.count)
    for control in Self.controls { tokens.append(control.utf8) }
    var types = [Int32](repeating: TokenType.normal.rawValue, count: tokenCount)
    for id in Int(endID)..<tokens.count { types[id] = TokenType.control.rawValue }
    // Normal tokens that no merge makes: visible when generated, never made from text.
    for id in tokens.count..<tokenCount { tokens.append("Ġw\(id)".utf8) }
    self.tokens = tokens
    self.types = types
  }

  /// The `tokenizer.ggml` keys.
  var metadata: [(key: String, value: MetadataValue)] {
    [
      ("tokenizer.ggml.model", .string("gpt2")),
      ("tokenizer.ggml.pre", .string(preTokenizer.rawValue)),
      ("tokenizer.ggml.tokens", .array(.string(tokens))),
      ("tokenizer.ggml.token_type", .array(.int32(types))),
      ("tokenizer.ggml.merges", .array(.string(StringTable(Self.merges)))),
      ("tokenizer.ggml.bos_token_id", .uint32(endID)),
      ("tokenizer.ggml.eos_token_id", .uint32(endID)),
      ("tokenizer.ggml.padding_token_id", .uint32(endID)),
      ("tokenizer.ggml.add_bos_token", .bool(false)),
    ]
  }
}

/// The scalars of GPT-2's byte alphabet (`ByteAlphabet`), those that stand for themselves first.
private func byteAlphabetScalars() -> [Unicode.Scalar] {
  let own = [0x21...0x7e, 0xa1...0xac, 0xae...0xff].flatMap { $0.map { UInt8($0) } }
  let others = (0..<UInt32(256 - own.count)).compactMap { Unicode.Scalar(0x100 + $0) }
  return own.map { Unicode.Scalar($0) } + others
}

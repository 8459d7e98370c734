package import Checkpoints

/// The tokenizer's part of a checkpoint, as a GGUF file states it.
///
/// It is what `Tokenizer` is built from and can be dropped afterwards.
package struct TokenizerVocabulary: Sendable {
  /// The kind of tokenizer (`tokenizer.ggml.model`): "gpt2" (byte-level merges) or "llama" (SentencePiece
  /// with merges by score).
  package var model: String
  /// The rule that splits text before byte-level merging (`tokenizer.ggml.pre`).
  package var preTokenizer: String
  /// The tokens in id order. Ordinary tokens are written in GPT-2's byte alphabet ("Ġthe"),
  /// all others as their own text.
  package var tokens: StringTable
  /// The GGUF type of each token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
  ///
  /// If nil, `bosID` and `eosID` are taken for control tokens and all others for normal ones.
  package var tokenTypes: [Int32]?
  /// The merges in rank order, each two tokens in the byte alphabet around one space.
  package var merges: StringTable
  /// Whether merges follow from the order of tokens, the earliest first, and a piece that is a token stays whole
  /// (tiktoken); there is no list of them then.
  package var mergesByRank = false
  /// The score of each token, of which SentencePiece merges the highest first; empty without them.
  package var scores: [Float] = []
  /// Whether SentencePiece puts a space before a text.
  package var addsSpace = true
  /// The id of the beginning-of-sequence token.
  package var bosID: Int32?
  /// The id of the end-of-sequence token.
  package var eosID: Int32?
  /// The id of the token that ends a turn of a conversation, where that is another one.
  package var endOfTurnID: Int32?
  /// Whether a prompt starts with `bosID`.
  package var addBOS: Bool

  /// Creates a vocabulary; nothing is checked before `Tokenizer.init`.
  package init(
    model: String, preTokenizer: String, tokens: StringTable, tokenTypes: [Int32]?,
    merges: StringTable, bosID: Int32?, eosID: Int32?, endOfTurnID: Int32? = nil, addBOS: Bool
  ) {
    self.endOfTurnID = endOfTurnID
    self.model = model
    self.preTokenizer = preTokenizer
    self.tokens = tokens
    self.tokenTypes = tokenTypes
    self.merges = merges
    self.bosID = bosID
    self.eosID = eosID
    self.addBOS = addBOS
  }
}

extension TokenizerVocabulary {
  /// Takes the vocabulary from a checkpoint's `tokenizer.ggml` keys.
  ///
  /// - Throws: `CheckpointError` if a key is missing or of another type.
  package init(_ checkpoint: some MetadataSource) throws(CheckpointError) {
    func id(_ key: String) throws(CheckpointError) -> Int32? {
      try checkpoint.integerIfPresent("tokenizer.ggml.\(key)").flatMap { Int32(exactly: $0) }
    }
    let model = try checkpoint.string("tokenizer.ggml.model")
    let isScored = model == Self.sentencePiece
    let isRanked = try checkpoint.boolIfPresent(TiktokenVocabulary.mergesByRankKey) ?? false
    self.init(
      model: model,
      preTokenizer: isScored ? "" : try checkpoint.string("tokenizer.ggml.pre"),
      tokens: try checkpoint.strings("tokenizer.ggml.tokens"),
      tokenTypes: try checkpoint.integersIfPresent("tokenizer.ggml.token_type")?.map {
        Int32(truncatingIfNeeded: $0)
      },
      merges: isScored || isRanked
        ? StringTable() : try checkpoint.strings("tokenizer.ggml.merges"),
      bosID: try id("bos_token_id"), eosID: try id("eos_token_id"),
      endOfTurnID: try id("eot_token_id"),
      addBOS: try checkpoint.boolIfPresent("tokenizer.ggml.add_bos_token") ?? isScored)
    mergesByRank = isRanked
    guard isScored else { return }
    scores = try checkpoint.floats("tokenizer.ggml.scores")
    addsSpace = try checkpoint.boolIfPresent("tokenizer.ggml.add_space_prefix") ?? true
  }

  /// The kind whose merges follow from scores.
  static let sentencePiece = "llama"
}

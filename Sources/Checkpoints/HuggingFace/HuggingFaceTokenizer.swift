/// A `tokenizer.json` in GGUF's keys.
struct HuggingFaceTokenizer {
  private(set) var metadata: [String: MetadataValue] = [:]
  private let path: String

  private struct Content: Decodable {
    struct Model: Decodable {
      let type: String?
      let vocab: [String: Int]
      let merges: [Merge]
      let byteFallback: Bool?
      let ignoreMerges: Bool?

      private enum CodingKeys: String, CodingKey {
        case type, vocab, merges
        case byteFallback = "byte_fallback"
        case ignoreMerges = "ignore_merges"
      }
    }

    /// Two tokens, as a list or around one space.
    struct Merge: Decodable {
      let text: String

      init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
          self.text = text
        } else {
          text = try container.decode([String].self).joined(separator: " ")
        }
      }
    }

    struct Added: Decodable {
      let id: Int
      let content: String
      let special: Bool
    }

    let model: Model
    let addedTokens: [Added]?
    let normalizer: JSONValue?
    let preTokenizer: JSONValue?
    let postProcessor: JSONValue?

    private enum CodingKeys: String, CodingKey {
      case model, normalizer
      case addedTokens = "added_tokens"
      case preTokenizer = "pre_tokenizer"
      case postProcessor = "post_processor"
    }
  }

  /// - Parameters:
  ///   - path: a `tokenizer.json`.
  ///   - vocabularySize: tokens of the model, of which the tokenizer may have fewer.
  ///   - config: the model's `config.json`.
  ///   - generation: its `generation_config.json`, where there is one.
  init(
    path: String, vocabularySize: Int, config: JSONFile, generation: JSONFile?
  ) throws(CheckpointError) {
    self.path = path
    let content = try JSONFile.decode(Content.self, path: path)
    guard content.model.type ?? "BPE" == "BPE" else {
      throw .invalidValue(
        path: path, key: "model.type", found: "'\(content.model.type!)'", expected: "'BPE'")
    }
    let tokens = try setTokens(
      content, vocabularySize: vocabularySize, configPath: config.path)
    if content.model.byteFallback == true {
      setScores(content, of: tokens)
    } else {
      try setRule(content)
    }
    setSpecialTokens(content, config: config, generation: generation)
  }

  private mutating func set(_ key: String, _ value: MetadataValue) {
    metadata["tokenizer.ggml.\(key)"] = value
  }

  /// - Returns: the tokens, in id order.
  private mutating func setTokens(
    _ content: Content, vocabularySize: Int, configPath: String
  ) throws(CheckpointError) -> [String] {
    guard (1...1 << 24).contains(vocabularySize) else {
      throw .invalidValue(
        path: configPath, key: "vocab_size", found: "\(vocabularySize)", expected: "1 to \(1 << 24)"
      )
    }
    let added = content.addedTokens ?? []
    let ids = content.model.vocab.values + added.map(\.id)
    guard let last = ids.max(), ids.min()! >= 0, last < vocabularySize
    else {
      throw .invalidValue(
        path: path, key: "model.vocab", found: "ids up to \(ids.max() ?? -1)",
        expected: "0 to \(vocabularySize - 1), as config.json says")
    }
    var tokens = (0..<vocabularySize).map { "[PAD\($0)]" }
    var types = [TokenType](repeating: .unused, count: vocabularySize)
    let isSpaced = content.model.byteFallback ?? false
    for (token, id) in content.model.vocab {
      tokens[id] = token
      types[id] =
        isSpaced && token.utf8.count == 6 && token.hasPrefix("<0x") ? .byte : .normal
    }
    for token in added {
      tokens[token.id] = token.content
      types[token.id] = token.special ? .control : .userDefined
    }
    set("tokens", .array(.string(StringTable(tokens))))
    set("token_type", .array(.int32(types.map(\.rawValue))))
    return tokens
  }

  /// The regular expressions that split text, one after the other, by what GGUF calls them.
  private static let rules: [(patterns: [String], rule: String)] = {
    func cl100k(_ digits: String, letters: String = #"\p{L}"#, word: String = #"\p{L}"#) -> String {
      #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\#(word)+|\p{N}\#(digits)"#
        + #"| ?[^\s\#(letters)\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    }
    let qwen35 = cl100k("", letters: #"\p{L}\p{M}"#, word: #"[\p{L}\p{M}]"#)
    let upper = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
    let lower = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
    let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    let first = #"[^\r\n\p{L}\p{N}]?"#
    let o200k =
      "\(first)\(upper)*\(lower)+\(contractions)|\(first)\(upper)+\(lower)*\(contractions)"
      + #"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    return [
      ([cl100k("")], "qwen2"), ([qwen35], "qwen35"), ([cl100k("{1,3}")], "dbrx"),
      ([o200k], "gpt-4o"), (deepSeek3, "deepseek-v3"), (deepSeekLLM, "deepseek-llm"),
    ]
  }()

  private static let deepSeek3 = [
    #"\p{N}{1,3}"#, "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##
      + #"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
  ]

  private static let deepSeekLLM = [
    #"[\r\n]"#, DeepSeekLetters.pattern,
    "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}\u{2018}-\u{201f}\u{3000}-\u{3002}]+",
    #"\s+$"#, "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+",
  ]

  private mutating func setRule(_ content: Content) throws(CheckpointError) {
    let model = content.model
    set("model", .string("gpt2"))
    set("merges", .array(.string(StringTable(model.merges.map(\.text)))))
    let steps = content.preTokenizer.map(Self.steps) ?? []
    let normalizes = content.normalizer.map(Self.steps)?.contains { $0["type"]?.string == "NFC" }
    let rule: String
    // Some have line breaks themselves where others have escapes.
    let patterns = steps.compactMap { $0["pattern"]?["Regex"]?.string }.map {
      // Both together are one character.
      $0.replacing("\r\n", with: #"\r\n"#).replacing("\r", with: #"\r"#)
        .replacing("\n", with: #"\n"#)
    }
    if !patterns.isEmpty {
      guard let known = Self.rules.first(where: { $0.patterns == patterns }) else {
        throw unsupported(
          "pre_tokenizer", "splits by \(patterns.map { "'\($0)'" }.joined(separator: ", then "))")
      }
      rule = known.rule == "dbrx" && model.ignoreMerges == true ? "llama-bpe" : known.rule
      guard known.rule.hasPrefix("qwen") == (normalizes ?? false) else {
        throw unsupported("normalizer", normalizes == true ? "NFC" : "none")
      }
    } else if steps.contains(where: { $0["type"]?.string == "Digits" }) {
      guard steps.contains(where: { $0["individual_digits"]?.bool == true }) else {
        throw unsupported("pre_tokenizer", "digits in groups")
      }
      rule = "refact"
    } else {
      rule = normalizes == true ? "olmo" : "gpt-2"
    }
    guard steps.contains(where: { $0["type"]?.string == "ByteLevel" }) else {
      throw unsupported("pre_tokenizer", "not of bytes")
    }
    guard !steps.contains(where: { $0["add_prefix_space"]?.bool == true }) else {
      throw unsupported("pre_tokenizer", "add_prefix_space")
    }
    set("pre", .string(rule))
  }

  private func unsupported(_ key: String, _ found: String) -> CheckpointError {
    .invalidValue(
      path: path, key: key, found: found,
      expected:
        "byte-level BPE as OLMoE, Qwen, Llama 3, GLM-4, Granite, gpt-oss and DeepSeek have it, or with "
        + "byte_fallback"
    )
  }

  /// The steps of a normalizer or pre-tokenizer, which may be a sequence of some.
  private static func steps(_ value: JSONValue) -> [JSONValue] {
    for key in ["pretokenizers", "normalizers"] {
      if let parts = value[key]?.array { return parts }
    }
    return [value]
  }

  /// The scores of SentencePiece, which merges stand for: the earlier one makes a token, the higher.
  private mutating func setScores(_ content: Content, of tokens: [String]) {
    set("model", .string("llama"))
    var scores: [String: Float] = [:]
    for (index, merge) in content.model.merges.enumerated() {
      let whole = merge.text.replacing(" ", with: "")
      if scores[whole] == nil { scores[whole] = -Float(index) }
    }
    set("scores", .array(.float32(tokens.map { scores[$0] ?? -1e9 })))
    let prepends = content.normalizer.map(Self.steps)?.contains {
      $0["type"]?.string == "Prepend"
    }
    let metaspace = content.preTokenizer.map(Self.steps)?.contains {
      $0["type"]?.string == "Metaspace" && $0["prepend_scheme"]?.string != "never"
    }
    set("add_space_prefix", .bool(prepends == true || metaspace == true))
  }

  private mutating func setSpecialTokens(
    _ content: Content, config: JSONFile, generation: JSONFile?
  ) {
    metadata.merge(Self.specialTokens(config: config, generation: generation)) { $1 }
    // A template that begins with a special token puts it before every text.
    let steps = content.postProcessor.map { value in
      value["processors"]?.array ?? [value]
    }
    let begins = (steps ?? []).contains { $0["single"]?.array?.first?["SpecialToken"] != nil }
    set("add_bos_token", .bool(begins))
  }

  /// The tokens that begin and end sequences, as the configuration of generation or, without one, of the model
  /// says.
  static func specialTokens(
    config: JSONFile, generation: JSONFile?
  ) -> [String: MetadataValue] {
    let sources = [generation?.value, config.value].compactMap { $0 }
    func ids(_ key: String) -> [Int] {
      let value = sources.lazy.compactMap { $0[key] }.first
      return (value?.array?.compactMap(\.integer) ?? [value?.integer].compactMap { $0 })
        .filter { $0 >= 0 }
    }
    let ends = ids("eos_token_id")
    var found: [String: MetadataValue] = [:]
    for (key, id) in [
      ("bos", ids("bos_token_id").first), ("eos", ends.first), ("eot", ends.dropFirst().first),
    ] {
      if let id { found["tokenizer.ggml.\(key)_token_id"] = .int64(Int64(id)) }
    }
    return found
  }
}

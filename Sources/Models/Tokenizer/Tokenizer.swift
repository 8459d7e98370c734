internal import Checkpoints

/// Byte-pair encoding, text to token ids and back: over bytes as GPT-2 introduced it, or over characters
/// with bytes for those that the vocabulary lacks, as SentencePiece has it.
///
/// Any input, well-formed UTF-8 or not, decodes to itself (after normalization form C where the model asks
/// for it; SentencePiece puts a space before it, which goes again after a beginning-of-sequence token).
/// Complexity: encoding takes O(n log n) in the length of the text, however it is made.
public struct Tokenizer: Sendable {
  /// The id of the beginning-of-sequence token.
  public let bosID: Int32?
  /// The id of the end-of-sequence token.
  public let eosID: Int32?
  /// Whether `encodePrompt` starts with `bosID`.
  public let addsBOS: Bool
  /// The tokens after which a generation ends: `eosID` and the end of a turn.
  public let endIDs: Set<Int32>
  /// The number of tokens.
  public var tokenCount: Int { tokens.count }

  private let splitting: Splitting
  /// What each token decodes to.
  private let tokens: StringTable
  private let isControl: [Bool]
  /// The tokens that a whole piece may be.
  private let table: TokenTable
  private let merges: MergeTable
  private let byteTokenIDs: [Int32]
  private let specialTokens: SpecialTokenMatcher

  /// Builds the lookup tables of a vocabulary.
  /// - Throws: `TokenizerError` if the kind of tokenizer is not supported or its parts disagree.
  package init(_ vocabulary: TokenizerVocabulary) throws(TokenizerError) {
    let types = try tokenTypes(of: vocabulary)
    let index: TokenIndex
    switch vocabulary.model {
    case "gpt2":
      guard let rule = PreTokenizer(rawValue: vocabulary.preTokenizer) else {
        throw .unsupportedPreTokenizer(vocabulary.preTokenizer)
      }
      let alphabet = ByteAlphabet()
      index = TokenIndex(vocabulary.tokens, types: types) { alphabet.bytes(of: $0) }
      splitting = .bytes(
        rule, ignoresMerges: rule.ignoresMerges || vocabulary.mergesByRank)
      merges =
        vocabulary.mergesByRank
        ? try mergeTable(
          scores: (0..<types.count).map { -Float($0) }, tokens: index.tokens, ids: index.normalIDs,
          table: index.table)
        : try mergeTable(vocabulary.merges, table: index.table)
    case TokenizerVocabulary.sentencePiece:
      index = TokenIndex(vocabulary.tokens, types: types) { text in
        SpacedText.spaced(text.indices.map { text[$0] })
      }
      splitting = .spaced(
        SpacedText(addsSpace: vocabulary.addsSpace, tokens: index.tokens, ids: index.normalIDs))
      merges = try mergeTable(
        scores: vocabulary.scores, tokens: index.tokens, ids: index.normalIDs, table: index.table)
    default:
      throw .unsupportedModel(vocabulary.model)
    }
    let byteTokenIDs = try index.byteTokenIDs()
    specialTokens = SpecialTokenMatcher(
      tokens: index.tokens, controlIDs: index.controlIDs, userDefinedIDs: index.userDefinedIDs)
    tokens = index.tokens
    table = index.table
    isControl = types.map { $0 == .control || $0 == .unknown }
    self.byteTokenIDs = byteTokenIDs
    bosID = vocabulary.bosID
    eosID = vocabulary.eosID
    endIDs = Set([vocabulary.eosID, vocabulary.endOfTurnID].compactMap { $0 })
    addsBOS = vocabulary.addBOS
  }

  // MARK: - Encoding

  /// The tokens of `text`.
  /// - Parameter parseSpecial: whether the text of a control token stands for the token. Without
  ///   it such text is encoded like any other; user-defined tokens are always found.
  public func encode(_ text: String, parseSpecial: Bool = true) -> [Int32] {
    encode(bytes: Array(text.utf8), parseSpecial: parseSpecial)
  }

  /// The tokens of `bytes`, which need not be well-formed UTF-8; see `encode(_:parseSpecial:)`.
  public func encode(bytes: [UInt8], parseSpecial: Bool = true) -> [Int32] {
    let text = bytes.span
    var output: [Int32] = []
    var characters: TokenTable?
    if case .spaced = splitting { characters = table }
    var merger = PieceMerger(
      byteTokenIDs: byteTokenIDs, characters: characters, merges: merges)
    var start = 0
    while let match = specialTokens.firstMatch(
      in: text, from: start, includesControl: parseSpecial)
    {
      encodePlain(text.extracting(start..<match.range.lowerBound), with: &merger, into: &output)
      output.append(match.id)
      start = match.range.upperBound
    }
    encodePlain(text.extracting(start..<text.count), with: &merger, into: &output)
    return output
  }

  /// The tokens of a prompt: those of `encode`, after the beginning-of-sequence token if the model
  /// wants one and the text does not bring its own.
  public func encodePrompt(bytes: [UInt8], parseSpecial: Bool = true) -> [Int32] {
    let ids = encode(bytes: bytes, parseSpecial: parseSpecial)
    guard addsBOS, let bosID, ids.first != bosID else { return ids }
    return [bosID] + ids
  }

  /// The tokens of a prompt; see `encodePrompt(bytes:parseSpecial:)`.
  public func encodePrompt(_ text: String, parseSpecial: Bool = true) -> [Int32] {
    encodePrompt(bytes: Array(text.utf8), parseSpecial: parseSpecial)
  }

  /// Encodes text that holds no special tokens.
  private func encodePlain(
    _ text: Span<UInt8>, with merger: inout PieceMerger, into output: inout [Int32]
  ) {
    switch splitting {
    case .bytes(let rule, _):
      if rule.normalizesText, let normalized = normalizedToFormC(text) {
        encodePieces(of: normalized.span, with: &merger, into: &output)
      } else {
        encodePieces(of: text, with: &merger, into: &output)
      }
    case .spaced(let layout):
      encodePieces(of: layout.laidOut(text).span, with: &merger, into: &output)
    }
  }

  private func encodePieces(
    of text: Span<UInt8>, with merger: inout PieceMerger, into output: inout [Int32]
  ) {
    var start = 0
    while start < text.count {
      let end = splitting.pieceEnd(in: text, from: start)
      let piece = text.extracting(start..<end)
      if splitting.ignoresMerges, let id = table.id(of: piece) {
        output.append(id)
      } else {
        merger.encode(piece, into: &output)
      }
      start = end
    }
  }

  /// How text is cut into pieces that merges do not cross.
  private enum Splitting {
    case bytes(PreTokenizer, ignoresMerges: Bool)
    case spaced(SpacedText)

    var ignoresMerges: Bool {
      if case .bytes(_, let ignoresMerges) = self { ignoresMerges } else { false }
    }

    func pieceEnd(in text: Span<UInt8>, from start: Int) -> Int {
      switch self {
      case .bytes(let rule, _): rule.pieceEnd(in: text, from: start)
      case .spaced(let layout): layout.pieceEnd(in: text, from: start)
      }
    }
  }

  // MARK: - Decoding

  /// The bytes of `ids`, exactly; they need not be well-formed UTF-8.
  ///
  /// Special tokens give their text; with `skipsControl` control tokens give nothing.
  /// - Throws: `TokenizerError.tokenOutOfRange`.
  public func decode(
    _ ids: some Sequence<Int32>, skipsControl: Bool = false
  ) throws(TokenizerError) -> [UInt8] {
    var bytes: [UInt8] = []
    var isAfterBeginning = false
    for id in ids {
      let start = bytes.count
      try appendBytes(of: id, skipsControl: skipsControl, to: &bytes)
      if isAfterBeginning, case .spaced(let layout) = splitting, layout.addsSpace,
        bytes.count > start, bytes[start] == UInt8(ascii: " ")
      {
        bytes.remove(at: start)
      }
      isAfterBeginning = id == bosID
    }
    return bytes
  }

  /// Whether `id` is a control token such as `<|im_end|>`; false for an id out of range.
  public func isControlToken(_ id: Int32) -> Bool {
    isControl.indices.contains(Int(id)) && isControl[Int(id)]
  }

  /// The control token that reads `text`, by which a chat format finds its markers.
  public func controlTokenID(_ text: String) -> Int32? {
    let bytes = Array(text.utf8)
    let match = specialTokens.firstMatch(in: bytes.span, from: 0, includesControl: true)
    guard let match, match.range == 0..<bytes.count, isControl[Int(match.id)] else { return nil }
    return match.id
  }

  /// Appends the bytes of token `id`.
  func appendBytes(
    of id: Int32, skipsControl: Bool, to bytes: inout [UInt8]
  ) throws(TokenizerError) {
    guard id >= 0, Int(id) < tokens.count else {
      throw .tokenOutOfRange(id: id, tokenCount: tokens.count)
    }
    if skipsControl && isControl[Int(id)] { return }
    bytes.append(contentsOf: tokens[Int(id)])
  }
}

internal import Checkpoints

/// How SentencePiece (arXiv 1808.06226) lays out text before its merges: spaces are symbols like others,
/// and one more goes before a text.
///
/// Its vocabularies write a space as U+2581. Here tokens and text have the space itself, so that a text of
/// either reads the same.
struct SpacedText: Sendable {
  /// Whether a space goes before a text.
  let addsSpace: Bool
  /// Whether text may be cut before the spaces that begin a word: no token goes on from anything else into
  /// a space, so no merge crosses the cut.
  private let cutsWords: Bool

  /// - Parameter tokens: those that merges make, with spaces.
  init(addsSpace: Bool, tokens: StringTable, ids: [Int32]) {
    self.addsSpace = addsSpace
    cutsWords = ids.allSatisfy { id in
      let word = tokens[Int(id)].drop { $0 == Self.space }
      return !word.contains(Self.space)
    }
  }

  private static let space = UInt8(ascii: " ")
  /// U+2581 in UTF-8.
  private static let mark: [UInt8] = [0xe2, 0x96, 0x81]

  /// `bytes` with spaces for the marks that stand for them.
  static func spaced(_ bytes: some Collection<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    for byte in bytes {
      result.append(byte)
      if result.count >= 3, result[(result.count - 3)...].elementsEqual(Self.mark) {
        result.removeLast(3)
        result.append(Self.space)
      }
    }
    return result
  }

  /// What is merged of `text`, which holds no special token.
  func laidOut(_ text: Span<UInt8>) -> [UInt8] {
    var bytes: [UInt8] = []
    if addsSpace, text.count > 0 { bytes.append(Self.space) }
    for index in text.indices { bytes.append(text[index]) }
    return Self.spaced(bytes)
  }

  /// The end of the piece that starts at `start`, which must be inside `text`.
  func pieceEnd(in text: Span<UInt8>, from start: Int) -> Int {
    guard cutsWords else { return text.count }
    var end = start
    while end < text.count, text[end] == Self.space { end += 1 }
    while end < text.count, text[end] != Self.space { end += 1 }
    return end
  }
}

/// The longest token of a vocabulary whose merges follow from its scores, in bytes: many times what
/// SentencePiece makes.
private let longestToken = 512

/// The merges that the scores of a vocabulary stand for: any two tokens whose texts together are a token,
/// that of the highest score first.
/// - Throws: `TokenizerError.scoreCountMismatch`, `.overlongToken`.
func mergeTable(
  scores: [Float], tokens: StringTable, ids: [Int32], table: TokenTable
) throws(TokenizerError) -> MergeTable {
  guard scores.count == tokens.count else {
    throw .scoreCountMismatch(scores: scores.count, tokens: tokens.count)
  }
  var parts: [(left: Int32, right: Int32, whole: Int32)] = []
  for id in ids {
    let byteCount = tokens[Int(id)].count
    guard byteCount <= longestToken else {
      throw .overlongToken(id: id, byteCount: byteCount, maximum: longestToken)
    }
    tokens.withSpan(at: Int(id)) { text in
      for cut in 1..<max(1, text.count) {
        guard let left = table.id(of: text.extracting(0..<cut)),
          let right = table.id(of: text.extracting(cut..<text.count))
        else { continue }
        parts.append((left, right, id))
      }
    }
  }
  // A score that is no number comes last.
  func score(_ id: Int32) -> Float {
    let score = scores[Int(id)]
    return score.isNaN ? -.infinity : score
  }
  let order = Set(parts.map(\.whole)).sorted { (score($1), $0) < (score($0), $1) }
  let ranks = Dictionary(
    uniqueKeysWithValues: order.enumerated().map { ($0.element, UInt32($0.offset)) })
  var result = MergeTable(capacity: parts.count)
  for part in parts {
    result.insert(
      MergeTable.Merge(rank: ranks[part.whole]!, id: part.whole), left: part.left,
      right: part.right)
  }
  return result
}

internal import Checkpoints

/// Finds the tokens that stand for themselves in a text: control tokens such as `<|im_end|>` and
/// user-defined ones.
///
/// At each place the longest match wins, and the leftmost place first: the "leftmost longest" rule
/// of Hugging Face's added tokens.
struct SpecialTokenMatcher: Sendable {
  /// A special token found in a text.
  struct Match {
    /// The token's id.
    var id: Int32
    /// The token's place in the text, in bytes.
    var range: Range<Int>
  }

  private let table: TokenTable
  private let isControl: [Bool]
  /// For each first byte the distinct lengths of the tokens that start with it, longest first.
  private var lengths: [[Int]] = Array(repeating: [], count: 256)

  /// Creates a matcher of the tokens `controlIDs` and `userDefinedIDs` of `tokens`.
  init(tokens: StringTable, controlIDs: [Int32], userDefinedIDs: [Int32]) {
    var isControl = Array(repeating: false, count: tokens.count)
    var table = TokenTable(strings: tokens, capacity: controlIDs.count + userDefinedIDs.count)
    for id in controlIDs { isControl[Int(id)] = true }
    for id in userDefinedIDs + controlIDs {
      guard let first = tokens[Int(id)].first else { continue }
      table.insert(id)
      lengths[Int(first)].append(tokens[Int(id)].count)
    }
    for first in lengths.indices { lengths[first] = Set(lengths[first]).sorted(by: >) }
    self.isControl = isControl
    self.table = table
  }

  /// The first match at or after `start`; control tokens count only if `includesControl`.
  func firstMatch(in text: Span<UInt8>, from start: Int, includesControl: Bool) -> Match? {
    for offset in start..<text.count {
      for length in lengths[Int(text[offset])] where length <= text.count - offset {
        let range = offset..<(offset + length)
        guard let id = table.id(of: text.extracting(range)) else { continue }
        if includesControl || !isControl[Int(id)] { return Match(id: id, range: range) }
      }
    }
    return nil
  }
}

/// Lists of experts, each from its oldest member to its newest; an expert is in one list at most.
///
/// Every operation but `init` is O(1).
struct RecencyOrder: Sendable {
  private struct Node: Sendable {
    var older: Int32
    var newer: Int32
    /// The list it is in, or -1.
    var list: Int32 = -1
  }

  /// A node for every expert; after them one for each list, between its newest and its oldest member.
  private var nodes: [Node]
  private let expertCount: Int
  private(set) var counts: [Int]

  init(expertCount: Int, listCount: Int = 1) {
    self.expertCount = expertCount
    nodes = (0..<Int32(expertCount + listCount)).map { Node(older: $0, newer: $0) }
    counts = Array(repeating: 0, count: listCount)
  }

  /// The list `expert` is in.
  func list(of expert: Int32) -> Int? {
    let list = nodes[Int(expert)].list
    return list < 0 ? nil : Int(list)
  }

  func oldest(in index: Int = 0) -> Int32? { member(nodes[expertCount + index].newer) }
  func next(newerThan expert: Int32) -> Int32? { member(nodes[Int(expert)].newer) }

  private func member(_ index: Int32) -> Int32? { Int(index) < expertCount ? index : nil }

  /// Puts `expert`, wherever it was, at the new end of list `index`.
  mutating func makeNewest(_ expert: Int32, in index: Int = 0) {
    remove(expert)
    let end = expertCount + index
    let before = nodes[end].older
    nodes[Int(expert)] = Node(older: before, newer: Int32(end), list: Int32(index))
    nodes[Int(before)].newer = expert
    nodes[end].older = expert
    counts[index] += 1
  }

  /// Takes `expert` out of its list, if it is in one.
  mutating func remove(_ expert: Int32) {
    let node = nodes[Int(expert)]
    guard node.list >= 0 else { return }
    nodes[Int(node.older)].newer = node.newer
    nodes[Int(node.newer)].older = node.older
    nodes[Int(expert)].list = -1
    counts[Int(node.list)] -= 1
  }

  /// The oldest member of list `index` that may be evicted.
  func oldestEvictable(in index: Int = 0, _ residents: borrowing ResidentTable) -> Int32? {
    var candidate = oldest(in: index)
    while let expert = candidate, !residents.isEvictable(expert) {
      candidate = next(newerThan: expert)
    }
    return candidate
  }
}

/// The best tokens of a step, best first: the higher logit, and of equals the lower id.
struct CandidateList: Sendable {
  /// A token and its logit.
  struct Candidate: Sendable {
    /// The token's id.
    var token: Int32
    /// The token's logit.
    var logit: Float

    /// Whether this one comes after `other`.
    func isWorse(than other: Candidate) -> Bool {
      logit < other.logit || (logit == other.logit && token > other.token)
    }
  }

  private var entries: [Candidate] = []

  /// The number of candidates.
  var count: Int { entries.count }

  /// The candidate at a place in the order.
  subscript(index: Int) -> Candidate { entries[index] }

  /// Drops all but the first `count` candidates.
  mutating func truncate(to count: Int) {
    entries.removeLast(entries.count - count)
  }

  /// Replaces the list by the best `limit` of `logits`, which holds at least as many.
  ///
  /// A heap with the worst candidate on top, then a heap sort in place: `Array.sort` would allocate.
  /// - Complexity: O(n log `limit`).
  mutating func selectBest(_ limit: Int, of logits: UnsafeBufferPointer<Float>) {
    entries.removeAll(keepingCapacity: true)
    entries.reserveCapacity(limit)
    for index in 0..<limit {
      entries.append(Candidate(token: Int32(index), logit: logits[index]))
    }
    for root in (0..<limit / 2).reversed() { siftDown(from: root, in: limit) }
    for index in limit..<logits.count where logits[index] > entries[0].logit {
      entries[0] = Candidate(token: Int32(index), logit: logits[index])
      siftDown(from: 0, in: limit)
    }
    for end in (1..<max(limit, 1)).reversed() {
      entries.swapAt(0, end)
      siftDown(from: 0, in: end)
    }
  }

  /// Restores the heap order of the first `count` entries below `root`.
  private mutating func siftDown(from root: Int, in count: Int) {
    let entry = entries[root]
    var parent = root
    while true {
      var child = 2 * parent + 1
      guard child < count else { break }
      if child + 1 < count, entries[child + 1].isWorse(than: entries[child]) { child += 1 }
      guard entries[child].isWorse(than: entry) else { break }
      entries[parent] = entries[child]
      parent = child
    }
    entries[parent] = entry
  }
}

internal import Residency
internal import Routing

/// The misses of LRU at every capacity, from one pass over a trace (Mattson et al., "Evaluation
/// techniques for storage hierarchies", IBM Systems Journal 9, 1970).
///
/// LRU's residents at a capacity are the most recently needed experts that fit it. So an expert is hit
/// at every capacity that holds it and all that were needed since: its stack distance, in bytes here,
/// as experts differ in size. Memory is linear in the number of experts.
package struct MissRatioCurve: Sendable {
  /// Decode accesses.
  package private(set) var accesses = 0
  /// Accesses by their stack distance in units of `resolution` bytes; those of first uses not counted.
  private var histogram: [Int]
  private let resolution: Int
  private let total: Int

  /// - Parameter replay: its decode events are counted.
  package init(_ replay: Replay, progress: ReplayProgress = { _ in }) throws {
    let geometry = replay.geometry
    total = geometry.totalByteCount
    resolution = max(1, total / 65536)
    histogram = Array(repeating: 0, count: total / resolution + 2)
    var stack = ByteStack(
      byteCounts: geometry.expertByteCounts.flatMap {
        Array(repeating: $0, count: geometry.expertCount)
      })
    try replay.forEachEvent(progress: progress) { index, union in
      if !union.event.isPrompt, index >= replay.fitCount {
        accesses += union.event.experts.count
        for expert in union.event.experts {
          guard let distance = stack.distance(of: expert) else { continue }
          histogram[(distance + resolution - 1) / resolution] += 1
        }
      }
      for expert in union.event.experts { stack.touch(expert) }
    }
  }

  /// The hit rate at each of `capacities` bytes, which ascend; within `resolution` bytes, a 65,536th of
  /// all experts.
  package func hitRates(at capacities: [Int]) -> [Double] {
    var hits = 0
    var next = 0
    return capacities.map { capacity in
      while next < histogram.count, next * resolution <= capacity {
        hits += histogram[next]
        next += 1
      }
      return accesses == 0 ? 0 : Double(hits) / Double(accesses)
    }
  }
}

/// Experts in the order of their last use, with the bytes of those used since any of them: a Fenwick
/// tree over the times of last uses, which are numbered anew when they run out.
private struct ByteStack {
  private let byteCounts: [Int]
  private var lastUse: [Int]
  private var tree: [Int]
  private var clock = 0

  init(byteCounts: [Int]) {
    self.byteCounts = byteCounts
    lastUse = Array(repeating: -1, count: byteCounts.count)
    tree = Array(repeating: 0, count: 2 * byteCounts.count + 2)
  }

  /// The bytes of `expert` and of all used after it; nil if it was never used.
  func distance(of expert: Int32) -> Int? {
    let time = lastUse[Int(expert)]
    guard time >= 0 else { return nil }
    return sum(before: clock) - sum(before: time)
  }

  mutating func touch(_ expert: Int32) {
    if clock + 1 >= tree.count { renumber() }
    if lastUse[Int(expert)] >= 0 { add(-byteCounts[Int(expert)], at: lastUse[Int(expert)]) }
    lastUse[Int(expert)] = clock
    add(byteCounts[Int(expert)], at: clock)
    clock += 1
  }

  private mutating func renumber() {
    let order = lastUse.indices.filter { lastUse[$0] >= 0 }.sorted { lastUse[$0] < lastUse[$1] }
    for index in tree.indices { tree[index] = 0 }
    clock = 0
    for expert in order {
      lastUse[expert] = clock
      add(byteCounts[expert], at: clock)
      clock += 1
    }
  }

  private mutating func add(_ value: Int, at time: Int) {
    var index = time + 1
    while index < tree.count {
      tree[index] += value
      index += index & -index
    }
  }

  private func sum(before time: Int) -> Int {
    var sum = 0
    var index = time
    while index > 0 {
      sum += tree[index]
      index -= index & -index
    }
    return sum
  }
}

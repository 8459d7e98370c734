/// The fewest misses over every possible course of evictions, by trying them all.
enum BruteForce {
  /// - Parameters:
  ///   - events: the experts each event needs, as bits.
  ///   - capacity: experts that stay after an event.
  ///   - mayBypass: whether the event's own experts need not stay.
  static func fewestMisses(events: [UInt32], capacity: Int, mayBypass: Bool) -> Int {
    var best: [UInt32: Int] = [0: 0]
    for needed in events {
      var next: [UInt32: Int] = [:]
      for (residents, misses) in best {
        let now = misses + (needed & ~residents).nonzeroBitCount
        for kept in choices(of: residents | needed, needed: needed, capacity, mayBypass) {
          next[kept] = min(next[kept] ?? .max, now)
        }
      }
      best = next
    }
    return best.values.min()!
  }

  /// The largest sets that may stay of `pool`.
  private static func choices(
    of pool: UInt32, needed: UInt32, _ capacity: Int, _ mayBypass: Bool
  ) -> [UInt32] {
    let fixed = mayBypass ? 0 : needed
    let free = (0..<32).map { UInt32(1) << $0 }.filter { pool & ~fixed & $0 != 0 }
    let room = min(free.count, max(0, capacity - fixed.nonzeroBitCount))
    var sets: [UInt32] = []
    func extend(_ set: UInt32, from index: Int, left: Int) {
      if left == 0 { return sets.append(set) }
      for place in index..<free.count where free.count - place >= left {
        extend(set | free[place], from: place + 1, left: left - 1)
      }
    }
    extend(fixed, from: 0, left: room)
    return sets
  }
}

public import Routing

/// SIEVE: one queue in order of arrival and a hand that moves from old to new, sparing once what was
/// used since it last came by (Zhang et al., "SIEVE is simpler than LRU", NSDI 2024, section 3).
public struct SIEVEPolicy: EvictionPolicy {
  private var queue: RecencyOrder
  private var wasUsed: [Bool]
  private var hand: Int32?

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry) {
    let count = geometry.layerCount * geometry.expertCount
    queue = RecencyOrder(expertCount: count)
    wasUsed = Array(repeating: false, count: count)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    for expert in event.experts {
      if queue.list(of: expert) == nil {
        queue.makeNewest(expert)
        wasUsed[Int(expert)] = false
      } else {
        wasUsed[Int(expert)] = true
      }
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    // Two rounds: the first may do nothing but clear marks.
    for _ in 0..<2 * queue.counts[0] {
      guard let expert = hand ?? queue.oldest() else { return nil }
      hand = queue.next(newerThan: expert)
      guard residents.isEvictable(expert) else { continue }
      if wasUsed[Int(expert)] {
        wasUsed[Int(expert)] = false
      } else {
        queue.remove(expert)
        return expert
      }
    }
    return nil
  }
}

/// S3-FIFO: newcomers wait in a small queue, a tenth of the room; those used meanwhile move to the main
/// queue, where use grants another round; those that left the small queue unused are remembered, and
/// go to the main queue if they come back (Yang et al., "FIFO queues are all you need for cache
/// eviction", SOSP 2023, algorithm 1).
public struct S3FIFOPolicy: EvictionPolicy {
  private static let (small, main, ghost) = (0, 1, 2)
  private var queues: RecencyOrder
  private var uses: [UInt8]
  private var smallCount = 1
  private var mainCount = 1

  /// - Parameters:
  ///   - geometry: the model.
  ///   - capacity: bytes that residents may take.
  public init(geometry: RoutingGeometry, capacity: Int) {
    let count = geometry.layerCount * geometry.expertCount
    queues = RecencyOrder(expertCount: count, listCount: 3)
    uses = Array(repeating: 0, count: count)
    resize(geometry: geometry, capacity: capacity)
  }

  public mutating func resize(geometry: RoutingGeometry, capacity: Int) {
    let room = geometry.meanResidentCount(capacity: capacity)
    smallCount = max(1, room / 10)
    mainCount = max(1, room - smallCount)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    for expert in event.experts {
      switch queues.list(of: expert) {
      case Self.small, Self.main:
        uses[Int(expert)] = min(3, uses[Int(expert)] + 1)
      case Self.ghost:
        uses[Int(expert)] = 0
        queues.makeNewest(expert, in: Self.main)
      default:
        uses[Int(expert)] = 0
        queues.makeNewest(expert, in: Self.small)
      }
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    if queues.counts[Self.small] > smallCount || queues.counts[Self.main] == 0,
      let victim = takeFromSmall(residents)
    {
      return victim
    }
    return takeFromMain(residents) ?? takeFromSmall(residents)
  }

  private mutating func takeFromSmall(_ residents: borrowing ResidentTable) -> Int32? {
    var candidate = queues.oldest(in: Self.small)
    while let expert = candidate {
      candidate = queues.next(newerThan: expert)
      guard residents.isEvictable(expert) else { continue }
      if uses[Int(expert)] > 1 {
        uses[Int(expert)] = 0
        queues.makeNewest(expert, in: Self.main)
      } else {
        queues.makeNewest(expert, in: Self.ghost)
        if queues.counts[Self.ghost] > mainCount {
          queues.remove(queues.oldest(in: Self.ghost)!)
        }
        return expert
      }
    }
    return nil
  }

  private mutating func takeFromMain(_ residents: borrowing ResidentTable) -> Int32? {
    var candidate = queues.oldest(in: Self.main)
    // Each round takes one use from each; no expert has more than three.
    for _ in 0..<4 * queues.counts[Self.main] {
      guard let expert = candidate ?? queues.oldest(in: Self.main) else { return nil }
      candidate = queues.next(newerThan: expert)
      guard residents.isEvictable(expert) else { continue }
      if uses[Int(expert)] > 0 {
        uses[Int(expert)] -= 1
        queues.makeNewest(expert, in: Self.main)
      } else {
        queues.remove(expert)
        return expert
      }
    }
    return nil
  }
}

/// ARC: a list of experts used once and one of those used again, whose sizes follow which of the two
/// lately evicted too early (Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache",
/// FAST 2003, figure 4).
public struct ARCPolicy: EvictionPolicy {
  private static let (once, again, onceGhost, againGhost) = (0, 1, 2, 3)
  private var lists: RecencyOrder
  private var room: Int
  /// The size that `once` is steered to.
  private var target = 0.0

  /// - Parameters:
  ///   - geometry: the model.
  ///   - capacity: bytes that residents may take.
  public init(geometry: RoutingGeometry, capacity: Int) {
    lists = RecencyOrder(
      expertCount: geometry.layerCount * geometry.expertCount, listCount: 4)
    room = geometry.meanResidentCount(capacity: capacity)
  }

  public mutating func resize(geometry: RoutingGeometry, capacity: Int) {
    room = geometry.meanResidentCount(capacity: capacity)
    target = min(target, Double(room))
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    for expert in event.experts {
      let ghosts = (
        once: Double(lists.counts[Self.onceGhost]), again: Double(lists.counts[Self.againGhost])
      )
      switch lists.list(of: expert) {
      case Self.onceGhost:
        target = min(Double(room), target + max(1, ghosts.again / ghosts.once))
        lists.makeNewest(expert, in: Self.again)
      case Self.againGhost:
        target = max(0, target - max(1, ghosts.once / ghosts.again))
        lists.makeNewest(expert, in: Self.again)
      case Self.once, Self.again:
        lists.makeNewest(expert, in: Self.again)
      default:
        lists.makeNewest(expert, in: Self.once)
      }
    }
    trimGhosts()
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    let first = Double(lists.counts[Self.once]) > target ? Self.once : Self.again
    for list in [first, 1 - first] {
      guard let victim = lists.oldestEvictable(in: list, residents) else { continue }
      lists.makeNewest(victim, in: list + 2)
      return victim
    }
    return nil
  }

  /// Both lists of a kind hold at most `room`, all four twice that.
  private mutating func trimGhosts() {
    while lists.counts[Self.onceGhost] > 0,
      lists.counts[Self.once] + lists.counts[Self.onceGhost] > room
    {
      lists.remove(lists.oldest(in: Self.onceGhost)!)
    }
    while lists.counts[Self.againGhost] > 0, lists.counts.reduce(0, +) > 2 * room {
      lists.remove(lists.oldest(in: Self.againGhost)!)
    }
  }
}

/// Least-Stale: experts not touched in the pass under way go before those touched in it, the oldest
/// first (SpecMD, arXiv 2602.03921). Without prefetch it is LRU: what this pass has touched is newer
/// than all else (arXiv 2608.07911).
public struct LeastStalePolicy: EvictionPolicy {
  private var order: RecencyOrder
  private var lastPass: [Int]
  private var pass = 0

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry) {
    let count = geometry.layerCount * geometry.expertCount
    order = RecencyOrder(expertCount: count)
    lastPass = Array(repeating: -1, count: count)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    pass = event.pass
    for expert in event.experts {
      order.makeNewest(expert)
      lastPass[Int(expert)] = pass
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    var fallback: Int32?
    var candidate = order.oldest()
    while let expert = candidate {
      candidate = order.next(newerThan: expert)
      guard residents.isEvictable(expert) else { continue }
      if lastPass[Int(expert)] < pass {
        order.remove(expert)
        return expert
      }
      if fallback == nil { fallback = expert }
    }
    if let fallback { order.remove(fallback) }
    return fallback
  }
}

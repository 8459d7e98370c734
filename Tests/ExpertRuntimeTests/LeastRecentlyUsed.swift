import Residency
import Routing

/// The least-recently-used rule written plainly, event by event: what the runtime's counts are compared
/// with. Slots hold experts of their own size.
struct LeastRecentlyUsed {
  private struct Slot {
    let byteCount: Int
    var expert: ExpertID?
    var lastUse = 0
  }

  private var slots: [Slot]
  private var clock = 0
  private(set) var hits = 0
  private(set) var misses = 0
  private(set) var evictions = 0

  init(_ plan: SlotPlan) {
    slots = plan.classes.flatMap { slotClass in
      Array(repeating: Slot(byteCount: slotClass.byteCount), count: slotClass.slotCount)
    }
  }

  /// Uses experts that need slots of `byteCount` bytes; returns how many were not there. What is there
  /// when they are asked for stays there until they are done with.
  mutating func use(_ experts: [ExpertID], byteCount: Int) -> Int {
    var missed: [(expert: ExpertID, time: Int)] = []
    for expert in experts {
      clock += 1
      if let index = slots.firstIndex(where: { $0.expert == expert }) {
        slots[index].lastUse = clock
        hits += 1
      } else {
        missed.append((expert, clock))
      }
    }
    let fitting = slots.indices.filter { slots[$0].byteCount == byteCount }
    for (expert, time) in missed {
      let free = fitting.first { slots[$0].expert == nil }
      let index = free ?? fitting.min { slots[$0].lastUse < slots[$1].lastUse }!
      if free == nil { evictions += 1 }
      slots[index].expert = expert
      slots[index].lastUse = time
    }
    misses += missed.count
    return missed.count
  }
}

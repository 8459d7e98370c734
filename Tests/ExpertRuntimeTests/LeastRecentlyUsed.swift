import Residency
import Routing

/// The least-recently-used rule written plainly: what the runtime's counts are compared with.
///
/// It holds for calls that touch no more experts than fit: then no expert of the call is a victim.
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

  /// Uses an expert that needs a slot of `byteCount` bytes; returns whether it was there.
  @discardableResult
  mutating func use(_ expert: ExpertID, byteCount: Int) -> Bool {
    clock += 1
    if let index = slots.firstIndex(where: { $0.expert == expert }) {
      slots[index].lastUse = clock
      hits += 1
      return true
    }
    misses += 1
    let fitting = slots.indices.filter { slots[$0].byteCount >= byteCount }
    let index: Int
    if let free = fitting.filter({ slots[$0].expert == nil })
      .min(by: { slots[$0].byteCount < slots[$1].byteCount })
    {
      index = free
    } else {
      index = fitting.min { slots[$0].lastUse < slots[$1].lastUse }!
      evictions += 1
    }
    slots[index].expert = expert
    slots[index].lastUse = clock
    return false
  }
}

import Residency
import Routing

/// The cache's rules in their plainest form: one array that every question scans.
struct LinearCache {
  struct Slot {
    let byteCount: Int
    var expert: ExpertID?
    var isReading = false
    var lastAccess = 0
    var users = 0
  }

  /// What an access found; several slots are possible where one free slot is as good as another.
  enum Answer: Equatable {
    case hit(slot: Int)
    case pending(slot: Int)
    case readIntoFree(byteCount: Int)
    case readIntoUsed(slot: Int, evicting: ExpertID)
    case full
  }

  private(set) var slots: [Slot]
  private let expertByteCounts: [Int]
  private var accessCount = 0
  private var streamCount = 0

  init(plan: SlotPlan, expertByteCounts: [Int]) {
    self.expertByteCounts = expertByteCounts
    slots = plan.classes.flatMap { slotClass in
      Array(repeating: Slot(byteCount: slotClass.byteCount), count: slotClass.slotCount)
    }
  }

  /// What accessing `expert` has to give, by the rules alone.
  func answer(for expert: ExpertID) -> Answer {
    if let slot = slots.firstIndex(where: { $0.expert == expert }) {
      return slots[slot].isReading ? .pending(slot: slot) : .hit(slot: slot)
    }
    let fitting = slots.indices.filter { slots[$0].byteCount >= expertByteCounts[expert.layer] }
    let free = fitting.filter { slots[$0].expert == nil }
    if let smallest = free.map({ slots[$0].byteCount }).min() {
      return .readIntoFree(byteCount: smallest)
    }
    let unused = fitting.filter { slots[$0].users == 0 && !slots[$0].isReading }
    guard let victim = unused.min(by: { slots[$0].lastAccess < slots[$1].lastAccess }) else {
      return .full
    }
    return .readIntoUsed(slot: victim, evicting: slots[victim].expert!)
  }

  /// Takes over what the cache under test did.
  mutating func record(
    _ access: ExpertCache.Access, of expert: ExpertID, as admission: ExpertCache.Admission = .keep
  ) {
    accessCount += 1
    switch access {
    case .hit(let slot), .pending(let slot):
      slots[slot].users += 1
      if admission == .keep { slots[slot].lastAccess = accessCount }
    case .read(let slot, _):
      slots[slot].expert = expert
      slots[slot].isReading = true
      slots[slot].users = 1
      streamCount += 1
      slots[slot].lastAccess = admission == .keep ? accessCount : -streamCount
    case .full: break
    }
  }

  /// The slots large enough for an expert of `layer` that are free or were only streamed into.
  func spareSlotCount(layer: Int) -> Int {
    slots.filter {
      $0.byteCount >= expertByteCounts[layer] && ($0.expert == nil || $0.lastAccess < 0)
    }.count
  }

  func hasIdleSpareSlot(layer: Int) -> Bool {
    slots.contains {
      $0.byteCount >= expertByteCounts[layer]
        && ($0.expert == nil || $0.lastAccess < 0 && $0.users == 0 && !$0.isReading)
    }
  }

  mutating func finishRead(slot: Int) { slots[slot].isReading = false }

  mutating func failRead(slot: Int) { slots[slot] = Slot(byteCount: slots[slot].byteCount) }

  mutating func release(slot: Int) { slots[slot].users -= 1 }
}

extension LinearCache.Answer {
  /// Whether the cache under test, whose slots `slots` were before, was right to do `access`.
  func allows(_ access: ExpertCache.Access, slots: [LinearCache.Slot]) -> Bool {
    switch (self, access) {
    case (.hit(let expected), .hit(let slot)): slot == expected
    case (.pending(let expected), .pending(let slot)): slot == expected
    case (.readIntoFree(let byteCount), .read(let slot, nil)):
      slots.indices.contains(slot) && slots[slot].expert == nil
        && slots[slot].byteCount == byteCount
    case (.readIntoUsed(let expected, let victim), .read(let slot, let evicted)):
      slot == expected && evicted == victim
    case (.full, .full): true
    default: false
    }
  }
}

public import Routing

/// Which experts are in which slots: a state machine without clock, I/O or threads.
///
/// The owner tells it what a layer needs (`access`), what arrived (`finishRead`), what is no longer
/// used (`release`); it answers what to read and whom to evict. The live runtime carries the
/// answers out; a simulator can carry them out in simulated time.
///
/// Eviction is least recently used over all layers: the victim is the expert accessed longest ago
/// among those whose slot is large enough and that no computation uses. An accessed expert stays
/// until it is released. A long stream of experts, such as a prompt needs, can be let through
/// without flushing what is there: see `Admission.stream`.
public struct ExpertCache: Sendable {
  /// What an access means for the order of eviction.
  public enum Admission: Hashable, Sendable {
    /// The expert becomes the last to be evicted.
    case keep
    /// A resident expert stays where it is in the order; one that is read becomes the first to be
    /// evicted, so that a stream of any length uses the same few slots over and over (insertion at
    /// the old end: Qureshi et al., "Adaptive insertion policies for high performance caching",
    /// ISCA 2007).
    case stream
  }

  /// What the owner has to do for an accessed expert.
  public enum Access: Hashable, Sendable {
    /// It is in `slot`, ready.
    case hit(slot: Int)
    /// It is on its way into `slot`, read for an earlier access.
    case pending(slot: Int)
    /// Read it into `slot`, whose former expert, if any, is gone.
    case read(slot: Int, evicting: ExpertID?)
    /// Every slot that could hold it is in use: release some and ask again.
    case full
  }

  private enum State: UInt8 { case free, reading, ready }

  private struct Slot {
    var state = State.free
    var expert: Int32 = -1
    var users: Int32 = 0
    /// The number of the access; negative for an expert that was only streamed.
    var lastAccess: Int64 = 0
    var older: Int32 = -1
    var newer: Int32 = -1
  }

  /// A list of the slots of one size from the oldest access to the newest, and its free slots.
  private struct Class {
    let byteCount: Int
    var oldest: Int32 = -1
    var newest: Int32 = -1
    var free: [Int32]
  }

  private let expertsPerLayer: Int
  /// The class each layer's experts need, [layers].
  private let classOfLayer: [Int]
  private let classOfSlot: [Int]
  private var classes: [Class]
  private var slots: [Slot]
  /// The slot of every expert or -1, [layers * experts].
  private var slotOfExpert: [Int32]
  private var accessCount: Int64 = 0
  private var streamCount: Int64 = 0

  /// An empty cache over the slots of `plan`, numbered class by class in ascending size.
  ///
  /// - Parameter expertByteCounts: the slot size each layer's experts need, [layers].
  public init(plan: SlotPlan, expertByteCounts: [Int], expertsPerLayer: Int) {
    self.expertsPerLayer = expertsPerLayer
    var firstSlot = 0
    var classes: [Class] = []
    var classOfSlot: [Int] = []
    for (index, slotClass) in plan.classes.enumerated() {
      let slots = firstSlot..<(firstSlot + slotClass.slotCount)
      classes.append(Class(byteCount: slotClass.byteCount, free: slots.reversed().map(Int32.init)))
      classOfSlot += Array(repeating: index, count: slotClass.slotCount)
      firstSlot = slots.upperBound
    }
    self.classes = classes
    self.classOfSlot = classOfSlot
    classOfLayer = expertByteCounts.map { size in
      guard let index = classes.firstIndex(where: { $0.byteCount >= size }) else {
        preconditionFailure("no slot holds an expert of \(size) bytes")
      }
      return index
    }
    slots = Array(repeating: Slot(), count: firstSlot)
    slotOfExpert = Array(repeating: -1, count: expertByteCounts.count * expertsPerLayer)
  }

  /// The number of slots.
  public var slotCount: Int { slots.count }

  /// The experts that are in a slot or on their way into one.
  public var residentCount: Int { slots.reduce(0) { $0 + ($1.state == .free ? 0 : 1) } }

  /// The bytes slot `slot` holds.
  public func byteCount(ofSlot slot: Int) -> Int { classes[classOfSlot[slot]].byteCount }

  /// Whether `expert` is in a slot and ready.
  public func isResident(_ expert: ExpertID) -> Bool {
    let slot = slotOfExpert[index(of: expert)]
    return slot >= 0 && slots[Int(slot)].state == .ready
  }

  /// The slots for experts of `layer` that no kept expert is in: those free and those of experts that
  /// were only streamed.
  ///
  /// Complexity: O(slots).
  public func spareSlotCount(layer: Int) -> Int {
    slots.indices.count { isSpare($0, layer: layer) }
  }

  /// Whether one of the spare slots can be read into now.
  ///
  /// Complexity: O(slots).
  public func hasIdleSpareSlot(layer: Int) -> Bool {
    slots.indices.contains {
      isSpare($0, layer: layer) && (slots[$0].state == .free || isEvictable($0))
    }
  }

  private func isSpare(_ slot: Int, layer: Int) -> Bool {
    classOfSlot[slot] >= classOfLayer[layer]
      && (slots[slot].state == .free || slots[slot].lastAccess < 0)
  }

  /// A computation needs `expert`. Unless the answer is `full`, the slot is held until a matching
  /// `release`.
  public mutating func access(_ expert: ExpertID, as admission: Admission = .keep) -> Access {
    let index = index(of: expert)
    let current = Int(slotOfExpert[index])
    if current >= 0 {
      slots[current].users += 1
      if admission == .keep { markNewest(current) }
      return slots[current].state == .ready ? .hit(slot: current) : .pending(slot: current)
    }
    guard let slot = takeSlot(forClass: classOfLayer[expert.layer]) else { return .full }
    let former = slots[slot].expert
    if former >= 0 { slotOfExpert[Int(former)] = -1 }
    slots[slot].state = .reading
    slots[slot].expert = Int32(index)
    slots[slot].users = 1
    slotOfExpert[index] = Int32(slot)
    switch admission {
    case .keep: markNewest(slot)
    case .stream: markOldest(slot)
    }
    return .read(slot: slot, evicting: former >= 0 ? id(of: Int(former)) : nil)
  }

  /// The bytes of the expert being read into `slot` are all there.
  public mutating func finishRead(slot: Int) {
    precondition(slots[slot].state == .reading, "slot \(slot) is not being read")
    slots[slot].state = .ready
  }

  /// The read into `slot` failed: the slot is empty again, whoever held it.
  public mutating func failRead(slot: Int) {
    precondition(slots[slot].state == .reading, "slot \(slot) is not being read")
    slotOfExpert[Int(slots[slot].expert)] = -1
    unlink(slot)
    slots[slot] = Slot()
    classes[classOfSlot[slot]].free.append(Int32(slot))
  }

  /// One computation that accessed `slot` is done with it.
  public mutating func release(slot: Int) {
    precondition(slots[slot].users > 0, "slot \(slot) is not held")
    slots[slot].users -= 1
  }

  // MARK: - Slots

  private func index(of expert: ExpertID) -> Int {
    precondition(
      classOfLayer.indices.contains(expert.layer)
        && (0..<expertsPerLayer).contains(expert.expert), "no \(expert) in this model")
    return expert.layer * expertsPerLayer + expert.expert
  }

  private func id(of index: Int) -> ExpertID {
    ExpertID(layer: index / expertsPerLayer, expert: index % expertsPerLayer)
  }

  /// A free slot of the smallest class that fits, else the least recently accessed unused slot of
  /// any class that fits. Complexity: O(classes + slots in use).
  private mutating func takeSlot(forClass smallest: Int) -> Int? {
    for index in smallest..<classes.count {
      if let slot = classes[index].free.popLast() { return Int(slot) }
    }
    var victim: Int?
    for index in smallest..<classes.count {
      var candidate = classes[index].oldest
      while candidate >= 0, !isEvictable(Int(candidate)) {
        candidate = slots[Int(candidate)].newer
      }
      guard candidate >= 0 else { continue }
      if let best = victim, slots[best].lastAccess < slots[Int(candidate)].lastAccess { continue }
      victim = Int(candidate)
    }
    return victim
  }

  /// A slot with a read in flight is not, even if nobody waits for it: the read still writes to it.
  private func isEvictable(_ slot: Int) -> Bool {
    slots[slot].users == 0 && slots[slot].state == .ready
  }

  private mutating func markNewest(_ slot: Int) {
    unlink(slot)
    accessCount += 1
    let index = classOfSlot[slot]
    let newest = classes[index].newest
    slots[slot].older = newest
    slots[slot].newer = -1
    slots[slot].lastAccess = accessCount
    if newest >= 0 {
      slots[Int(newest)].newer = Int32(slot)
    } else {
      classes[index].oldest = Int32(slot)
    }
    classes[index].newest = Int32(slot)
  }

  private mutating func markOldest(_ slot: Int) {
    unlink(slot)
    streamCount += 1
    let index = classOfSlot[slot]
    let oldest = classes[index].oldest
    slots[slot].older = -1
    slots[slot].newer = oldest
    slots[slot].lastAccess = -streamCount
    if oldest >= 0 {
      slots[Int(oldest)].older = Int32(slot)
    } else {
      classes[index].newest = Int32(slot)
    }
    classes[index].oldest = Int32(slot)
  }

  /// Takes `slot` out of its class's list, if it is in it.
  private mutating func unlink(_ slot: Int) {
    let index = classOfSlot[slot]
    let (older, newer) = (slots[slot].older, slots[slot].newer)
    guard older >= 0 || newer >= 0 || classes[index].oldest == Int32(slot) else { return }
    if older >= 0 { slots[Int(older)].newer = newer } else { classes[index].oldest = newer }
    if newer >= 0 { slots[Int(newer)].older = older } else { classes[index].newest = older }
    slots[slot].older = -1
    slots[slot].newer = -1
  }
}

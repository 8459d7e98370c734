internal import Routing

/// Which slot each resident is in.
///
/// Slots are numbered class by class, and after them those for staging, class by class. A slot that is
/// released keeps its name in the books of the expert that leaves it until that expert gets another, so
/// that an event's experts can still be found there.
///
/// A staging slot takes an expert that is read ahead and evicts nothing for it. When the expert becomes
/// a resident it stays where it is, and the slot that was freed for it is a staging slot from then on.
struct SlotTable: Sendable {
  private let plan: SlotPlan
  private let expertCount: Int
  private let streamWindow: Int
  /// Layers of each class.
  private let layerCounts: [Int]
  /// The slot each expert is in, was in last, or -1, [layers * experts].
  private var slotOfExpert: [Int32]
  /// The free slots of each class; the next to be taken is the last.
  private var free: [[Int32]]
  /// The free staging slots of each class.
  private var spare: [[Int32]] = []
  /// The staged experts of each class, the first staged first.
  private var staged: [[Int32]] = []
  /// The slot each expert is staged in, or -1, [layers * experts].
  private var slotOfStaged: [Int32]

  init(plan: SlotPlan, geometry: RoutingGeometry) {
    precondition(plan.classOfLayer.count == geometry.layerCount, "a plan of another model")
    self.plan = plan
    expertCount = geometry.expertCount
    streamWindow = plan.streamWindow
    layerCounts = plan.classes.indices.map { index in plan.classOfLayer.count { $0 == index } }
    slotOfExpert = Array(repeating: -1, count: geometry.layerCount * geometry.expertCount)
    var first = 0
    free = plan.classes.map { slotClass in
      defer { first += slotClass.slotCount }
      return (first..<first + slotClass.slotCount).reversed().map(Int32.init)
    }
    slotOfStaged = slotOfExpert
    for index in plan.classes.indices {
      let start = first + index * plan.stagingCount
      spare.append((start..<start + plan.stagingCount).map(Int32.init))
      staged.append([])
    }
  }

  func slot(of expert: Int32) -> Int { Int(slotOfExpert[Int(expert)]) }

  private func classIndex(of expert: Int32) -> Int { plan.classOfLayer[Int(expert) / expertCount] }

  private func slotCount(layer: Int) -> Int { plan.classes[plan.classOfLayer[layer]].slotCount }

  /// Whether the experts of `event` pass through: many tokens of a prompt, or more than fit.
  func streams(_ event: borrowing RoutingEvent) -> Bool {
    (event.isPrompt && event.tokenCount > 1)
      || event.experts.count > slotCount(layer: event.layer)
  }

  /// The slots of a stream through `layer`.
  func window(layer: Int) -> Int { min(streamWindow, slotCount(layer: layer)) }

  /// The slots that would be a layer's if all had the same number.
  func share(layer: Int) -> Int {
    max(1, slotCount(layer: layer) / layerCounts[plan.classOfLayer[layer]])
  }

  func freeCount(layer: Int) -> Int { free[plan.classOfLayer[layer]].count }

  mutating func take(for expert: Int32) {
    let slot = free[classIndex(of: expert)].removeLast()
    if let stagingSlot = stagedSlot(of: expert) {
      unstage(expert)
      slotOfExpert[Int(expert)] = Int32(stagingSlot)
      spare[classIndex(of: expert)].append(slot)
    } else {
      slotOfExpert[Int(expert)] = slot
    }
  }

  mutating func release(_ expert: Int32) {
    free[classIndex(of: expert)].append(slotOfExpert[Int(expert)])
  }

  /// Lets `expert` pass through one of the next `window` free slots, by its turn; they stay free.
  mutating func pass(_ expert: Int32, through window: Int, turn: Int) {
    let slots = free[classIndex(of: expert)]
    slotOfExpert[Int(expert)] = slots[slots.count - window + turn % window]
  }

  // MARK: - Staging

  /// The slot that `expert` is staged in.
  func stagedSlot(of expert: Int32) -> Int? {
    let slot = slotOfStaged[Int(expert)]
    return slot < 0 ? nil : Int(slot)
  }

  /// The staged experts that share slots with those of `layer`, the first staged first.
  func staged(layer: Int) -> [Int32] { staged[plan.classOfLayer[layer]] }

  /// Gives `expert` a staging slot; nil if none is free.
  mutating func stage(_ expert: Int32) -> Int? {
    guard let slot = spare[classIndex(of: expert)].popLast() else { return nil }
    slotOfStaged[Int(expert)] = slot
    staged[classIndex(of: expert)].append(expert)
    return Int(slot)
  }

  /// Frees the staging slot of `expert`.
  mutating func discard(_ expert: Int32) {
    guard let slot = stagedSlot(of: expert) else { return }
    spare[classIndex(of: expert)].append(Int32(slot))
    unstage(expert)
  }

  private mutating func unstage(_ expert: Int32) {
    slotOfStaged[Int(expert)] = -1
    staged[classIndex(of: expert)].removeAll { $0 == expert }
  }
}

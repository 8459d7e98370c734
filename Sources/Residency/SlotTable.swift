internal import Routing

/// Which slot each resident is in.
///
/// Slots are numbered class by class. A slot that is released keeps its name in the books of the expert
/// that leaves it until that expert gets another, so that an event's experts can still be found there.
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
    slotOfExpert[Int(expert)] = free[classIndex(of: expert)].removeLast()
  }

  mutating func release(_ expert: Int32) {
    free[classIndex(of: expert)].append(slotOfExpert[Int(expert)])
  }

  /// Lets `expert` pass through one of the next `window` free slots, by its turn; they stay free.
  mutating func pass(_ expert: Int32, through window: Int, turn: Int) {
    let slots = free[classIndex(of: expert)]
    slotOfExpert[Int(expert)] = slots[slots.count - window + turn % window]
  }
}

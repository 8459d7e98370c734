import Residency
import Routing

/// `next-use` that also knows exactly what the next events need, and evicts none of it: what predictions of
/// the layers to come could be worth to eviction at most.
struct Foresight: EvictionPolicy {
  private var policy: NextUsePolicy
  /// The experts of every event of the trace.
  private let events: [[Int32]]
  private let distance: Int
  private let expertCount: Int
  private var index = -1
  private var pass = 0

  /// - Parameters:
  ///   - events: the experts of every event to come, in their order.
  ///   - distance: how many events it sees ahead.
  init(geometry: RoutingGeometry, events: [[Int32]], distance: Int) {
    policy = NextUsePolicy(geometry: geometry)
    self.events = events
    self.distance = distance
    expertCount = geometry.expertCount
  }

  mutating func observe(_ event: borrowing RoutingEvent, residents: borrowing ResidentTable) {
    index += 1
    pass = event.pass
    policy.observe(event, residents: residents)
  }

  mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    var needed: [Int32] = []
    var victim: Int32?
    while victim == nil, let candidate = policy.takeVictim(residents: residents) {
      if isNeeded(candidate) { needed.append(candidate) } else { victim = candidate }
    }
    for expert in needed where expert != (victim ?? needed.last) {
      policy.admit(
        expert, layer: Int(expert) / expertCount, pass: pass, residents: residents)
    }
    return victim ?? needed.last
  }

  private func isNeeded(_ expert: Int32) -> Bool {
    events[min(index + 1, events.count)..<min(index + 1 + distance, events.count)]
      .contains { $0.contains(expert) }
  }
}

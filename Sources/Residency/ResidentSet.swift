public import Routing

/// What serving an event took.
public struct ServedEvent: Hashable, Sendable {
  /// Needed experts that were resident when the event began.
  public var hits = 0
  /// Needed experts that were not.
  public var misses = 0
  /// The bytes of the missed experts.
  public var missedByteCount = 0
  /// Residents that had to go.
  public var evictions = 0
}

/// Experts in a number of bytes under a policy, event by event: a state machine without clock, I/O or
/// threads.
public struct ResidentSet: Sendable {
  /// What is resident.
  public private(set) var table: ResidentTable
  private var policy: any EvictionPolicy

  /// An empty set.
  /// - Parameter capacity: bytes that residents may take once an event is over.
  public init(geometry: RoutingGeometry, capacity: Int, policy: any EvictionPolicy) {
    table = ResidentTable(
      geometry: geometry, capacity: capacity, protectsEvent: !policy.mayBypass)
    self.policy = policy
  }

  /// Serves `event`: classifies, observes, admits, evicts, in this order.
  ///
  /// - Parameter missed: receives the missed experts, in the order of the event.
  public mutating func serve(
    _ event: borrowing RoutingEvent, missed: inout [Int32]
  ) -> ServedEvent {
    missed.removeAll(keepingCapacity: true)
    table.beginEvent(layer: event.layer)
    var served = ServedEvent()
    for expert in event.experts where !table.touch(expert) { missed.append(expert) }
    served.misses = missed.count
    served.hits = event.experts.count - missed.count
    served.missedByteCount = missed.count * table.geometry.expertByteCounts[event.layer]
    policy.observe(event, residents: table)
    for expert in missed { table.insert(expert) }
    while table.byteCount > table.capacity, let victim = policy.takeVictim(residents: table) {
      table.remove(victim)
      served.evictions += 1
    }
    return served
  }

  /// Evicts until the residents fit, those of the latest event too: its layer is over.
  public mutating func trim() {
    guard table.byteCount > table.capacity else { return }
    table.beginEvent(layer: table.layer)
    while table.byteCount > table.capacity, let victim = policy.takeVictim(residents: table) {
      table.remove(victim)
    }
  }
}

public import Routing

/// The events of a replay with what each event's experts are needed for next: what an oracle knows.
///
/// Memory is linear in the number of accesses: 8 bytes each.
public struct FutureUses: Sendable {
  /// Where the accesses of each event begin, and after the last one end.
  fileprivate private(set) var firsts = [0]
  fileprivate private(set) var experts: [Int32] = []
  /// The event that needs the same expert next, or `never`, by access.
  fileprivate private(set) var nextUses: [Int32] = []
  /// The events of each layer, and each event's place among those of its layer.
  fileprivate private(set) var eventsOfLayer: [[Int32]]
  fileprivate private(set) var places: [Int32] = []

  fileprivate static let never = Int32.max

  /// - Parameters:
  ///   - geometry: the model.
  ///   - fill: calls its argument with the layer and the experts of every event in their order.
  public init(
    geometry: RoutingGeometry, fill: ((_ layer: Int, _ experts: [Int32]) -> Void) throws -> Void
  ) rethrows {
    var collected = Self(layerCount: geometry.layerCount)
    try fill { layer, experts in collected.append(layer: layer, experts: experts) }
    collected.link(expertCount: geometry.layerCount * geometry.expertCount)
    self = collected
  }

  /// Bytes that the future of `source` takes while it is made.
  public static func byteCount(of source: TraceSource) -> Int {
    2 * (8 * source.accessCount + 16 * source.eventCount)
  }

  private init(layerCount: Int) { eventsOfLayer = Array(repeating: [], count: layerCount) }

  private mutating func append(layer: Int, experts: [Int32]) {
    self.experts += experts
    firsts.append(self.experts.count)
    places.append(Int32(eventsOfLayer[layer].count))
    eventsOfLayer[layer].append(Int32(places.count - 1))
  }

  private mutating func link(expertCount: Int) {
    nextUses = Array(repeating: Self.never, count: experts.count)
    var next = Array(repeating: Self.never, count: expertCount)
    for event in places.indices.reversed() {
      for access in firsts[event]..<firsts[event + 1] {
        nextUses[access] = next[Int(experts[access])]
        next[Int(experts[access])] = Int32(event)
      }
    }
  }
}

/// MIN: the victim is the expert needed farthest in the future (Belady, "A study of replacement
/// algorithms for a virtual-storage computer", IBM Systems Journal 5, 1966). The fewest misses that
/// any policy can have where experts are of one size.
///
/// With a window it knows only the passes of the next `window` tokens; among the experts they do not
/// need, the least recently used one goes.
public struct MINPolicy: EvictionPolicy {
  private let future: FutureUses
  private let window: Int?
  public let mayBypass: Bool
  private var keys: KeyTable
  /// The next use of each expert after its latest one.
  private var nextUse: [Int32]
  private var event = 0

  /// Above every event's number.
  private static let unknown = 0x1p40

  /// - Parameters:
  ///   - future: the events that will be observed, in the same order.
  ///   - mayBypass: whether a missed expert need not be kept; without it every one is admitted.
  ///   - window: the passes it sees ahead, at least 1; nil for all.
  public init(
    future: FutureUses, geometry: RoutingGeometry, mayBypass: Bool, window: Int? = nil
  ) {
    precondition((window ?? 1) >= 1, "an empty window")
    self.future = future
    self.window = window
    self.mayBypass = mayBypass
    keys = KeyTable(geometry)
    nextUse = Array(
      repeating: FutureUses.never, count: geometry.layerCount * geometry.expertCount)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    let first = future.firsts[self.event]
    precondition(
      future.firsts[self.event + 1] - first == event.experts.count, "not the future it was told")
    let horizon = horizon(layer: event.layer)
    for (place, expert) in event.experts.enumerated() {
      let next = future.nextUses[first + place]
      nextUse[Int(expert)] = next
      keys[expert] = next <= horizon ? Double(next) : Self.unknown - Double(self.event)
    }
    if window != nil, horizon < FutureUses.never - 1 {
      discover(Int(horizon), residents: residents)
    }
    self.event += 1
  }

  /// The last event of this layer that is seen.
  private func horizon(layer: Int) -> Int32 {
    guard let window else { return FutureUses.never - 1 }
    let events = future.eventsOfLayer[layer]
    let place = Int(future.places[event]) + window
    return place < events.count ? events[place] : FutureUses.never - 1
  }

  /// Residents that were beyond the window and are needed by `seen` are known from now on.
  private mutating func discover(_ seen: Int, residents: borrowing ResidentTable) {
    for access in future.firsts[seen]..<future.firsts[seen + 1] {
      let expert = future.experts[access]
      if residents.contains(expert), nextUse[Int(expert)] == Int32(seen) {
        keys[expert] = Double(seen)
      }
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    keys.takeLargest(residents)
  }
}

public import Routing

/// The experts that `uses` names most, as many as fit: the hot set of static placement.
func hotSet(uses: [Int], geometry: RoutingGeometry, capacity: Int) -> [Bool] {
  var isHot = Array(repeating: false, count: uses.count)
  var left = capacity
  for expert in uses.indices.sorted(by: { (uses[$1], $0) < (uses[$0], $1) }) {
    let byteCount = geometry.expertByteCounts[expert / geometry.expertCount]
    guard uses[expert] > 0, byteCount <= left else { continue }
    isHot[expert] = true
    left -= byteCount
  }
  return isHot
}

/// A set fixed beforehand stays once read. Where it has all the room, everything else is served and not
/// kept (Fiddler, arXiv 2402.07033: popularity measured offline); what room it leaves is least recently
/// used (a static prior that cannot take everything: GNN data tiering, arXiv 2111.05894).
public struct StaticPolicy: EvictionPolicy {
  private let isHot: [Bool]
  private var others: RecencyOrder
  public let mayBypass: Bool

  /// - Parameters:
  ///   - uses: how often each expert was used in the part of the trace that the set is fitted to,
  ///     [layers * experts of a layer]: not the part that is replayed.
  ///   - geometry: the model.
  ///   - capacity: bytes that residents may take.
  ///   - leavesHalf: whether the set has half of the room; else all of it.
  public init(
    uses: [Int], geometry: RoutingGeometry, capacity: Int, leavesHalf: Bool = false
  ) {
    isHot = hotSet(
      uses: uses, geometry: geometry, capacity: leavesHalf ? capacity / 2 : capacity)
    mayBypass = !leavesHalf
    others = RecencyOrder(expertCount: uses.count)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    for expert in event.experts where !isHot[Int(expert)] { others.makeNewest(expert) }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    guard let victim = others.oldestEvictable(residents) else { return nil }
    others.remove(victim)
    return victim
  }
}

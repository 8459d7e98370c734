public import Routing

/// Least recently used: the victim is the expert needed longest ago.
///
/// What most engines do (Mixtral-offloading, arXiv 2312.17238; llama.cpp's caches). Layers come round
/// in a fixed order, so below the bytes of one token's experts it evicts each just before its turn.
public struct LRUPolicy: EvictionPolicy {
  private var order: RecencyOrder

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry) {
    order = RecencyOrder(expertCount: geometry.layerCount * geometry.expertCount)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    for expert in event.experts { order.makeNewest(expert) }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    guard let victim = order.oldestEvictable(residents) else { return nil }
    order.remove(victim)
    return victim
  }
}

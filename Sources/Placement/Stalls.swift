/// Seconds of waiting for reads, by what is waited for.
public struct Stalls: Hashable, Sendable, Codable {
  /// Experts that nothing had needed before: no cache has them.
  public var firstUseSeconds = 0.0
  /// Experts that were needed before and had to go: more memory, or a better choice, keeps them.
  public var evictedSeconds = 0.0
  /// Experts that were being read ahead when they were needed.
  public var lateSeconds = 0.0

  public init() {}

  public var total: Double { firstUseSeconds + evictedSeconds + lateSeconds }

  /// Adds those of a layer.
  /// - Parameters:
  ///   - firstUses: the share of its misses that nothing had needed before.
  ///   - weight: how often there is such a layer.
  public mutating func add(_ time: LayerTime, firstUses: Double, weight: Double = 1) {
    let demanded = weight * (time.stallSeconds - time.lateSeconds)
    firstUseSeconds += demanded * firstUses
    evictedSeconds += demanded * (1 - firstUses)
    lateSeconds += weight * time.lateSeconds
  }

  public func scaled(by factor: Double) -> Stalls {
    var scaled = self
    scaled.firstUseSeconds *= factor
    scaled.evictedSeconds *= factor
    scaled.lateSeconds *= factor
    return scaled
  }
}

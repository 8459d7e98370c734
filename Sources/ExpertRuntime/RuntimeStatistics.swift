public import Routing

/// What the expert runtime did, in counts, bytes and nanoseconds. Two snapshots subtract.
public struct RuntimeStatistics: Hashable, Sendable, Codable {
  /// Accesses of experts in one phase; a prefill chunk accesses an expert once for all its tokens.
  public struct Accesses: Hashable, Sendable, Codable {
    public var hits = 0
    public var misses = 0
    /// The missed experts' bytes.
    public var missedByteCount = 0
    /// Bytes read because of the misses, alignment included.
    public var demandedByteCount = 0

    /// Hits over accesses; nil if there was none.
    public var hitRate: Double? {
      hits + misses == 0 ? nil : Double(hits) / Double(hits + misses)
    }
  }

  public var prefill = Accesses()
  public var decode = Accesses()
  /// What became of experts read ahead, [layers].
  public var prefetch: [PrefetchLedger] = []
  /// Experts pushed out to make room.
  public var evictions = 0
  /// Bytes read ahead of any request, when every expert fits.
  public var preloadedByteCount = 0
  /// Experts that free slots were filled with while the disk was idle, by the history of earlier runs.
  public var filled = PrefetchLedger.Amount()
  /// Time spent on experts, from the router's decision to their weighted sum.
  public var executionNanoseconds: UInt64 = 0
  /// Time spent on predicting what to read ahead, and on deciding.
  public var predictionNanoseconds: UInt64 = 0
  /// Time the caller waited with nothing to compute until bytes arrived.
  public var diskWaitNanoseconds: UInt64 = 0
  /// Time with at least one read in flight.
  public var diskBusyNanoseconds: UInt64 = 0
  /// Time spent on comparing what was read with its checksums.
  public var verificationNanoseconds: UInt64 = 0

  public init() {}

  init(layerCount: Int) {
    prefetch = Array(repeating: PrefetchLedger(), count: layerCount)
  }

  /// What became of experts read ahead, over all layers.
  public var totalPrefetch: PrefetchLedger {
    prefetch.reduce(into: PrefetchLedger()) { $0.add($1) }
  }

  /// Bytes read per second of time with reads in flight; nil if nothing was read.
  public var diskBandwidth: Double? {
    let bytes =
      prefill.demandedByteCount + decode.demandedByteCount + totalPrefetch.issued.byteCount
      + filled.byteCount
    guard diskBusyNanoseconds > 0, bytes > 0 else { return nil }
    return Double(bytes) / Double(diskBusyNanoseconds) * 1e9
  }
}

extension RuntimeStatistics {
  mutating func add(_ accesses: Accesses, phase: Phase) {
    switch phase {
    case .prefill: prefill.add(accesses)
    case .decode: decode.add(accesses)
    }
  }

  /// What was done after `earlier`, a snapshot of the same runtime.
  public func subtracting(_ earlier: Self) -> Self {
    var result = self
    result.prefill.subtract(earlier.prefill)
    result.decode.subtract(earlier.decode)
    for layer in result.prefetch.indices {
      result.prefetch[layer].subtract(earlier.prefetch[layer])
    }
    result.evictions -= earlier.evictions
    result.preloadedByteCount -= earlier.preloadedByteCount
    result.filled.add(earlier.filled, sign: -1)
    result.executionNanoseconds -= earlier.executionNanoseconds
    result.predictionNanoseconds -= earlier.predictionNanoseconds
    result.diskWaitNanoseconds -= earlier.diskWaitNanoseconds
    result.diskBusyNanoseconds -= earlier.diskBusyNanoseconds
    result.verificationNanoseconds -= earlier.verificationNanoseconds
    return result
  }
}

extension RuntimeStatistics.Accesses {
  mutating func add(_ other: Self) {
    hits += other.hits
    misses += other.misses
    missedByteCount += other.missedByteCount
    demandedByteCount += other.demandedByteCount
  }

  mutating func subtract(_ other: Self) {
    hits -= other.hits
    misses -= other.misses
    missedByteCount -= other.missedByteCount
    demandedByteCount -= other.demandedByteCount
  }
}

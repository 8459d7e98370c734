public import Routing

/// The policies that a replay compares, by the names users give them.
public enum PolicyName: Hashable, Sendable, CaseIterable {
  case lru, lfu, decayedLFU, lfru, arc, s3FIFO, sieve, leastStale, mrs
  case `static`, hybrid, layerQuota
  case nextUse
  case min, minForced
  /// MIN with forced admission that sees so many tokens.
  case minWindow(Int)

  public static let windows = [1, 2, 4, 8, 16]

  public static let allCases: [PolicyName] =
    [
      .lru, .lfu, .decayedLFU, .lfru, .arc, .s3FIFO, .sieve, .leastStale, .mrs, .static, .hybrid,
      .layerQuota, .nextUse,
    ] + windows.map { .minWindow($0) } + [.minForced, .min]

  /// What users call it.
  public var name: String {
    switch self {
    case .lru: "lru"
    case .lfu: "lfu"
    case .decayedLFU: "decayed-lfu"
    case .lfru: "lfru"
    case .arc: "arc"
    case .s3FIFO: "s3-fifo"
    case .sieve: "sieve"
    case .leastStale: "least-stale"
    case .mrs: "mrs"
    case .static: "static"
    case .hybrid: "hybrid"
    case .layerQuota: "layer-quota"
    case .nextUse: "next-use"
    case .min: "min"
    case .minForced: "min-forced"
    case .minWindow(let window): "min-\(window)"
    }
  }

  public init?(name: String) {
    guard let policy = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = policy
  }

  /// Whether it knows the future.
  public var isOracle: Bool {
    switch self {
    case .min, .minForced, .minWindow: true
    default: false
    }
  }

  /// Whether it is fitted to a part of the trace that is not counted.
  public var isFitted: Bool {
    switch self {
    case .static, .hybrid, .layerQuota: true
    default: false
    }
  }

  /// Whether the runtime can be run with it: it knows no future, learns from what it sees, and keeps
  /// what it has read.
  public var canRun: Bool { !isOracle && !isFitted }

  /// The names of those that can run, for messages.
  public static let runnableNames =
    allCases.filter(\.canRun).map(\.name).joined(separator: ", ")

  /// Makes the policy, for one pool of residents.
  ///
  /// - Parameters:
  ///   - geometry: the model.
  ///   - capacity: bytes that residents may take.
  ///   - future: what oracles know; the others need none.
  ///   - uses: how often each expert was used where fitted policies learn; the others need none.
  public func make(
    geometry: RoutingGeometry, capacity: Int, future: FutureUses? = nil, uses: [Int] = []
  ) -> any EvictionPolicy {
    func min(_ mayBypass: Bool, _ window: Int? = nil) -> MINPolicy {
      guard let future else { preconditionFailure("an oracle without a future") }
      return MINPolicy(future: future, geometry: geometry, mayBypass: mayBypass, window: window)
    }
    switch self {
    case .lru: return LRUPolicy(geometry: geometry)
    case .lfu: return LFUPolicy(geometry: geometry)
    case .decayedLFU: return DecayedLFUPolicy(geometry: geometry)
    case .lfru: return LFRUPolicy(geometry: geometry)
    case .arc: return ARCPolicy(geometry: geometry, capacity: capacity)
    case .s3FIFO: return S3FIFOPolicy(geometry: geometry, capacity: capacity)
    case .sieve: return SIEVEPolicy(geometry: geometry)
    case .leastStale: return LeastStalePolicy(geometry: geometry)
    case .mrs: return MRSPolicy(geometry: geometry)
    case .static: return StaticPolicy(uses: uses, geometry: geometry, capacity: capacity)
    case .hybrid:
      return
        StaticPolicy(uses: uses, geometry: geometry, capacity: capacity, leavesHalf: true)
    case .nextUse: return NextUsePolicy(geometry: geometry)
    case .layerQuota: preconditionFailure("layer quotas are a pool for each layer")
    case .min: return min(true)
    case .minForced: return min(false)
    case .minWindow(let window): return min(false, window)
    }
  }
}

package import Placement
package import Residency
internal import Routing

/// What a replay of one trace with one policy and one capacity came to.
package struct ReplayRow: Encodable, Hashable, Sendable {
  /// The trace, as the user named it.
  package var trace: String
  package var policy: String
  package var scope: String
  package var batch: Int
  package var phase: String
  package var capacityBytes: Int
  /// The layers that were replayed and stand for all; nil where all were. Accesses and hits are
  /// theirs, bytes are scaled up.
  package var sampledLayers: Int?
  /// The capacity over the bytes of all experts.
  package var capacityShare: Double
  /// Needed experts, once per event, and those of them that were resident.
  package var accesses: Int
  package var hits: Int
  package var hitRate: Double
  /// The same with every token's experts counted; the same where one token goes through a layer.
  package var logicalAccesses: Int
  package var logicalHitRate: Double
  package var bytesRead: Int
  package var bytesPerToken: Double
  /// The bytes that an event needs over the capacity: their mean, and the share of events above 1.
  package var meanUnionOverCapacity: Double
  package var oversizedShare: Double
  /// g = (m - m_MIN) / m over the misses (arXiv 2608.07911); nil where MIN was not replayed.
  package var gapToMIN: Double?
  /// The shares of that gap that lie in admitting every expert and in choosing victims.
  package var admissionShareOfGap: Double?
  package var victimShareOfGap: Double?
  /// Simulated times of decoding; nil without a hardware profile.
  package var times: TokenTimes?
  /// The share of that time in which the processor waited for the disk, and in which the disk read.
  package var stallShare: Double?
  package var readShare: Double?
  /// The seconds of waiting of a mean token, by what is waited for.
  package var stalls: Stalls?
  /// What was read ahead; nil without a predictor.
  package var prefetch: PrefetchAccount?
  /// The hit rates of each window of decoded tokens; nil without a window.
  package var windowHitRates: [Double]?

  init(
    trace: String, policy: PolicyName, options: ReplayOptions, capacity: Int, header: TraceHeader,
    counts: ReplayCounts, sample: LayerSample?
  ) {
    self.trace = trace
    self.policy = policy.name
    scope = options.scope.rawValue
    batch = options.batch
    phase = options.phase.rawValue
    capacityBytes = capacity
    capacityShare = Double(capacity) / Double(header.geometry.totalByteCount)
    accesses = counts.accesses
    hits = counts.hits
    hitRate = counts.hitRate
    logicalAccesses = counts.logicalAccesses
    logicalHitRate =
      counts.logicalAccesses == 0
      ? 0 : 1 - Double(counts.misses) / Double(counts.logicalAccesses)
    sampledLayers = sample?.layerCount
    let byteCount = Double(counts.byteCount) / (sample?.byteShare ?? 1)
    bytesRead = Int(byteCount)
    let layers = sample?.layerCount ?? header.geometry.layerCount
    let tokens = Double(counts.tokenLayers) / Double(layers)
    bytesPerToken = tokens == 0 ? 0 : byteCount / tokens
    meanUnionOverCapacity = counts.events == 0 ? 0 : counts.unionShareSum / Double(counts.events)
    oversizedShare =
      counts.events == 0 ? 0 : Double(counts.oversizedEvents) / Double(counts.events)
  }

  mutating func add(_ times: ReplayTimes) {
    self.times = times.tokens
    let total = times.seconds
    guard total > 0 else { return }
    stallShare = times.stallSeconds / total
    stalls = times.tokens.map { times.stalls.scaled(by: 1 / Double($0.tokens)) }
    readShare = times.readSeconds / total
  }

  /// States the gap to the misses of MIN, with bypass and with forced admission.
  mutating func compare(min: Int, forced: Int) {
    let misses = accesses - hits
    let gap = Double(misses - min)
    gapToMIN = misses == 0 ? 0 : gap / Double(misses)
    guard gap > 0 else { return }
    admissionShareOfGap = Double(forced - min) / gap
    victimShareOfGap = Double(misses - forced) / gap
  }
}

/// Which events count.
package enum ReplayPhase: String, Sendable, CaseIterable {
  case decode, prefill, all
}

/// How traces are replayed.
package struct ReplayOptions: Sendable {
  package var policies: [PolicyName] = []
  package var capacities: [ReplayCapacity] = []
  package var scope = ReplayScope.global
  package var batch = 1
  package var phase = ReplayPhase.decode
  /// The share of the events, from the beginning, that fitted policies learn from. Those events run
  /// through the residents like the others but are not counted, for no policy.
  package var fitShare = 0.0
  /// The share of the layers that are replayed and stand for all; nil replays all.
  package var layerShare: Double?
  /// The machine on which decoding is timed; its figures are those of `batch` tokens at a time.
  package var hardware: HardwareProfile?
  /// What is read ahead by; needs `hardware`, one pool of memory, and a batch of 1.
  package var predictor: ReplayPredictor?
  /// Experts that are staged at a time, beside the memory that is replayed.
  package var stagedCount = SlotPlan.mostStaged
  /// Decoded tokens whose hit rate is told together.
  package var window: Int?
  /// Whether MIN is replayed too and the gap to it stated, over one pool of memory. Its future is all that
  /// grows with the length of a trace.
  package var showsGap = true

  package init() {}
}

/// A capacity as users give it.
package enum ReplayCapacity: Hashable, Sendable {
  case bytes(Int)
  /// A share of the bytes of all experts.
  case share(Double)

  /// The bytes, all experts being `total`.
  package func byteCount(of total: Int) -> Int {
    switch self {
    case .bytes(let count): count
    case .share(let share): Int((Double(total) * share).rounded())
    }
  }
}

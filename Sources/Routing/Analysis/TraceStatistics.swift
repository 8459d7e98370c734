internal import Foundation

/// What a trace shows of its model's routing.
public struct TraceStatistics: Sendable, Codable {
  /// Numbers of one layer.
  public struct Layer: Sendable, Codable {
    /// Tokens routed.
    public var tokens: Int
    /// Experts used at all.
    public var usedExperts: Int
    /// The share of the routed experts that the hottest fifth of the layer's experts has.
    public var hottestFifthShare: Double
    /// The entropy of the experts' shares, in bits; log2(experts) where all are used alike.
    public var entropyBits: Double
    /// The mean share of a token's experts that the token before it, of the same sequence, used too.
    public var reuse: Double
    /// The mean share of a token's experts that are among the top-k foretold from its experts at the
    /// layer before; nil at the first layer, where there is too little to learn from, and in models of
    /// so many experts that their pairs would take more than 1 GiB.
    public var predictability: Double?
  }

  public var layers: [Layer]
  public var sequences: Int
  /// Tokens of prompts and decoded ones, at the layer where most were routed.
  public var prefillTokens: Int
  public var decodeTokens: Int
  /// Routed experts, at all layers.
  public var routedExperts: Int
  /// What became of experts that were read ahead, over all layers, and of each layer; empty where nothing was
  /// or it is not known.
  public var prefetch = PrefetchLedger()
  public var prefetchOfLayers: [PrefetchLedger]
  /// Means over the layers, weighted by tokens.
  public var hottestFifthShare: Double
  public var entropyBits: Double
  public var reuse: Double
  public var predictability: Double?
  /// What `reuse` would be if experts were drawn at random: top-k / experts.
  public var chanceOfReuse: Double
  /// The mean share of all experts that so many successive tokens use.
  public var workingSet: [WorkingSet]

  /// A point of the working-set curve.
  public struct WorkingSet: Sendable, Codable {
    public var tokens: Int
    public var shareOfExperts: Double
  }

  /// Goes through `source` twice.
  /// - Parameter progress: called with the share that is done; what it throws ends the work.
  /// - Throws: `TraceError` if the trace cannot be read any more, and what `progress` throws.
  public init(_ source: TraceSource, progress: (_ done: Double) throws -> Void = { _ in }) throws {
    let geometry = source.header.geometry
    var analyses = (0..<geometry.layerCount).map { _ in LayerAnalysis(geometry) }
    var sequences: Set<Int32> = []
    var prefill = Array(repeating: 0, count: geometry.layerCount)
    var ledgers = Array(repeating: PrefetchLedger(), count: geometry.layerCount)
    var tokenPairs = TokenPairs(geometry)
    var pairCounts = Array(repeating: 0, count: geometry.layerCount)
    try source.forEachPart { trace, done in
      try progress(done / 2)
      for event in 0..<trace.eventCount {
        let layer = trace.layer(of: event)
        let experts = trace.experts(of: event)
        sequences.insert(trace.sequence(of: event))
        ledgers[layer].add(trace.prefetch(of: event))
        if trace.phase(of: event) == .prefill { prefill[layer] += experts.count / geometry.topK }
        for first in stride(from: experts.startIndex, to: experts.endIndex, by: geometry.topK) {
          analyses[layer].append(
            experts[first..<first + geometry.topK], sequence: trace.sequence(of: event))
        }
        if tokenPairs.append(event, of: trace) { pairCounts[layer] += 1 }
      }
    }
    var foretold = CrossLayer(geometry, pairCounts: pairCounts)
    tokenPairs = TokenPairs(geometry)
    try source.forEachPart { trace, done in
      try progress((1 + done) / 2)
      for event in 0..<trace.eventCount where tokenPairs.append(event, of: trace) {
        foretold.append(
          tokenPairs.previous, trace.experts(of: event), layer: trace.layer(of: event))
      }
    }
    let layers = analyses.enumerated().map { layer, analysis in
      analysis.result(predictability: foretold.recall(layer: layer))
    }
    self.layers = layers
    for ledger in ledgers { prefetch.add(ledger) }
    prefetchOfLayers = prefetch.isEmpty ? [] : ledgers
    self.sequences = sequences.count
    let counts = analyses.map(\.tokens)
    prefillTokens = prefill.max() ?? 0
    decodeTokens = zip(counts, prefill).map { $0 - $1 }.max() ?? 0
    routedExperts = source.accessCount
    let total = Double(max(1, counts.reduce(0, +)))
    func mean(_ value: (Layer) -> Double) -> Double {
      layers.reduce(0) { $0 + value($1) * Double($1.tokens) } / total
    }
    hottestFifthShare = mean(\.hottestFifthShare)
    entropyBits = mean(\.entropyBits)
    let pairs = analyses.reduce(0) { $0 + $1.pairs }
    reuse =
      Double(analyses.reduce(0) { $0 + $1.repeated })
      / Double(max(1, pairs * geometry.topK))
    let known = layers.compactMap(\.predictability)
    predictability = known.isEmpty ? nil : known.reduce(0, +) / Double(known.count)
    chanceOfReuse = Double(geometry.topK) / Double(geometry.expertCount)
    workingSet = Self.windows.map { window in
      let sums = analyses.map { $0.workingSetShare(window: window) }
      return WorkingSet(
        tokens: window, shareOfExperts: sums.reduce(0, +) / Double(max(1, sums.count)))
    }
  }

  /// Windows of the working-set curve, in tokens.
  public static let windows = [1, 2, 4, 8, 16, 32, 64, 128, 256]
}

/// Gathers what concerns one layer alone.
private struct LayerAnalysis {
  private let geometry: RoutingGeometry
  private(set) var tokens = 0
  /// Tokens with one before them in their sequence, and their experts that it had too.
  private(set) var pairs = 0
  private(set) var repeated = 0
  private var uses: [Int]
  private var previous: [UInt16] = []
  private var previousSequence: Int32 = -1
  private var lastUse: [Int]
  /// By window: the sum over the tokens of the experts used in the window that ends there.
  private var windowSums = Array(repeating: 0, count: TraceStatistics.windows.count)

  init(_ geometry: RoutingGeometry) {
    self.geometry = geometry
    uses = Array(repeating: 0, count: geometry.expertCount)
    lastUse = Array(repeating: Int.min / 2, count: geometry.expertCount)
  }

  mutating func append(_ experts: ArraySlice<UInt16>, sequence: Int32) {
    if sequence == previousSequence {
      pairs += 1
      for expert in experts where previous.contains(expert) { repeated += 1 }
    }
    for expert in experts {
      uses[Int(expert)] += 1
      lastUse[Int(expert)] = tokens
    }
    for (index, window) in TraceStatistics.windows.enumerated() where tokens + 1 >= window {
      windowSums[index] += lastUse.count { tokens - $0 < window }
    }
    previous.removeAll(keepingCapacity: true)
    previous += experts
    previousSequence = sequence
    tokens += 1
  }

  func result(predictability: Double?) -> TraceStatistics.Layer {
    let total = Double(max(1, uses.reduce(0, +)))
    let hottest = uses.sorted(by: >).prefix(max(1, (2 * geometry.expertCount + 5) / 10)).reduce(
      0, +)
    let entropy = uses.reduce(0.0) { sum, count in
      let share = Double(count) / total
      return count == 0 ? sum : sum - share * log2(share)
    }
    return TraceStatistics.Layer(
      tokens: tokens, usedExperts: uses.count { $0 > 0 },
      hottestFifthShare: Double(hottest) / total, entropyBits: entropy,
      reuse: Double(repeated) / Double(max(1, pairs * geometry.topK)),
      predictability: predictability)
  }

  func workingSetShare(window: Int) -> Double {
    let windows = tokens - window + 1
    guard windows > 0, let index = TraceStatistics.windows.firstIndex(of: window) else {
      return Double(uses.count { $0 > 0 }) / Double(geometry.expertCount)
    }
    return Double(windowSums[index]) / Double(windows * geometry.expertCount)
  }
}

/// Finds the events of single tokens that follow those of the same token at the layer before.
private struct TokenPairs {
  private let topK: Int
  private var layer = -2
  private var sequence: Int32 = -1
  private var isSingle = false
  /// The experts of the last event but one.
  private(set) var previous: [UInt16] = []
  private var latest: [UInt16] = []

  init(_ geometry: RoutingGeometry) { topK = geometry.topK }

  /// Takes the next event; whether it makes a pair with the one before.
  mutating func append(_ event: Int, of trace: RoutingTrace) -> Bool {
    let experts = trace.experts(of: event)
    let isPair =
      isSingle && experts.count == topK && trace.layer(of: event) == layer + 1
      && trace.sequence(of: event) == sequence
    (layer, sequence) = (trace.layer(of: event), trace.sequence(of: event))
    isSingle = experts.count == topK
    guard isSingle else { return false }
    swap(&previous, &latest)
    latest.removeAll(keepingCapacity: true)
    latest += experts
    return isPair
  }
}

/// How well a token's experts at one layer foretell those at the next: how often they went together in
/// the first half of the trace is learned, the second half judged.
private struct CrossLayer {
  private let topK: Int
  private let count: Int
  /// Pairs of each layer in all, and those that have been seen.
  private let pairCounts: [Int]
  private var seen: [Int]
  private var hits: [Int]
  /// How often each expert was followed by each, [layers][experts, experts], once needed.
  private var together: [[Int32]]
  /// How often each was followed at all, [layers][experts].
  private var totals: [[Int32]]

  init(_ geometry: RoutingGeometry, pairCounts: [Int]) {
    topK = geometry.topK
    count = geometry.expertCount
    // More experts than that has no model that is known; a damaged file may say anything.
    let byteCount = pairCounts.count * count * count * MemoryLayout<Int32>.size
    self.pairCounts = byteCount > 1 << 30 ? pairCounts.map { _ in 0 } : pairCounts
    seen = Array(repeating: 0, count: geometry.layerCount)
    hits = seen
    together = Array(repeating: [], count: geometry.layerCount)
    totals = together
  }

  /// The share of a token's experts among the top-k foretold; nil where too little is known.
  func recall(layer: Int) -> Double? {
    let judged = pairCounts[layer] - pairCounts[layer] / 2
    return pairCounts[layer] < 16 ? nil : Double(hits[layer]) / Double(judged * topK)
  }

  mutating func append(_ before: [UInt16], _ after: ArraySlice<UInt16>, layer: Int) {
    seen[layer] += 1
    guard pairCounts[layer] >= 16 else { return }
    if seen[layer] <= pairCounts[layer] / 2 {
      learn(before, after, layer: layer)
    } else {
      judge(before, after, layer: layer)
    }
  }

  private mutating func learn(_ before: [UInt16], _ after: ArraySlice<UInt16>, layer: Int) {
    if together[layer].isEmpty {
      together[layer] = Array(repeating: 0, count: count * count)
      totals[layer] = Array(repeating: 0, count: count)
    }
    for from in before {
      for to in after { together[layer][Int(from) * count + Int(to)] += 1 }
      totals[layer][Int(from)] += Int32(after.count)
    }
  }

  private mutating func judge(_ before: [UInt16], _ after: ArraySlice<UInt16>, layer: Int) {
    var scores = Array(repeating: Float(0), count: count)
    for from in before {
      let share = 1 / Float(max(1, totals[layer][Int(from)]))
      for to in 0..<count { scores[to] += share * Float(together[layer][Int(from) * count + to]) }
    }
    let foretold = scores.indices.sorted { (scores[$1], $0) < (scores[$0], $1) }.prefix(topK)
    hits[layer] += after.count { foretold.contains(Int($0)) }
  }
}

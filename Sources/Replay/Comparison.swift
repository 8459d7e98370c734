internal import Residency
package import Routing

/// Replays a trace with several policies and capacities.
package struct Comparison {
  private let name: String
  private let replay: Replay
  private let options: ReplayOptions
  /// The runtime's slots by capacity, where the trace says how large they are.
  private var plans: [Int: SlotPlan] = [:]

  /// Schedules `source`, which users call `name`.
  /// - Throws: `ReplayError` if the runtime that recorded the trace could not run with a capacity;
  ///   `TraceError` if the trace cannot be read.
  package init(_ source: TraceSource, name: String, options: ReplayOptions) throws {
    self.name = name
    self.options = options
    var replay = try Replay(
      source, batch: options.batch, fitShare: options.fitShare,
      layerShare: options.layerShare, hardware: options.hardware,
      predictor: options.predictor)
    replay.window = options.window
    replay.stagedCount = options.stagedCount
    self.replay = replay
    guard options.scope == .global, replay.sample == nil else { return }
    for capacity in capacities { plans[capacity] = try replay.slotPlan(capacity: capacity) }
  }

  /// Compares on a trace in memory.
  package init(_ trace: RoutingTrace, name: String, options: ReplayOptions) throws {
    try self.init(TraceSource(trace), name: name, options: options)
  }

  /// The capacities in bytes, in the order they were given.
  private var capacities: [Int] {
    options.capacities.map { $0.byteCount(of: replay.geometry.totalByteCount) }
  }

  /// The policies that are replayed: those asked for, and the two that the gap is stated with.
  private var policies: [PolicyName] {
    let oracles: [PolicyName] = showsGap ? [.min, .minForced] : []
    return oracles + options.policies.filter { !oracles.contains($0) }
  }

  /// Oracles look ahead in one pool; each layer's own future would be another one.
  private var showsGap: Bool { options.showsGap && options.scope == .global }

  private var needsFuture: Bool { policies.contains(where: \.isOracle) }

  /// Bytes that the future takes which oracles know; the rest of a comparison needs none to speak of.
  package var futureByteCount: Int {
    needsFuture ? FutureUses.byteCount(of: replay.source) : 0
  }

  /// A row for each capacity and policy.
  ///
  /// - Parameter progress: called with the share that is done, again and again; what it throws ends the
  ///   work.
  /// - Throws: `TraceError` if the trace cannot be read any more, and what `progress` throws.
  package func rows(progress: ReplayProgress = { _ in }) throws -> [ReplayRow] {
    let passes = Double(capacities.count * policies.count + (needsFuture ? 1 : 0))
    var done = 0.0
    let future =
      needsFuture ? try replay.future(progress: { try progress($0 / passes) }) : nil
    if needsFuture { done += 1 }
    let uses = try replay.fittedUses()
    var rows: [ReplayRow] = []
    for capacity in capacities {
      let share = replay.sample?.byteShare ?? 1
      var results: [PolicyName: ReplayResult] = [:]
      for policy in policies {
        results[policy] = try run(
          policy, capacity: Int((Double(capacity) * share).rounded()), future: future, uses: uses
        ) { try progress((done + $0) / passes) }
        done += 1
        try progress(done / passes)
      }
      let oracles = showsGap ? [results[.min]!, results[.minForced]!].map(counts) : []
      for policy in options.policies {
        let result = results[policy]!
        var row = ReplayRow(
          trace: name, policy: policy, options: options, capacity: capacity,
          header: replay.header, counts: counts(of: result), sample: replay.sample)
        if !oracles.isEmpty { row.compare(min: oracles[0].misses, forced: oracles[1].misses) }
        if let times = result.times { row.add(times) }
        row.prefetch = result.prefetch
        row.windowHitRates = result.curve?.rates
        rows.append(row)
      }
    }
    return rows
  }

  /// The counts of the phase that is asked for.
  private func counts(of result: ReplayResult) -> ReplayCounts {
    switch options.phase {
    case .prefill: result.prefill
    case .decode: result.decode
    case .all: result.prefill + result.decode
    }
  }

  private func run(
    _ policy: PolicyName, capacity: Int, future: FutureUses?, uses: [Int], progress: ReplayProgress
  ) throws -> ReplayResult {
    let geometry = replay.geometry
    if policy == .layerQuota {
      let quotas = try LayerQuotas(replay, capacity: capacity).byteCounts
      return try replay.run(capacities: quotas, progress: progress) { geometry, _ in
        LRUPolicy(geometry: geometry)
      }
    }
    guard options.scope == .layer else {
      if policy.canRun, let plan = plans[capacity] {
        return try replay.run(
          plan: plan,
          policy: policy.make(geometry: geometry, capacity: plan.meanCapacity(of: geometry)),
          progress: progress)
      }
      return try replay.run(
        capacity: capacity,
        policy: policy.make(geometry: geometry, capacity: capacity, future: future, uses: uses),
        progress: progress)
    }
    let share = Array(repeating: capacity / geometry.layerCount, count: geometry.layerCount)
    var layer = 0
    return try replay.run(capacities: share, progress: progress) { single, capacity in
      let experts = layer * geometry.expertCount..<(layer + 1) * geometry.expertCount
      layer += 1
      return policy.make(
        geometry: single, capacity: capacity, future: nil, uses: Array(uses[experts]))
    }
  }
}

extension ReplayCounts {
  static func + (a: ReplayCounts, b: ReplayCounts) -> ReplayCounts {
    var sum = a
    sum.logicalAccesses += b.logicalAccesses
    sum.accesses += b.accesses
    sum.hits += b.hits
    sum.byteCount += b.byteCount
    sum.tokenLayers += b.tokenLayers
    sum.events += b.events
    sum.oversizedEvents += b.oversizedEvents
    sum.unionShareSum += b.unionShareSum
    return sum
  }
}

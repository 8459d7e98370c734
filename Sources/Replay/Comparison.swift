internal import Residency
package import Routing

/// Replays a trace with several policies and capacities.
package struct Comparison {
  private let name: String
  private let replay: Replay
  private let options: ReplayOptions
  private let future: FutureUses?
  private let uses: [Int]
  /// The runtime's slots by capacity, where the trace says how large they are.
  private var plans: [Int: SlotPlan] = [:]

  /// Schedules `trace`, which users call `name`.
  /// - Throws: `ReplayError` if the runtime that recorded the trace could not run with a capacity.
  package init(
    _ trace: RoutingTrace, name: String, options: ReplayOptions
  ) throws(ReplayError) {
    self.name = name
    self.options = options
    var replay = Replay(
      trace, batch: options.batch, fitShare: options.fitShare,
      layerShare: options.layerShare, hardware: options.hardware,
      predictor: options.predictor)
    replay.window = options.window
    self.replay = replay
    // Oracles look ahead in one pool; each layer's own future would be another one.
    future = options.scope == .global ? replay.future() : nil
    uses = replay.fittedUses()
    guard options.scope == .global, replay.sample == nil else { return }
    for capacity in capacities { plans[capacity] = try replay.slotPlan(capacity: capacity) }
  }

  /// The capacities in bytes, in the order they were given.
  private var capacities: [Int] {
    options.capacities.map { $0.byteCount(of: replay.geometry.totalByteCount) }
  }

  /// The policies that are replayed: those asked for, and the two that the gap is stated with.
  private var policies: [PolicyName] {
    let oracles: [PolicyName] = future == nil ? [] : [.min, .minForced]
    return oracles + options.policies.filter { !oracles.contains($0) }
  }

  /// The replays that `rows` runs.
  package var replayCount: Int { capacities.count * policies.count }

  /// A row for each capacity and policy.
  ///
  /// - Parameter progress: called after each of the `replayCount` replays; false ends the work.
  package func rows(progress: (_ done: Int) -> Bool) -> [ReplayRow] {
    var rows: [ReplayRow] = []
    var done = 0
    for capacity in capacities {
      var counted: [PolicyName: ReplayCounts] = [:]
      var times: [PolicyName: ReplayTimes] = [:]
      var prefetch: [PolicyName: PrefetchAccount] = [:]
      var curves: [PolicyName: HitRateCurve] = [:]
      for policy in policies {
        let share = replay.sample?.byteShare ?? 1
        let result = run(policy, capacity: Int((Double(capacity) * share).rounded()))
        counted[policy] = counts(of: result)
        times[policy] = result.times
        prefetch[policy] = result.prefetch
        curves[policy] = result.curve
        done += 1
        guard progress(done) else { return rows }
      }
      for policy in options.policies {
        var row = ReplayRow(
          trace: name, policy: policy, options: options, capacity: capacity,
          header: replay.trace.header, counts: counted[policy]!, sample: replay.sample)
        if let min = counted[.min], let forced = counted[.minForced] {
          row.compare(min: min.misses, forced: forced.misses)
        }
        if let times = times[policy] { row.add(times) }
        row.prefetch = prefetch[policy]
        row.windowHitRates = curves[policy]?.rates
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

  private func run(_ policy: PolicyName, capacity: Int) -> ReplayResult {
    let geometry = replay.geometry
    if policy == .layerQuota {
      let quotas = LayerQuotas(replay, capacity: capacity).byteCounts
      return replay.run(capacities: quotas) { geometry, _ in LRUPolicy(geometry: geometry) }
    }
    guard options.scope == .layer else {
      if policy.canRun, let plan = plans[capacity] {
        return replay.run(
          plan: plan,
          policy: policy.make(geometry: geometry, capacity: plan.meanCapacity(of: geometry)))
      }
      return replay.run(
        capacity: capacity,
        policy: policy.make(
          geometry: geometry, capacity: capacity, future: future, uses: uses))
    }
    let share = Array(repeating: capacity / geometry.layerCount, count: geometry.layerCount)
    var layer = 0
    return replay.run(capacities: share) { single, capacity in
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

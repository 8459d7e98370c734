internal import Foundation
internal import Placement
internal import Replay
internal import Residency
internal import Routing

extension Planner {
  /// What an accelerator's memory is filled with, and what a token takes then.
  ///
  /// What every token uses goes there first, if it fits with the context; then the experts that spare the
  /// most seconds per byte, by how often `routing` uses them. Of the rest, those that host memory misses are
  /// read as without an accelerator, and the processor multiplies them. A layer takes as long as the slower
  /// of both sides (the maximum of papers' cost models, HybriMoE's among them):
  ///
  ///     T = T_dense + max(T_device(n), E[T_host(h, m)])
  ///
  /// with the numbers n, h, m of a token's experts that are on the device, resident and missed taken as
  /// drawn one by one, with the shares that the replay has.
  func placeOnDevice(_ plan: inout Plan, _ request: Request, _ simulation: Simulation) throws {
    guard let memory = request.deviceMemory, let device = profile.devices.first else { return }
    guard subject.batch == 1 else {
      throw StokerError.option(
        name: "--batch", found: "\(subject.batch)", expected: "1 with an accelerator")
    }
    let cost = CostModel(profile: profile, work: subject.work)
    let work = subject.work
    var left = min(memory, device.memoryBytes)
    let denseBytes = work.denseByteCount + work.keyValueBytesPerPosition * subject.context
    let holdsDense = denseBytes <= left
    if holdsDense { left -= denseBytes }

    let shares = TouchedExperts(simulation.routing, onlyPrompts: false).shares
    let hostSeconds = cost.expertSeconds(tokens: 1)
    let deviceSeconds = cost.deviceSeconds(device, tokens: 1)
    let missSeconds =
      (1 - simulation.row.hitRate) * Double(work.meanExpertByteCount)
      / simulation.hardware.readBytesPerSecond
    let items = shares.indices.map { index in
      PlacementItem(
        bytes: work.expertByteCounts[index / work.experts],
        // One that the trace does not use may be used yet.
        value: (shares[index] + 1e-9) * max(1e-12, hostSeconds + missSeconds - deviceSeconds))
    }
    let chosen = Set(PlacementChoice.greedy(items, bytes: left))
    let used = chosen.reduce(holdsDense ? denseBytes : 0) { $0 + items[$1].bytes }
    let routed = shares.reduce(0, +)
    let hitRate = routed > 0 ? chosen.reduce(0) { $0 + shares[$1] } / routed : 0
    plan.device = DevicePlacement(
      name: device.name, memory: memory, usedBytes: used, holdsDense: holdsDense,
      experts: (0..<work.layers).map { layer in
        (0..<work.experts).filter { chosen.contains(layer * work.experts + $0) }
      },
      hitRate: hitRate, fetchFromTokens: cost.fetchThreshold(device))

    let hostHits = try hits(of: simulation, without: chosen, slots: plan.slots)
    var timeline = LayerTimeline(simulation.hardware)
    var host = (seconds: 0.0, stalls: Stalls())
    let all = simulation.row.stalls ?? Stalls()
    let firstUses = all.firstUseSeconds / max(all.total, .leastNormalMagnitude)
    let topK = work.topK
    for onHost in 0...topK {
      for misses in 0...onHost {
        let probability =
          Self.binomial(onHost, of: topK, 1 - hitRate)
          * Self.binomial(misses, of: onHost, 1 - hostHits)
        guard probability > 1e-9 else { continue }
        let time = timeline.run(
          hits: onHost - misses, misses: misses, byteCount: work.meanExpertByteCount)
        let devices = Double(topK - onHost) * deviceSeconds
        host.seconds += probability * max(time.seconds, devices)
        host.stalls.add(time, firstUses: firstUses, weight: probability)
      }
    }
    let layers = Double(work.layers)
    var token = profile.tokenSeconds.value
    var dense = cost.denseSeconds(tokens: 1)
    if holdsDense {
      let bytes =
        Double(work.denseByteCount)
        + simulation.positions * Double(work.keyValueBytesPerPosition)
      dense = bytes / device.bytesPerSecond + layers * device.launchSeconds
    } else {
      dense += cost.contextSeconds(positions: simulation.positions)
      token += cost.productSeconds([work.head], tokens: 1)
    }
    let tpot = token + dense + layers * (host.seconds + profile.layerSeconds.value)
    let stalls = host.stalls.scaled(by: layers)
    var p = plan.prediction
    let scale = tpot / p.tpotMean
    let bytes =
      Double(topK) * layers * (1 - hitRate) * (1 - hostHits)
      * Double(work.meanExpertByteCount)
    let steady = cost.contendedBytesPerSecond(plan.choice.reads) ?? .infinity
    p = Prediction(
      timeToFirstToken: p.timeToFirstToken, tpotMean: tpot, tpotP95: p.tpotP95 * scale,
      uncertainty: p.uncertainty, hitRate: hitRate + (1 - hitRate) * hostHits, bytesPerToken: bytes,
      stalls: stalls,
      readSeconds: bytes / simulation.hardware.readBytesPerSecond,
      expertSeconds: layers * host.seconds - stalls.total, denseSeconds: dense,
      contextSeconds: 0, otherSeconds: token + layers * profile.layerSeconds.value,
      peakMemory: p.peakMemory, binding: p.binding,
      overlapBound: 1 / max(bytes / steady, tpot - stalls.total))
    if stalls.total > tpot / 2 {
      p.binding = .drive
    } else {
      p.binding = Double(topK) * hitRate * deviceSeconds * layers > tpot / 2 ? .device : .memory
    }
    plan.prediction = p
  }

  /// The share of hits in so many slots when the experts of `placed` are elsewhere.
  private func hits(
    of simulation: Simulation, without placed: Set<Int>, slots: Int
  ) throws -> Double {
    let trace = simulation.routing
    let experts = subject.work.experts
    var header = trace.header
    // Events have different numbers of experts then: as many tokens of one expert each.
    header.geometry = RoutingGeometry(
      expertCount: experts, topK: 1, expertByteCounts: subject.work.expertByteCounts)
    header.slotByteCounts = []
    header.predictionDistances = []
    (header.hasWeights, header.hasScores) = (false, false)
    var rest = RoutingTrace(header: header)
    var event = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      event.experts.removeAll { placed.contains(event.layer * experts + Int($0)) }
      event.weights = []
      event.scores = []
      event.predictions = []
      if !event.experts.isEmpty { rest.append(event) }
    }
    guard rest.eventCount > 0 else { return 1 }
    var options = ReplayOptions()
    options.policies = [.nextUse]
    options.capacities = [.bytes(slots * subject.work.meanExpertByteCount)]
    options.showsGap = false
    let row = try Comparison(rest, name: "", options: options).rows()[0]
    return row.accesses == 0 ? 1 : row.hitRate
  }

  /// The probability of `count` of `all`, each with probability `share`.
  private static func binomial(_ count: Int, of all: Int, _ share: Double) -> Double {
    var result = 1.0
    for index in 0..<count { result *= Double(all - index) / Double(index + 1) }
    return result * pow(share, Double(count)) * pow(1 - share, Double(all - count))
  }
}

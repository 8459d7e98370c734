package import Placement
package import Residency
package import Routing

/// Whether layers share their memory.
package enum ReplayScope: String, Sendable, CaseIterable {
  /// One pool over all layers.
  case global
  /// An equal share for each layer.
  case layer
}

/// A capacity that is too small for the runtime that recorded a trace.
package struct ReplayError: Error, CustomStringConvertible {
  let model: String
  let capacity: Int
  let minimum: Int

  package var description: String {
    "--memory \(capacity) is too small for the expert slots of '\(model)'; the minimum is \(minimum) "
      + "bytes, the experts of one token at one layer, of each size of expert"
  }
}

/// What a replay came to.
package struct ReplayResult: Sendable {
  package var prefill = ReplayCounts()
  package var decode = ReplayCounts()
  /// Times of the decoded tokens, where a machine was given.
  package var times: ReplayTimes?
  /// What was read ahead, where a predictor was given too.
  package var prefetch: PrefetchAccount?
  /// Hit rates by window, where one was given.
  package var curve: HitRateCurve?
}

/// A trace in the order in which it is replayed.
package struct Replay: Sendable {
  package let trace: RoutingTrace
  package let schedule: EventSchedule
  /// The events that are not counted, from the beginning: those that fitted policies learn from.
  package let fitCount: Int
  /// The layers that are replayed and stand for all; nil replays all.
  let sample: LayerSample?
  /// The machine on which decoding is timed, one sequence at a time; nil counts only.
  package let hardware: HardwareProfile?
  /// What is read ahead by, on that machine; nil: nothing is.
  package let predictor: ReplayPredictor?
  /// Decoded tokens whose hit rate is told together; nil tells only that of all.
  package var window: Int?

  /// - Parameters:
  ///   - batch: sequences that are decoded at a time.
  ///   - fitShare: the share of the events that are learned from and not counted.
  package init(
    _ trace: RoutingTrace, batch: Int = 1, fitShare: Double = 0, layerShare: Double? = nil,
    hardware: HardwareProfile? = nil, predictor: ReplayPredictor? = nil
  ) {
    precondition(hardware == nil || batch == 1, "a batch has no times")
    self.trace = trace
    sample = layerShare.map { LayerSample(geometry: trace.header.geometry, share: $0) }
    self.hardware = hardware
    self.predictor = predictor
    schedule = EventSchedule(trace, batch: batch, layers: sample?.isChosen)
    fitCount = Int(Double(schedule.groupCount) * fitShare)
  }

  package var geometry: RoutingGeometry { trace.header.geometry }

  /// The slots that the runtime that recorded the trace would make of `capacity` bytes; nil where the
  /// trace does not say how large they are.
  /// - Throws: `ReplayError` if the runtime could not run with so few bytes.
  package func slotPlan(capacity: Int) throws(ReplayError) -> SlotPlan? {
    let sizes = trace.header.slotByteCounts
    guard !sizes.isEmpty else { return nil }
    guard
      let plan = SlotPlan(
        expertByteCounts: sizes, expertsPerLayer: geometry.expertCount, topK: geometry.topK,
        capacity: capacity)
    else {
      throw ReplayError(
        model: trace.header.model, capacity: capacity,
        minimum: SlotPlan.minimumByteCount(expertByteCounts: sizes, topK: geometry.topK))
    }
    return plan
  }

  /// - Parameter showsScores: whether policies see router scores, where the trace has them.
  func eventBuilder(showsScores: Bool = false) -> EventBuilder {
    EventBuilder(
      geometry: geometry, hasWeights: trace.header.hasWeights,
      hasScores: showsScores && trace.header.hasScores)
  }

  /// The future that oracles know.
  package func future() -> FutureUses {
    var union = eventBuilder()
    return FutureUses(geometry: geometry) { append in
      for index in 0..<schedule.groupCount {
        union.form(schedule.group(index), of: trace)
        append(union.event.layer, union.event.experts)
      }
    }
  }

  /// How often each expert is needed in the events that are learned from, [layers * experts].
  package func fittedUses() -> [Int] {
    var uses = Array(repeating: 0, count: geometry.layerCount * geometry.expertCount)
    var union = eventBuilder()
    for index in 0..<fitCount {
      union.form(schedule.group(index), of: trace)
      for expert in union.event.experts { uses[Int(expert)] += 1 }
    }
    return uses
  }

  /// Replays every event through residents of `capacity` bytes in one pool.
  package func run(
    capacity: Int, policy: any EvictionPolicy
  ) -> ReplayResult {
    var set = ResidentSet(geometry: geometry, capacity: capacity, policy: policy)
    return run(capacity: capacity) { event, missed in
      set.serve(event, missed: &missed)
    } residents: {
      set.table
    }
  }

  /// Replays every event through the slots of `plan`, as the runtime does.
  package func run(
    plan: SlotPlan, policy: any EvictionPolicy
  ) -> ReplayResult {
    var set = ResidentSet(geometry: geometry, plan: plan, policy: policy)
    // The runtime reads everything beforehand where everything fits.
    if plan.slotCount == geometry.layerCount * geometry.expertCount { set.fill() }
    // It shows its policies no scores.
    return run(capacity: plan.byteCount, showsScores: false) { event, missed in
      set.serve(event, missed: &missed)
    } residents: {
      set.table
    }
  }

  /// Replays every event through a pool of `capacities[layer]` bytes for each layer.
  ///
  /// - Parameter makePolicy: makes a layer's policy, for the layer's geometry alone.
  package func run(
    capacities: [Int],
    makePolicy: (_ geometry: RoutingGeometry, _ capacity: Int) -> any EvictionPolicy
  ) -> ReplayResult {
    var sets = capacities.enumerated().map { layer, capacity in
      let single = geometry.single(layer: layer)
      return ResidentSet(
        geometry: single, capacity: capacity, policy: makePolicy(single, capacity))
    }
    var previous = 0
    return run(capacity: capacities.reduce(0, +)) { event, missed in
      // What its own event may have kept beyond its share must not stay for a whole pass.
      if event.layer != previous { sets[previous].trim() }
      previous = event.layer
      let base = Int32(event.layer * geometry.expertCount)
      var local = event
      local.layer = 0
      for index in local.experts.indices { local.experts[index] -= base }
      return sets[event.layer].serve(local, missed: &missed)
    }
  }

  private func run(
    capacity: Int, showsScores: Bool = true,
    serve: (_ event: borrowing RoutingEvent, inout [Int32]) -> ServedEvent,
    residents: (() -> ResidentTable)? = nil
  ) -> ReplayResult {
    var result = ReplayResult()
    if let hardware {
      result.times = ReplayTimes(hardware, expertByteCounts: geometry.expertByteCounts)
    }
    result.curve = window.map { HitRateCurve(window: $0) }
    var prefetch: PrefetchReplay?
    if let predictor, let hardware, residents != nil {
      prefetch = PrefetchReplay(predictor, trace: trace, profile: hardware)
    }
    var union = eventBuilder(showsScores: showsScores)
    var missed: [Int32] = []
    for index in 0..<schedule.groupCount {
      union.form(schedule.group(index), of: trace)
      let served = serve(union.event, &missed)
      guard index >= fitCount else { continue }
      let byteCount = union.event.experts.count * geometry.expertByteCounts[union.event.layer]
      let share = Double(byteCount) / Double(max(1, capacity))
      if union.event.isPrompt {
        result.prefill.add(served, union: union, share: share)
      } else {
        result.decode.add(served, union: union, share: share)
        result.curve?.add(served, pass: union.event.pass)
        let ahead = prefetch?.begin(union.event, missed: missed) ?? []
        let time = result.times?.add(
          served, layer: union.event.layer, pass: union.event.pass, ahead: ahead)
        if let time, let residents, prefetch != nil {
          let next = index + 1 < schedule.groupCount ? schedule.group(index + 1).first : nil
          prefetch?.end(union.event, time: time, next: next.map(Int.init), residents: residents())
        }
      }
    }
    result.prefetch = prefetch?.account
    return result
  }
}

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

/// Called while a trace is gone through, with the share of it that is done; what it throws ends the work.
package typealias ReplayProgress = (_ done: Double) throws -> Void

/// A trace in the order in which it is replayed.
package struct Replay: Sendable {
  package let source: TraceSource
  /// The order of the events of a trace in memory; of others each part has its own.
  package let schedule: EventSchedule?
  /// The events that are not counted, from the beginning: those that fitted policies learn from.
  package let fitCount: Int
  /// The layers that are replayed and stand for all; nil replays all.
  let sample: LayerSample?
  /// The machine on which decoding is timed, with the figures of as many tokens as are decoded together; nil
  /// counts only.
  package let hardware: HardwareProfile?
  /// What is read ahead by, on that machine; nil: nothing is.
  package let predictor: ReplayPredictor?
  /// Decoded tokens whose hit rate is told together; nil tells only that of all.
  package var window: Int?
  /// Experts that are staged at a time, beside the memory that is replayed.
  package var stagedCount = SlotPlan.mostStaged

  /// - Parameters:
  ///   - batch: sequences that are decoded at a time; more than one need the trace in memory.
  ///   - fitShare: the share of the events that are learned from and not counted.
  /// - Throws: `TraceError` if the trace is to be loaded and cannot be.
  package init(
    _ source: TraceSource, batch: Int = 1, fitShare: Double = 0, layerShare: Double? = nil,
    hardware: HardwareProfile? = nil, predictor: ReplayPredictor? = nil
  ) throws(TraceError) {
    precondition(predictor == nil || batch == 1, "a batch is not predicted")
    self.source = batch > 1 ? TraceSource(try source.loaded()) : source
    let sample = layerShare.map { LayerSample(geometry: source.header.geometry, share: $0) }
    self.sample = sample
    self.hardware = hardware
    self.predictor = predictor
    let schedule = self.source.resident.map {
      EventSchedule($0, batch: batch, layers: sample?.isChosen)
    }
    self.schedule = schedule
    let eventCounts = source.eventCounts
    let groupCount =
      schedule?.groupCount
      ?? eventCounts.indices.reduce(0) { $0 + (sample?.isChosen[$1] ?? true ? eventCounts[$1] : 0) }
    fitCount = Int(Double(groupCount) * fitShare)
  }

  /// A replay of a trace in memory.
  package init(_ trace: RoutingTrace, fitShare: Double = 0) {
    // Loading is all that can fail.
    try! self.init(TraceSource(trace), fitShare: fitShare)
  }

  package var header: TraceHeader { source.header }

  /// Calls `body` with the first `count` events in their order, each with its number.
  package func forEachEvent(
    first count: Int = .max, progress: ReplayProgress = { _ in },
    _ body: (_ index: Int, borrowing EventBuilder) throws -> Void
  ) throws {
    var union = eventBuilder()
    var first = 0
    var parts = try source.parts()
    while first < count, try parts.next() {
      try progress(parts.done)
      let order = order(of: parts.part)
      for index in 0..<min(order.groupCount, count - first) {
        union.form(order.group(index), of: parts.part)
        try body(first + index, union)
      }
      first += order.groupCount
    }
  }

  /// The order of the events of `part`.
  private func order(of part: RoutingTrace) -> EventSchedule {
    schedule ?? EventSchedule(part, layers: sample?.isChosen)
  }

  package var geometry: RoutingGeometry { header.geometry }

  /// The slots that the runtime that recorded the trace would make of `capacity` bytes; nil where the
  /// trace does not say how large they are.
  /// - Throws: `ReplayError` if the runtime could not run with so few bytes.
  package func slotPlan(capacity: Int) throws(ReplayError) -> SlotPlan? {
    let sizes = header.slotByteCounts
    guard !sizes.isEmpty else { return nil }
    guard
      let plan = SlotPlan(
        expertByteCounts: sizes, expertsPerLayer: geometry.expertCount, topK: geometry.topK,
        capacity: capacity)
    else {
      throw ReplayError(
        model: header.model, capacity: capacity,
        minimum: SlotPlan.minimumByteCount(expertByteCounts: sizes, topK: geometry.topK))
    }
    return plan
  }

  /// - Parameter showsScores: whether policies see router scores, where the trace has them.
  func eventBuilder(showsScores: Bool = false) -> EventBuilder {
    EventBuilder(
      geometry: geometry, hasWeights: header.hasWeights,
      hasScores: showsScores && header.hasScores)
  }

  /// The future that oracles know.
  package func future(progress: ReplayProgress = { _ in }) throws -> FutureUses {
    try FutureUses(geometry: geometry) { append in
      try forEachEvent(progress: progress) { _, union in
        append(union.event.layer, union.event.experts)
      }
    }
  }

  /// How often each expert is needed in the events that are learned from, [layers * experts].
  package func fittedUses() throws -> [Int] {
    var uses = Array(repeating: 0, count: geometry.layerCount * geometry.expertCount)
    try forEachEvent(first: fitCount) { _, union in
      for expert in union.event.experts { uses[Int(expert)] += 1 }
    }
    return uses
  }

  /// Replays every event through residents of `capacity` bytes in one pool.
  package func run(
    capacity: Int, policy: any EvictionPolicy, progress: ReplayProgress = { _ in }
  ) throws -> ReplayResult {
    var set = ResidentSet(geometry: geometry, capacity: capacity, policy: policy)
    return try run(capacity: capacity, progress: progress) { event, missed in
      set.serve(event, missed: &missed)
    } residents: {
      set.table
    }
  }

  /// Replays every event through the slots of `plan`, as the runtime does.
  package func run(
    plan: SlotPlan, policy: any EvictionPolicy, progress: ReplayProgress = { _ in }
  ) throws -> ReplayResult {
    var set = ResidentSet(geometry: geometry, plan: plan, policy: policy)
    // The runtime reads everything beforehand where everything fits.
    if plan.slotCount == geometry.layerCount * geometry.expertCount { set.fill() }
    // It shows its policies no scores.
    return try run(capacity: plan.byteCount, showsScores: false, progress: progress) {
      event, missed in
      set.serve(event, missed: &missed)
    } residents: {
      set.table
    }
  }

  /// Replays every event through a pool of `capacities[layer]` bytes for each layer.
  ///
  /// - Parameter makePolicy: makes a layer's policy, for the layer's geometry alone.
  package func run(
    capacities: [Int], progress: ReplayProgress = { _ in },
    makePolicy: (_ geometry: RoutingGeometry, _ capacity: Int) -> any EvictionPolicy
  ) throws -> ReplayResult {
    var sets = capacities.enumerated().map { layer, capacity in
      let single = geometry.single(layer: layer)
      return ResidentSet(
        geometry: single, capacity: capacity, policy: makePolicy(single, capacity))
    }
    var previous = 0
    return try run(capacity: capacities.reduce(0, +), progress: progress) { event, missed in
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
    capacity: Int, showsScores: Bool = true, progress: ReplayProgress,
    serve: (_ event: borrowing RoutingEvent, inout [Int32]) -> ServedEvent,
    residents: (() -> ResidentTable)? = nil
  ) throws -> ReplayResult {
    var result = ReplayResult()
    if let hardware {
      result.times = ReplayTimes(hardware, expertByteCounts: geometry.expertByteCounts)
    }
    result.curve = window.map { HitRateCurve(window: $0) }
    var prefetch: PrefetchReplay?
    if let predictor, let hardware, residents != nil {
      prefetch = PrefetchReplay(
        predictor, header: header, profile: hardware, stagedCount: stagedCount)
    }
    var union = eventBuilder(showsScores: showsScores)
    var missed: [Int32] = []
    var used = Array(repeating: false, count: geometry.layerCount * geometry.expertCount)
    /// What the last event took, until it is known which one is next.
    var executed: LayerTime?
    var first = 0
    var parts = try source.parts()
    while try parts.next() {
      try progress(parts.done)
      let order = order(of: parts.part)
      for index in 0..<order.groupCount {
        let group = order.group(index)
        if let time = executed, let residents {
          let delay = prefetch?.end(
            union.event, time: time, next: Int(group.first!), of: parts.part, residents: residents()
          )
          result.times?.delay(by: delay ?? 0)
          executed = nil
        }
        union.form(group, of: parts.part)
        let served = serve(union.event, &missed)
        let firstUses = hardware == nil ? 0 : Self.note(union.event.experts, in: &used)
        guard first + index >= fitCount else { continue }
        let byteCount = union.event.experts.count * geometry.expertByteCounts[union.event.layer]
        let share = Double(byteCount) / Double(max(1, capacity))
        if union.event.isPrompt {
          result.prefill.add(served, union: union, share: share)
        } else {
          result.decode.add(served, union: union, share: share)
          result.curve?.add(served, pass: union.event.pass)
          let ahead = prefetch?.begin(union.event, missed: missed) ?? []
          let time = result.times?.add(
            served, firstUses: min(firstUses, served.misses), layer: union.event.layer,
            pass: union.event.pass, ahead: ahead)
          if prefetch != nil { executed = time }
        }
      }
      first += order.groupCount
    }
    result.prefetch = prefetch?.account
    return result
  }

  /// Takes note that `experts` have been used; returns how many of them had not been before.
  private static func note(_ experts: [Int32], in used: inout [Bool]) -> Int {
    var count = 0
    for expert in experts where !used[Int(expert)] {
      used[Int(expert)] = true
      count += 1
    }
    return count
  }
}

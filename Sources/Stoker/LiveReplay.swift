internal import Checkpoints
internal import ExpertRuntime
internal import Models
package import Replay
public import Routing
internal import Tensors

/// What a live replay measured.
public struct LiveReplay: Sendable {
  /// Seconds of each step: of a decoded token, or of one of each sequence.
  public internal(set) var stepSeconds: [Double] = []
  /// Decoded tokens.
  public internal(set) var tokenCount = 0
  /// Experts of decoding steps that were resident, and all.
  public internal(set) var hits = 0
  public internal(set) var accesses = 0
  /// The bytes of the missed experts of all decoded tokens.
  public internal(set) var missedByteCount = 0
  /// Seconds in which nothing could be computed until bytes arrived.
  public internal(set) var stallSeconds = 0.0
  /// What was read ahead.
  public internal(set) var prefetch = PrefetchLedger()

  mutating func add(_ spent: RuntimeStatistics) {
    hits += spent.decode.hits
    accesses += spent.decode.hits + spent.decode.misses
    missedByteCount += spent.decode.missedByteCount
    stallSeconds += Double(spent.diskWaitNanoseconds) / 1e9
    prefetch.add(spent.totalPrefetch)
  }
}

extension ModelFile {
  /// Checks that `trace` is of a model of this shape: `replay` throws the same.
  /// - Throws: `StokerError.trace`.
  public func validateShape(of trace: RoutingTrace) throws {
    let shape = trace.header.geometry
    let topK = description.expertsPerToken
    guard shape.layerCount == layout.layerCount, shape.expertCount == layout.expertCount,
      shape.topK == topK
    else {
      throw StokerError.trace(
        reason: "it is of \(shape.layerCount) layers of \(shape.expertCount) experts, "
          + "top-\(shape.topK); the model has \(layout.layerCount) of \(layout.expertCount), "
          + "top-\(topK)")
    }
  }
}

extension MoEModel {
  /// The bytes that the model's experts and their slots take, by layer.
  public var expertSizes: (expertByteCounts: [Int], slotByteCounts: [Int]) {
    (file.layout.shapes.map(\.byteCount), transformer.runtime.geometry.slotByteCounts)
  }

  /// Runs the model with the routing of `trace` instead of its own router's: real reads and real
  /// kernels on the experts that the trace names.
  ///
  /// Prompts pass through the experts alone, untimed: they leave what they leave resident. Decoded
  /// tokens pass through the whole model; what they say is noise.
  ///
  /// - Parameters:
  ///   - batch: sequences that are decoded together, at most `tokenCapacity`; their tokens take places in one
  ///     context that follow each other.
  ///   - isCancelled: asked before every step; the replay ends when it says so.
  ///   - progress: called with the events done and all.
  /// - Throws: `StokerError.trace` if the trace does not fit the model, `.option` if the batch does not,
  ///   `RuntimeError.read` if an expert could not be read.
  public func replay(
    _ trace: RoutingTrace, batch: Int = 1, isCancelled: () -> Bool = { false },
    progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) throws -> LiveReplay {
    try replay(trace, batch: batch, by: nil, isCancelled: isCancelled, progress: progress)
  }

  /// As above, reading ahead by `predictor`; the model has to be one that reads ahead, and the batch 1.
  package func replay(
    _ trace: RoutingTrace, batch: Int, by predictor: ReplayPredictor?, isCancelled: () -> Bool,
    progress: (_ done: Int, _ total: Int) -> Void
  ) throws -> LiveReplay {
    try check(trace, batch: batch)
    precondition(predictor == nil || batch == 1, "a batch is not predicted")
    var predictions = predictor.map { TracePredictions($0, header: trace.header) }
    let schedule = EventSchedule(trace, batch: batch)
    let layerCount = trace.header.geometry.layerCount
    var result = LiveReplay()
    /// The group of events that is next to be executed.
    var next = 0
    func append(_ group: Int, to routing: inout Routing) {
      for event in schedule.group(group) { Self.append(trace, event: Int(event), to: &routing) }
    }
    func observe(_ group: Int) {
      let event = Int(schedule.group(group).first!)
      predictions?.observe(
        layer: trace.layer(of: event), experts: trace.experts(of: event).lazy.map { Int($0) },
        next: trace.sequence(of: min(event + 1, trace.eventCount - 1)))
    }
    defer { (transformer.forceRouting, transformer.forcePrediction) = (nil, nil) }
    transformer.forceRouting = { layer, routing in
      routing.removeAll()
      append(next + layer, to: &routing)
      observe(next + layer)
    }
    if predictor != nil {
      transformer.forcePrediction = { layer, distance in
        let event = Int(schedule.group(next + layer).first!)
        return predictions?.scores(of: event, in: trace, distance: distance)
      }
    }
    while next < schedule.groupCount, !isCancelled() {
      let group = schedule.group(next)
      let first = Int(group.first!)
      switch trace.phase(of: first) {
      case .prefill:
        try runPrompt(layer: trace.layer(of: first)) { append(next, to: &$0) }
        observe(next)
        next += 1
      case .decode:
        let before = transformer.runtime.statistics
        let room = transformer.cache.capacity - group.count + 1
        result.stepSeconds.append(
          try timedStep(group.count, at: Int(trace.step(of: first)) % room))
        result.tokenCount += group.count
        result.add(transformer.runtime.statistics.subtracting(before))
        next += layerCount
      }
      progress(next, schedule.groupCount)
    }
    return result
  }

  /// Everything that could fail in the middle.
  private func check(_ trace: RoutingTrace, batch: Int) throws {
    let shape = trace.header.geometry
    let runtime = transformer.runtime
    func fail(_ reason: String) -> StokerError { .trace(reason: reason) }
    try file.validateShape(of: trace)
    guard (1...min(runtime.tokenCapacity, transformer.cache.capacity)).contains(batch) else {
      throw StokerError.option(
        name: "batch", found: "\(batch)",
        expected: "1 to \(min(runtime.tokenCapacity, transformer.cache.capacity))")
    }
    var event = 0
    while event < trace.eventCount {
      let tokens = trace.accessCount(of: event) / shape.topK
      guard trace.phase(of: event) == .decode else {
        guard tokens <= runtime.tokenCapacity else {
          throw fail(
            "a prompt has \(tokens) tokens in one event; at most \(runtime.tokenCapacity) pass "
              + "through the model together")
        }
        event += 1
        continue
      }
      for layer in 0..<shape.layerCount {
        let place = event + layer
        guard place < trace.eventCount, trace.layer(of: place) == layer,
          trace.phase(of: place) == .decode, trace.step(of: place) == trace.step(of: event),
          trace.accessCount(of: place) == shape.topK
        else {
          throw fail("token \(trace.step(of: event)) is not there whole, layer after layer")
        }
      }
      event += shape.layerCount
    }
  }

  /// Decodes any tokens, so many, from `position` on; returns the seconds it took.
  private func timedStep(_ count: Int, at position: Int) throws -> Double {
    try timed((0..<count).map { anyToken(at: position + $0) }, at: position, logits: .all)
  }

  /// Decodes `token`, or any, at `position`; returns the seconds it took.
  package func timedToken(_ token: Int32? = nil, at position: Int, logits: MoETransformer.Logits)
    throws -> Double
  {
    try timed([token ?? anyToken(at: position)], at: position, logits: logits)
  }

  private func anyToken(at position: Int) -> Int32 {
    Int32(position * 37 % transformer.description.vocabularySize)
  }

  /// Decodes tokens whose output nobody looks at.
  private func timed(
    _ tokens: [Int32], at position: Int, logits: MoETransformer.Logits
  ) throws -> Double {
    transformer.pretend(at: position)
    let start = monotonicNanoseconds()
    try transformer.forward(tokens.span, at: position, phase: .decode, logits: logits) { _, _ in }
    return Double(monotonicNanoseconds() - start) / 1e9
  }

  private func runPrompt(layer: Int, _ fill: (inout Routing) -> Void) throws {
    let runtime = transformer.runtime
    var routing = Routing(topK: runtime.topK)
    fill(&routing)
    let hidden = Array(repeating: Float(0.5), count: routing.tokenCount * runtime.hiddenSize)
    var output = hidden
    var span = output.mutableSpan
    try runtime.execute(
      layer: layer, hidden: hidden.span, routing: routing, output: &span, phase: .prefill)
  }

  static func append(_ trace: RoutingTrace, event: Int, to routing: inout Routing) {
    let (experts, weights) = (trace.experts(of: event), trace.weights(of: event))
    for place in experts.indices {
      let weight =
        weights.isEmpty
        ? 1 / Float(routing.topK) : weights[weights.startIndex + place - experts.startIndex]
      routing.append(expert: Int(experts[place]), weight: weight)
    }
  }
}

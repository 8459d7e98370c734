internal import Checkpoints
internal import ExpertRuntime
internal import Models
package import Replay
public import Routing
internal import Tensors

/// What a live replay measured.
public struct LiveReplay: Sendable {
  /// Seconds of each decoded token.
  public internal(set) var tokenSeconds: [Double] = []
  /// Decode accesses that found their expert resident, and all.
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
  ///   - isCancelled: asked before every token; the replay ends when it says so.
  ///   - progress: called with the events done and all.
  /// - Throws: `StokerError.trace` if the trace does not fit the model, `RuntimeError.read` if an expert
  ///   could not be read.
  public func replay(
    _ trace: RoutingTrace, isCancelled: () -> Bool = { false },
    progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) throws -> LiveReplay {
    try replay(trace, by: nil, isCancelled: isCancelled, progress: progress)
  }

  /// As above, reading ahead by `predictor`; the model has to be one that reads ahead.
  package func replay(
    _ trace: RoutingTrace, by predictor: ReplayPredictor?, isCancelled: () -> Bool,
    progress: (_ done: Int, _ total: Int) -> Void
  ) throws -> LiveReplay {
    try check(trace)
    var predictions = predictor.map { TracePredictions($0, header: trace.header) }
    var result = LiveReplay()
    let runtime = transformer.runtime
    let layerCount = trace.header.geometry.layerCount
    var index = 0
    func observe(_ event: Int) {
      predictions?.observe(
        layer: trace.layer(of: event), experts: trace.experts(of: event).lazy.map { Int($0) },
        next: trace.sequence(of: min(event + 1, trace.eventCount - 1)))
    }
    defer { (transformer.forceRouting, transformer.forcePrediction) = (nil, nil) }
    transformer.forceRouting = { layer, routing in
      routing.removeAll()
      Self.append(trace, event: index + layer, to: &routing)
      observe(index + layer)
    }
    if predictor != nil {
      transformer.forcePrediction = { layer, distance in
        predictions?.scores(of: index + layer, in: trace, distance: distance)
      }
    }
    while index < trace.eventCount, !isCancelled() {
      switch trace.phase(of: index) {
      case .prefill:
        try runPrompt(trace, event: index)
        observe(index)
        index += 1
      case .decode:
        let before = runtime.statistics
        let step = Int(trace.step(of: index))
        result.tokenSeconds.append(
          try timedToken(at: step % transformer.cache.capacity, logits: .last))
        result.add(runtime.statistics.subtracting(before))
        index += layerCount
      }
      progress(index, trace.eventCount)
    }
    return result
  }

  /// Everything that could fail in the middle.
  private func check(_ trace: RoutingTrace) throws {
    let shape = trace.header.geometry
    let runtime = transformer.runtime
    func fail(_ reason: String) -> StokerError { .trace(reason: reason) }
    try file.validateShape(of: trace)
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

  /// Decodes `token`, or any, at `position`; returns the seconds it took.
  package func timedToken(_ token: Int32? = nil, at position: Int, logits: MoETransformer.Logits)
    throws -> Double
  {
    let token = [token ?? Int32(position * 37 % transformer.description.vocabularySize)]
    let start = monotonicNanoseconds()
    try transformer.forward(token.span, at: position, phase: .decode, logits: logits) { _, _ in }
    return Double(monotonicNanoseconds() - start) / 1e9
  }

  private func runPrompt(_ trace: RoutingTrace, event: Int) throws {
    let runtime = transformer.runtime
    var routing = Routing(topK: runtime.topK)
    Self.append(trace, event: event, to: &routing)
    let hidden = Array(repeating: Float(0.5), count: routing.tokenCount * runtime.hiddenSize)
    var output = hidden
    var span = output.mutableSpan
    try runtime.execute(
      layer: trace.layer(of: event), hidden: hidden.span, routing: routing, output: &span,
      phase: .prefill)
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

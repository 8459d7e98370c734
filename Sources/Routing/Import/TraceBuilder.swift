/// Gathers routed tokens in any order and makes a trace of them: sequence by sequence, of each the prompt
/// as one event per layer, then the decoded tokens, each layer by layer.
struct TraceBuilder {
  private struct Token {
    var sequence: Int32
    var isPrefill: Bool
    var step: Int32
    var layer: Int32
    var first: Int
  }

  let path: String
  let topK: Int
  private let hasWeights: Bool
  private var tokens: [Token] = []
  private var experts: [UInt16] = []
  private var weights: [Float] = []
  private var highestExpert = 0
  private var highestLayer = 0

  init(path: String, topK: Int, hasWeights: Bool) {
    self.path = path
    self.topK = topK
    self.hasWeights = hasWeights
  }

  /// Experts of a layer that the ids need at least.
  var neededExpertCount: Int { highestExpert + 1 }
  /// Layers that the tokens need at least.
  var neededLayerCount: Int { highestLayer + 1 }
  var isEmpty: Bool { tokens.isEmpty }

  /// Adds one token's routing at one layer.
  /// - Throws: `TraceError.malformed` if ids or weights make no sense.
  mutating func add(
    sequence: Int, phase: Phase, step: Int, layer: Int, experts: [Int], weights: [Float], line: Int
  ) throws(TraceError) {
    let field = "layer \(layer) of position \(step)"
    func fail(_ found: String, _ expected: String) -> TraceError {
      .malformed(path: path, line: line, field: field, found: found, expected: expected)
    }
    guard experts.count == topK else {
      throw fail("\(experts.count) experts", "\(topK), as before")
    }
    guard weights.count == (hasWeights ? topK : 0) else {
      throw fail("\(weights.count) weights", "\(hasWeights ? topK : 0), as before")
    }
    guard (0..<Int(Int32.max)).contains(sequence), (0..<Int(Int32.max)).contains(step) else {
      throw fail("sequence \(sequence), position \(step)", "numbers from 0 to \(Int32.max - 1)")
    }
    guard (0..<RoutingGeometry.maximumLayerCount).contains(layer) else {
      throw fail("layer \(layer)", "0 to \(RoutingGeometry.maximumLayerCount - 1)")
    }
    for (place, expert) in experts.enumerated() {
      guard (0..<RoutingGeometry.maximumExpertCount).contains(expert) else {
        throw fail("expert \(expert)", "0 to \(RoutingGeometry.maximumExpertCount - 1)")
      }
      guard !experts[..<place].contains(expert) else {
        throw fail("expert \(expert) twice", "different experts")
      }
      highestExpert = max(highestExpert, expert)
    }
    for weight in weights where !(weight >= 0 && weight < 65504) {
      throw fail("weight \(weight)", "a number from 0 to 65503")
    }
    highestLayer = max(highestLayer, layer)
    tokens.append(
      Token(
        sequence: Int32(sequence), isPrefill: phase == .prefill, step: Int32(step),
        layer: Int32(layer), first: self.experts.count))
    for expert in experts { self.experts.append(UInt16(expert)) }
    self.weights += weights
  }

  /// The trace.
  func trace(header: TraceHeader) throws(TraceError) -> RoutingTrace {
    var trace = RoutingTrace(header: header)
    var event = TraceEvent()
    let sorted = tokens.sorted { Self.key($0) < Self.key($1) }
    for (index, token) in sorted.enumerated() {
      let previous = index > 0 ? sorted[index - 1] : nil
      if let previous, Self.key(previous) == Self.key(token) {
        throw .malformed(
          path: path, line: 0, field: "sequence \(token.sequence)",
          found: "position \(token.step), layer \(token.layer) twice", expected: "it once")
      }
      let joins =
        previous.map {
          token.isPrefill && $0.isPrefill && $0.sequence == token.sequence
            && $0.layer == token.layer
        } ?? false
      if !joins {
        if index > 0 { trace.append(event) }
        event.removeAll()
        event.sequence = token.sequence
        event.phase = token.isPrefill ? .prefill : .decode
        event.step = token.step
        event.layer = Int(token.layer)
      }
      event.experts += experts[token.first..<token.first + topK]
      if hasWeights { event.weights += weights[token.first..<token.first + topK] }
    }
    if !sorted.isEmpty { trace.append(event) }
    return trace
  }

  private static func key(_ token: Token) -> (Int32, Int, Int32, Int32) {
    token.isPrefill
      ? (token.sequence, 0, token.layer, token.step) : (token.sequence, 1, token.step, token.layer)
  }
}

package import Routing

/// A trace of random routings in which some experts are likelier than others and tokens tend to repeat
/// the one before.
package func randomTrace(
  layers: Int, experts: Int, topK: Int, tokens: Int, sequences: Int = 1, hasWeights: Bool = false,
  byteCounts: [Int]? = nil, promptTokens: Int = 0, seed: UInt64
) -> RoutingTrace {
  var generator = SeededGenerator(seed: seed)
  var trace = RoutingTrace(
    header: TraceHeader(
      model: "random",
      geometry: RoutingGeometry(
        expertCount: experts, topK: topK,
        expertByteCounts: byteCounts ?? Array(repeating: 1, count: layers)),
      hasWeights: hasWeights))
  var previous = Array(repeating: [UInt16](), count: layers)
  func route(_ layer: Int) -> [UInt16] {
    var chosen: [UInt16] = []
    while chosen.count < topK {
      let expert: UInt16
      if Bool.random(using: &generator), let kept = previous[layer].randomElement(using: &generator)
      {
        expert = kept
      } else {
        let draw = Double.random(in: 0..<1, using: &generator)
        expert = UInt16(draw * draw * Double(experts))
      }
      if !chosen.contains(expert) { chosen.append(expert) }
    }
    previous[layer] = chosen
    return chosen
  }
  var event = TraceEvent()
  func append(tokens count: Int, sequence: Int, phase: Phase, step: Int) {
    for layer in 0..<layers {
      event.removeAll()
      event.sequence = Int32(sequence)
      event.phase = phase
      event.step = Int32(step)
      event.layer = layer
      for _ in 0..<count { event.experts += route(layer) }
      if hasWeights {
        event.weights = event.experts.map { _ in .random(in: 0..<1, using: &generator) }
      }
      trace.append(event)
    }
  }
  for sequence in 0..<sequences {
    if promptTokens > 0 {
      append(tokens: promptTokens, sequence: sequence, phase: .prefill, step: 0)
    }
    for token in 0..<tokens {
      append(tokens: 1, sequence: sequence, phase: .decode, step: promptTokens + token)
    }
  }
  return trace
}

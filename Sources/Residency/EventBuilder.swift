package import Routing

/// Makes of the tokens that go through a layer together the event that a cache sees: every expert once.
///
/// The runtime makes its events of what the router says, a replay of what a trace says of it: the same.
/// Storage is kept from event to event.
package struct EventBuilder: Sendable {
  private let geometry: RoutingGeometry
  private let hasWeights: Bool
  private let hasScores: Bool
  /// Where each of the layer's experts is in the event being made, from 1, or 0.
  private var places: [Int32]
  private var lastLayer = -1
  /// The event, once `finish` has been called.
  package private(set) var event = RoutingEvent()
  /// Routed experts, each token's counted.
  package private(set) var logicalCount = 0

  /// - Parameters:
  ///   - hasWeights: whether gate weights are known.
  ///   - hasScores: whether the traces that events are made of have router scores, to be seen.
  package init(geometry: RoutingGeometry, hasWeights: Bool, hasScores: Bool = false) {
    self.geometry = geometry
    self.hasWeights = hasWeights
    self.hasScores = hasScores
    places = Array(repeating: 0, count: geometry.expertCount)
    event.experts.reserveCapacity(geometry.expertCount)
    event.weights.reserveCapacity(geometry.expertCount)
    event.counts.reserveCapacity(geometry.expertCount)
  }

  /// Begins an event at `layer`, counted over the MoE layers; a layer no higher than the last event's
  /// begins another pass.
  package mutating func begin(layer: Int, phase: Phase) {
    if layer <= lastLayer { event.pass += 1 }
    lastLayer = layer
    event.isPrompt = phase == .prefill
    event.layer = layer
    event.experts.removeAll(keepingCapacity: true)
    event.weights.removeAll(keepingCapacity: true)
    event.counts.removeAll(keepingCapacity: true)
    logicalCount = 0
  }

  /// Makes the event of event `index` of `trace` alone, which is of one token: every expert is there
  /// once.
  package mutating func finish(token index: Int, of trace: borrowing RoutingTrace) {
    trace.append(
      index, base: Int32(event.layer * geometry.expertCount), to: &event.experts,
      weights: &event.weights)
    logicalCount = geometry.topK
    event.tokenCount = 1
  }

  /// Makes the event of one token.
  package mutating func finish(token routing: borrowing Routing) {
    let base = Int32(event.layer * geometry.expertCount)
    for expert in routing.experts { event.experts.append(base + expert) }
    if hasWeights {
      for weight in routing.weights { event.weights.append(TraceWeight.rounded(weight)) }
    }
    logicalCount = geometry.topK
    event.tokenCount = 1
  }

  /// Adds a token's expert before those added already; tokens and their experts are to be added from
  /// the last to the first.
  package mutating func prepend(expert: Int, weight: Float) {
    logicalCount += 1
    if places[expert] == 0 {
      event.experts.append(Int32(event.layer * geometry.expertCount + expert))
      event.counts.append(1)
      if hasWeights { event.weights.append(weight) }
      places[expert] = Int32(event.experts.count)
    } else {
      event.counts[Int(places[expert]) - 1] += 1
      if hasWeights { event.weights[Int(places[expert]) - 1] += weight }
    }
  }

  /// Makes the event of what has been prepended.
  package mutating func finish() {
    event.tokenCount = logicalCount / geometry.topK
    event.experts.reverse()
    event.weights.reverse()
    event.counts.reverse()
    for expert in event.experts { places[Int(expert) - event.layer * geometry.expertCount] = 0 }
  }
}

extension EventBuilder {
  /// Makes the event of `routing` at `layer`.
  package mutating func form(layer: Int, phase: Phase, routing: borrowing Routing) {
    begin(layer: layer, phase: phase)
    if routing.tokenCount == 1 { return finish(token: routing) }
    for place in routing.experts.indices.reversed() {
      prepend(
        expert: Int(routing.experts[place]), weight: TraceWeight.rounded(routing.weights[place]))
    }
    finish()
  }

  private mutating func addScores(
    of group: ArraySlice<Int32>, in trace: borrowing RoutingTrace
  ) {
    event.scores.removeAll(keepingCapacity: true)
    event.scores.append(contentsOf: repeatElement(0, count: geometry.expertCount))
    for index in group {
      for (place, code) in trace.scores(of: Int(index)).enumerated() {
        event.scores[place % geometry.expertCount] += TraceScore.probability(of: code)
      }
    }
  }

  /// Makes the event of the events `group` of `trace`, which go through their layer together.
  package mutating func form(_ group: ArraySlice<Int32>, of trace: borrowing RoutingTrace) {
    let first = Int(group.first!)
    begin(layer: trace.layer(of: first), phase: trace.phase(of: first))
    if hasScores { addScores(of: group, in: trace) }
    if group.count == 1, trace.accessCount(of: first) == geometry.topK {
      return finish(token: first, of: trace)
    }
    for index in group.reversed() {
      let (experts, weights) = (trace.experts(of: Int(index)), trace.weights(of: Int(index)))
      for place in experts.indices.reversed() {
        let weight = hasWeights ? weights[weights.startIndex + place - experts.startIndex] : 0
        prepend(expert: Int(experts[place]), weight: weight)
      }
    }
    finish()
  }
}

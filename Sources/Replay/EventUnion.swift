internal import Residency
package import Routing

/// Makes of the tokens that go through a layer together the event that a cache sees: every expert once.
package struct EventUnion {
  private let geometry: RoutingGeometry
  private let hasWeights: Bool
  /// Where each of the layer's experts is in the event being made, from 1, or 0.
  private var places: [Int32]
  private var lastLayer = -1
  private(set) var event = RoutingEvent()
  /// Routed experts of the group, duplicates included.
  private(set) var logicalCount = 0
  private(set) var phase = Phase.decode

  package init(header: TraceHeader) {
    geometry = header.geometry
    hasWeights = header.hasWeights
    places = Array(repeating: 0, count: header.geometry.expertCount)
  }

  /// Makes the event of `group`.
  package mutating func form(_ group: ArraySlice<Int32>, of trace: borrowing RoutingTrace) {
    let layer = trace.layer(of: Int(group.first!))
    if layer <= lastLayer { event.pass += 1 }
    lastLayer = layer
    phase = trace.phase(of: Int(group.first!))
    event.isPrompt = phase == .prefill
    event.layer = layer
    event.experts.removeAll(keepingCapacity: true)
    event.weights.removeAll(keepingCapacity: true)
    event.counts.removeAll(keepingCapacity: true)
    logicalCount = 0
    if group.count == 1, trace.accessCount(of: Int(group.first!)) == geometry.topK {
      // One token: every expert is there once.
      trace.append(
        Int(group.first!), base: Int32(layer * geometry.expertCount), to: &event.experts,
        weights: &event.weights)
      logicalCount = geometry.topK
      event.tokenCount = 1
      return
    }
    for index in group.reversed() {
      append(trace.experts(of: Int(index)), trace.weights(of: Int(index)), layer: layer)
    }
    event.tokenCount = logicalCount / geometry.topK
    event.experts.reverse()
    event.weights.reverse()
    event.counts.reverse()
    for expert in event.experts { places[Int(expert) - layer * geometry.expertCount] = 0 }
  }

  /// Appends those of `experts` that are new, from the last to the first.
  private mutating func append(
    _ experts: ArraySlice<UInt16>, _ weights: ArraySlice<Float>, layer: Int
  ) {
    let base = Int32(layer * geometry.expertCount)
    logicalCount += experts.count
    for access in experts.indices.reversed() {
      let expert = Int(experts[access])
      let weight = hasWeights ? weights[weights.startIndex + access - experts.startIndex] : 0
      if places[expert] == 0 {
        event.experts.append(base + Int32(expert))
        event.counts.append(1)
        if hasWeights { event.weights.append(weight) }
        places[expert] = Int32(event.experts.count)
      } else {
        event.counts[Int(places[expert]) - 1] += 1
        if hasWeights { event.weights[Int(places[expert]) - 1] += weight }
      }
    }
  }
}

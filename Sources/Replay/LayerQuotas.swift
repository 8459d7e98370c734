internal import Residency
internal import Routing

/// Room for each layer so that the last slot of each saves as many misses per byte as any other's:
/// water-filling by marginal gain (AdapMoE, arXiv 2408.10284; ExpertFlow's PLEC).
///
/// What a layer's slots would save is read off its LRU miss curve over the events that are learned
/// from; where the curve is not concave, steps of several slots are taken together.
struct LayerQuotas {
  /// Bytes for each layer, [layers].
  private(set) var byteCounts: [Int]

  init(_ replay: Replay, capacity: Int) throws {
    let geometry = replay.geometry
    let hits = try Self.hitsBySlots(replay)
    var slots = Array(repeating: 0, count: geometry.layerCount)
    var left = capacity
    while true {
      var best: (layer: Int, steps: Int, gain: Double)?
      for layer in slots.indices {
        let byteCount = geometry.expertByteCounts[layer]
        let most = min(geometry.expertCount - slots[layer], left / byteCount)
        for steps in 1..<max(1, most + 1) {
          let saved = hits[layer][slots[layer] + steps] - hits[layer][slots[layer]]
          let gain = Double(saved) / Double(steps * byteCount)
          if gain > best?.gain ?? -1 { best = (layer, steps, gain) }
        }
      }
      guard let best else { break }
      slots[best.layer] += best.steps
      left -= best.steps * geometry.expertByteCounts[best.layer]
    }
    byteCounts = zip(slots, geometry.expertByteCounts).map { $0 * $1 }
  }

  /// The hits of each layer by the number of its slots, [layers][0...experts].
  private static func hitsBySlots(_ replay: Replay) throws -> [[Int]] {
    let geometry = replay.geometry
    var recent = Array(repeating: [Int32](), count: geometry.layerCount)
    var hits = Array(
      repeating: Array(repeating: 0, count: geometry.expertCount + 1), count: geometry.layerCount)
    try replay.forEachEvent(first: replay.fitCount) { _, union in
      let layer = union.event.layer
      for expert in union.event.experts {
        if let depth = recent[layer].firstIndex(of: expert) { hits[layer][depth + 1] += 1 }
      }
      recent[layer].removeAll { union.event.experts.contains($0) }
      recent[layer].insert(contentsOf: union.event.experts.reversed(), at: 0)
    }
    for layer in hits.indices {
      for slots in 1...geometry.expertCount { hits[layer][slots] += hits[layer][slots - 1] }
    }
    return hits
  }
}

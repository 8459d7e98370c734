package import Routing

/// How often each expert is used while decoding, and how soon again.
package struct ReuseProfile: Sendable {
  /// Uses of each expert, [layers][experts].
  package private(set) var uses: [[Int]]
  /// Uses by the tokens since the expert's last use: 1, 2, 3 to 4, 5 to 8, and so on in powers of two.
  package private(set) var distances: [Int] = []
  /// Uses of experts that were not used before.
  package private(set) var firstUses = 0

  package init(_ source: TraceSource) throws {
    let geometry = source.header.geometry
    uses = Array(
      repeating: Array(repeating: 0, count: geometry.expertCount), count: geometry.layerCount)
    /// Tokens that each layer has seen, and the one each expert was last used by.
    var tokens = Array(repeating: 0, count: geometry.layerCount)
    var last = Array(
      repeating: Array(repeating: -1, count: geometry.expertCount), count: geometry.layerCount)
    try source.forEachPart { trace, _ in
      for event in 0..<trace.eventCount {
        let layer = trace.layer(of: event)
        let isDecode = trace.phase(of: event) == .decode
        for (place, id) in trace.experts(of: event).enumerated() {
          let token = tokens[layer] + place / geometry.topK
          let expert = Int(id)
          if isDecode {
            uses[layer][expert] += 1
            if last[layer][expert] < 0 {
              firstUses += 1
            } else {
              count(distance: max(1, token - last[layer][expert]))
            }
          }
          last[layer][expert] = token
        }
        tokens[layer] += trace.accessCount(of: event) / geometry.topK
      }
    }
  }

  private mutating func count(distance: Int) {
    let bin = Int.bitWidth - (distance - 1).leadingZeroBitCount
    while distances.count <= bin { distances.append(0) }
    distances[bin] += 1
  }

  /// The largest distance that bin `index` counts.
  static func label(ofBin index: Int) -> String { "\(index < 2 ? "" : "≤")\(1 << index)" }
}

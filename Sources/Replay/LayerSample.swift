internal import Routing

/// Some layers of a model that stand for all, in a memory that is smaller in proportion.
///
/// A miniature of the cache under a sample of what it caches behaves like the whole (Waldspurger et al.,
/// "Cache modeling and optimization using miniature simulations", USENIX ATC 2017; SHARDS, FAST 2015).
/// There keys are sampled; here layers are, as the experts of one are chosen together, every layer
/// needs as many per token, and so the miniature keeps LRU's cliff at one token's working set. The layers
/// are spread over the depth of the model, whose ends route differently from its middle.
struct LayerSample: Sendable {
  /// Whether each layer is in the sample, [layers].
  let isChosen: [Bool]
  /// The bytes of the chosen layers' experts over those of all.
  let byteShare: Double

  /// Chooses `share` of the layers, at least one.
  init(geometry: RoutingGeometry, share: Double) {
    let count = max(1, Int((Double(geometry.layerCount) * share).rounded()))
    var isChosen = Array(repeating: false, count: geometry.layerCount)
    for index in 0..<count {
      isChosen[(2 * index + 1) * geometry.layerCount / (2 * count)] = true
    }
    self.isChosen = isChosen
    let byteCount = zip(isChosen, geometry.expertByteCounts).reduce(0) { $0 + ($1.0 ? $1.1 : 0) }
    byteShare = Double(byteCount * geometry.expertCount) / Double(geometry.totalByteCount)
  }

  var layerCount: Int { isChosen.count { $0 } }
}

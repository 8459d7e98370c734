/// The shape of a model's routing, and the bytes of its experts.
public struct RoutingGeometry: Hashable, Sendable {
  /// Experts of a layer.
  public let expertCount: Int
  /// Experts of a token at one layer.
  public let topK: Int
  /// The bytes of an expert of each MoE layer, [layers].
  public let expertByteCounts: [Int]

  /// - Parameters:
  ///   - expertCount: experts of a layer, at most `maximumExpertCount`.
  ///   - topK: experts of a token, at most `expertCount`.
  ///   - expertByteCounts: bytes of one expert, [layers], each positive.
  public init(expertCount: Int, topK: Int, expertByteCounts: [Int]) {
    precondition((1...Self.maximumExpertCount).contains(expertCount), "expert count out of range")
    precondition((1...expertCount).contains(topK), "top-k out of range")
    precondition((1...Self.maximumLayerCount).contains(expertByteCounts.count), "no layers")
    precondition(
      expertByteCounts.allSatisfy { (1...Self.maximumExpertByteCount).contains($0) },
      "bytes of an expert out of range")
    self.expertCount = expertCount
    self.topK = topK
    self.expertByteCounts = expertByteCounts
  }

  /// The most experts a layer may have.
  public static let maximumExpertCount = 4096
  /// The most bytes an expert may have: 1 TiB, so that sums over a model stay within `Int`.
  public static let maximumExpertByteCount = 1 << 40
  /// The most MoE layers a model may have.
  public static let maximumLayerCount = 1024

  /// MoE layers.
  public var layerCount: Int { expertByteCounts.count }

  /// The bytes of all experts.
  public var totalByteCount: Int { expertByteCounts.reduce(0) { $0 + $1 * expertCount } }

  /// The bytes of the experts that one token uses at all layers: below this much memory plain LRU hits
  /// next to nothing, as every expert is evicted before its layer comes round again.
  public var tokenByteCount: Int { expertByteCounts.reduce(0) { $0 + $1 * topK } }

  /// The geometry of layer `layer` alone.
  public func single(layer: Int) -> RoutingGeometry {
    RoutingGeometry(
      expertCount: expertCount, topK: topK, expertByteCounts: [expertByteCounts[layer]])
  }
}

extension RoutingGeometry {
  /// How many experts of mean size `capacity` bytes hold, at least one.
  public func meanResidentCount(capacity: Int) -> Int {
    let mean = Double(totalByteCount) / Double(layerCount * expertCount)
    return max(1, Int((Double(capacity) / mean).rounded()))
  }
}

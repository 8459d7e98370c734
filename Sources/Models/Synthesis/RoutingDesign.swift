internal import Checkpoints
internal import Glibc

/// How a synthesized model comes to route like a trained one.
///
/// Hidden states are a direction that all tokens share, in the first eighth of the columns, plus
/// what is the token's own, in the others.
/// - Popularity: each router row leans along the shared direction, by a Gumbel quantile; which
///   expert gets which quantile differs by layer. So some experts are chosen for most tokens.
/// - Reuse: queries and keys read little but the shared direction, and with the same weights. So
///   attention weights depend on the distance alone and fall off with it, as rotary embedding turns
///   equal vectors apart: each token's state takes up a moving average of the tokens before it.
/// - Agreement of layers: a layer adds little to the state it is given, so the router of the next
///   one would choose nearly the same experts a layer early.
struct RoutingDesign: Sendable {
  /// The deviation of router logits that a token's own part of the state gives, before the norm
  /// takes the shared part's share.
  static let routerDeviation: Float = 1.5
  /// The size of the shared direction's values; the own part's deviation is 1.
  static let sharedAmplitude: Float = 2
  /// The deviation of the own part within the shared columns.
  static let sharedNoise: Float = 0.3
  /// How much of the variance of a token's own part it has in common with its neighbors in the
  /// vocabulary: a topic.
  static let topicVariance: Float = 0.5
  /// Tokens of consecutive ids with the same topic.
  static let topicTokenCount = 64
  /// Layers after which the state has changed as the gains below say; deeper models change less
  /// per layer.
  private static let referenceLayerCount: Float = 16

  /// The columns of the shared direction, whole groups of 32.
  let sharedCount: Int
  /// The shared direction, [hidden]; zero beyond `sharedCount`.
  let shared: [Float]
  /// The columns of the hidden state.
  let hiddenSize: Int
  /// The gain of the attention's output projection.
  let attentionGain: Float
  /// The gain of the experts' down projections.
  let expertGain: Float
  private let popularityDeviation: Float
  private let popularityGrowth: Float
  private let layerCount: Int
  private let expertCount: Int
  private let streams: RandomStreams

  init(_ shape: ModelShape, streams: RandomStreams) {
    hiddenSize = shape.hiddenSize
    layerCount = shape.layerCount
    expertCount = shape.expertCount
    self.streams = streams
    let sharedCount = max(32, shape.hiddenSize / 8 / 32 * 32)
    self.sharedCount = sharedCount
    var random = streams.generator(.sharedDirection, row: 0)
    shared = (0..<shape.hiddenSize).map { column in
      guard column < sharedCount else { return 0 }
      return random.next() >> 63 == 0 ? Self.sharedAmplitude : -Self.sharedAmplitude
    }
    // Found by measuring: more gain raises the reuse and lowers the agreement of layers, more
    // deviation raises both and the skew. The growth makes up for the own part of the state, which
    // grows by what layers add.
    let depth = (Self.referenceLayerCount / Float(shape.layerCount)).squareRoot()
    switch shape.architecture {
    case .olmoe:
      attentionGain = 1.6 * depth
      expertGain = depth
      popularityDeviation = 0.95
      popularityGrowth = 4
    default:
      attentionGain = 1.6 * depth
      expertGain = depth
      popularityDeviation = 0.35
      popularityGrowth = 1.5
    }
  }

  /// The lean of each expert of `layer` along the shared direction, in deviations of the logits.
  func popularity(layer: Int) -> [Float] {
    let quantiles = (0..<expertCount).map { expert in
      -log(-log((Double(expert) + 0.5) / Double(expertCount)))
    }
    let mean = quantiles.reduce(0, +) / Double(expertCount)
    let variance = quantiles.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(expertCount)
    let growth = (1 + popularityGrowth * Float(layer) / Float(layerCount)).squareRoot()
    // A single expert has no variance, and needs no lean.
    let scale = variance > 0 ? Double(popularityDeviation * growth) / variance.squareRoot() : 0
    var random = streams.generator(.popularity, row: layer)
    return quantiles.map { Float(($0 - mean) * scale) }.shuffled(using: &random)
  }

  /// Writes the router row of an expert of that lean, [hidden] as F32.
  func writeRouterRow(
    lean: Float, into row: UnsafeMutableRawPointer, random: inout Xoshiro256
  ) {
    let deviation = Self.routerDeviation / Float(hiddenSize).squareRoot()
    let energy = Float(sharedCount) * Self.sharedAmplitude * Self.sharedAmplitude
    let perUnit = lean * Self.routerDeviation / energy
    var noise = NormalNoise(random)
    for column in 0..<hiddenSize {
      let own = column < sharedCount ? Self.sharedNoise : 1
      let value = deviation * own * noise.next() + perUnit * shared[column]
      row.storeBytes(
        of: value.bitPattern.littleEndian, toByteOffset: column * 4, as: UInt32.self)
    }
    random = noise.random
  }

  /// Writes the embedding of a token, [hidden].
  func embed(
    into values: UnsafeMutableBufferPointer<Float>, topic: Xoshiro256, own: Xoshiro256
  ) {
    var topicNoise = NormalNoise(topic)
    var ownNoise = NormalNoise(own)
    let topicDeviation = Self.topicVariance.squareRoot()
    let ownDeviation = (1 - Self.topicVariance).squareRoot()
    for column in 0..<hiddenSize {
      let noise = topicDeviation * topicNoise.next() + ownDeviation * ownNoise.next()
      values[column] =
        column < sharedCount ? shared[column] + Self.sharedNoise * noise : noise
    }
  }
}

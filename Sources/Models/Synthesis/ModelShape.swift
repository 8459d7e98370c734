package import Checkpoints

/// The numbers of a model that can be synthesized, without any weights.
package struct ModelShape: Sendable, Hashable {
  /// What `stoker synth --like` calls it.
  package let name: String
  package let architecture: Architecture
  package private(set) var layerCount: Int
  /// Values of a hidden state.
  package let hiddenSize: Int
  /// Query heads.
  package let headCount: Int
  /// Key and value heads, a divisor of `headCount`.
  package let kvHeadCount: Int
  /// Values of a head.
  package let headDimension: Int
  /// Experts of each layer.
  package private(set) var expertCount: Int
  /// Experts each token is routed to.
  package let expertsPerToken: Int
  /// Rows of an expert's gate and up projections.
  package let expertFeedForwardSize: Int
  /// Tokens of the vocabulary.
  package let vocabularySize: Int
  /// Tokens of the longest context.
  package let contextLength: Int
  package let ropeBase: Float
  package let rmsEpsilon: Float
  /// The first layers, which have no experts, and rows of the gate projections of those.
  package private(set) var denseLayerCount = 0
  package private(set) var denseFeedForwardSize = 0
  /// The sizes of latent attention; `headDimension` is then that of its queries, `kvHeadCount` one.
  package private(set) var latent: LatentAttention?
  /// Groups of experts, and how many of them a token's experts come from; 0 without groups.
  package private(set) var groupCount = 0
  package private(set) var usedGroupCount = 0
  /// The positions that layers with a window see; 0 without such.
  package private(set) var slidingWindow = 0
  /// Experts that every token is sent to besides, and rows of the gate projection of all of these.
  package private(set) var sharedExpertCount = 0
  package private(set) var sharedFeedForwardSize = 0
  /// The sizes of layers with a recurrent state in place of attention: all but every fourth.
  package private(set) var linear: LinearAttention?

  /// Every shape, in the order they are listed to people.
  package static let all = [
    tiny, olmoe1B7B, qwen3A3B, qwen3A22B, mixtral8x7B, qwen15A27B, granite3B, glm45Air, ernie21B,
    gptOSS20B, deepSeekV2Lite, deepSeekV3, kimiK2, phi35MoE, qwen3Next, qwen35A3B,
  ]

  /// The shape of that name.
  /// - Throws: `SynthesisError.unknownShape`, which lists those there are.
  package static func named(_ name: String) throws(SynthesisError) -> ModelShape {
    guard let shape = all.first(where: { $0.name == name }) else {
      throw .unknownShape(found: name, known: all.map(\.name))
    }
    return shape
  }

  /// The same shape with another number of layers or experts; nil keeps the shape's own.
  /// - Throws: `SynthesisError.outOfRange`.
  package func resized(
    layers: Int? = nil, experts: Int? = nil
  ) throws(SynthesisError) -> ModelShape {
    var shape = self
    if let layers {
      let fewest = denseLayerCount + 1
      guard (fewest...Self.maximumLayerCount).contains(layers) else {
        throw .outOfRange(
          quantity: "layers", found: layers, minimum: fewest, maximum: Self.maximumLayerCount)
      }
      shape.layerCount = layers
      shape.linear = linear?.over(layers: layers)
    }
    if let experts {
      // A token needs as many different experts as it is routed to.
      guard (expertsPerToken...Self.maximumExpertCount).contains(experts) else {
        throw .outOfRange(
          quantity: "experts", found: experts, minimum: expertsPerToken,
          maximum: Self.maximumExpertCount)
      }
      shape.expertCount = experts
    }
    return shape
  }

  /// llama.cpp's limits (`LLAMA_MAX_LAYERS`, `LLAMA_MAX_EXPERTS`).
  private static let maximumLayerCount = 512
  private static let maximumExpertCount = 512

  /// The rows of the query projection: all heads' values, perhaps with gates.
  var querySize: Int {
    headCount * headDimension * (ArchitectureTraits(architecture).gatesAttention ? 2 : 1)
  }

  /// The rows of the key projection, and of the value projection.
  var keyValueSize: Int { kvHeadCount * headDimension }

  /// The columns of the output projection of attention.
  var attentionSize: Int { headCount * (latent?.valueDimension ?? headDimension) }

  /// Layers with attention.
  private var attentionLayerCount: Int { layerCount - (linear?.layers.count ?? 0) }

  /// Values that the key-value cache keeps of a position, all layers together.
  package var cachedValueCount: Int {
    attentionLayerCount * (latent?.rowSize ?? 2 * keyValueSize)
  }

  /// Values of all matrices that every token uses, but for embedding, output head and routers.
  package var denseValueCount: Int {
    let attention: Int
    if let latent {
      let queries =
        latent.queryRank.map { $0 * (hiddenSize + querySize) } ?? hiddenSize * querySize
      let heads = headCount * latent.keyValueRank * (latent.plainDimension + latent.valueDimension)
      attention = queries + heads + hiddenSize * (latent.rowSize + attentionSize)
    } else {
      attention = hiddenSize * (querySize + 2 * keyValueSize + attentionSize)
    }
    let recurrent = linear.map {
      $0.layers.count * hiddenSize * ($0.channelCount + 2 * $0.valueSize + 2 * $0.valueHeadCount)
    }
    return attentionLayerCount * attention + (recurrent ?? 0)
      + 3 * hiddenSize
      * (denseLayerCount * denseFeedForwardSize
        + (layerCount - denseLayerCount) * sharedFeedForwardSize)
  }
}

extension ModelShape {
  /// A toy of OLMoE's architecture, for tests and trials: a few megabytes.
  package static let tiny = ModelShape(
    name: "tiny", architecture: .olmoe, layerCount: 2, hiddenSize: 256, headCount: 4,
    kvHeadCount: 4, headDimension: 64, expertCount: 8, expertsPerToken: 2,
    expertFeedForwardSize: 256, vocabularySize: 512, contextLength: 512, ropeBase: 1e4,
    rmsEpsilon: 1e-5)

  /// So small that what it takes is hardly its weights: what calibration takes the rest from.
  package static let calibration = ModelShape(
    name: "calibration", architecture: .olmoe, layerCount: 4, hiddenSize: 256, headCount: 4,
    kvHeadCount: 4, headDimension: 64, expertCount: 8, expertsPerToken: 4,
    expertFeedForwardSize: 64, vocabularySize: 512, contextLength: 2048, ropeBase: 1e4,
    rmsEpsilon: 1e-5)

  /// Eight layers of OLMoE-1B-7B with fewer experts: what products come to in a model that runs, none of whose
  /// weights stay in the caches from one token to the next.
  package static let calibrationLayers = ModelShape(
    name: "calibration-layers", architecture: .olmoe, layerCount: 8, hiddenSize: 2048,
    headCount: 16, kvHeadCount: 16, headDimension: 128, expertCount: 16, expertsPerToken: 8,
    expertFeedForwardSize: 1024, vocabularySize: 512, contextLength: 512, ropeBase: 1e4,
    rmsEpsilon: 1e-5)

  /// OLMoE-1B-7B (arXiv 2409.02060).
  package static let olmoe1B7B = ModelShape(
    name: "olmoe-1b-7b", architecture: .olmoe, layerCount: 16, hiddenSize: 2048, headCount: 16,
    kvHeadCount: 16, headDimension: 128, expertCount: 64, expertsPerToken: 8,
    expertFeedForwardSize: 1024, vocabularySize: 50_304, contextLength: 4096, ropeBase: 1e4,
    rmsEpsilon: 1e-5)

  /// Qwen3-30B-A3B (arXiv 2505.09388).
  package static let qwen3A3B = ModelShape(
    name: "qwen3-30b-a3b", architecture: .qwen3moe, layerCount: 48, hiddenSize: 2048,
    headCount: 32, kvHeadCount: 4, headDimension: 128, expertCount: 128, expertsPerToken: 8,
    expertFeedForwardSize: 768, vocabularySize: 151_936, contextLength: 40_960, ropeBase: 1e6,
    rmsEpsilon: 1e-6)

  /// Qwen3-235B-A22B (arXiv 2505.09388).
  package static let qwen3A22B = ModelShape(
    name: "qwen3-235b-a22b", architecture: .qwen3moe, layerCount: 94, hiddenSize: 4096,
    headCount: 64, kvHeadCount: 4, headDimension: 128, expertCount: 128, expertsPerToken: 8,
    expertFeedForwardSize: 1536, vocabularySize: 151_936, contextLength: 40_960, ropeBase: 1e6,
    rmsEpsilon: 1e-6)

  /// Mixtral-8x7B (arXiv 2401.04088).
  package static let mixtral8x7B = ModelShape(
    name: "mixtral-8x7b", architecture: .mixtral, layerCount: 32, hiddenSize: 4096, headCount: 32,
    kvHeadCount: 8, headDimension: 128, expertCount: 8, expertsPerToken: 2,
    expertFeedForwardSize: 14_336, vocabularySize: 32_000, contextLength: 32_768, ropeBase: 1e6,
    rmsEpsilon: 1e-5)

  /// Qwen1.5-MoE-A2.7B, by its config.json.
  package static let qwen15A27B = ModelShape(
    name: "qwen1.5-moe-a2.7b", architecture: .qwen2moe, layerCount: 24, hiddenSize: 2048,
    headCount: 16, kvHeadCount: 16, headDimension: 128, expertCount: 60, expertsPerToken: 4,
    expertFeedForwardSize: 1408, vocabularySize: 151_936, contextLength: 8192, ropeBase: 1e6,
    rmsEpsilon: 1e-6, sharedExpertCount: 4, sharedFeedForwardSize: 5632)

  /// Granite-3.1-3B-A800M, by its config.json.
  package static let granite3B = ModelShape(
    name: "granite-3.1-3b-a800m", architecture: .granitemoe, layerCount: 32, hiddenSize: 1536,
    headCount: 24, kvHeadCount: 8, headDimension: 64, expertCount: 40, expertsPerToken: 8,
    expertFeedForwardSize: 512, vocabularySize: 49_155, contextLength: 131_072, ropeBase: 1e7,
    rmsEpsilon: 1e-6)

  /// GLM-4.5-Air (arXiv 2508.06471), by its config.json, without the layer that predicts a further token.
  package static let glm45Air = ModelShape(
    name: "glm-4.5-air", architecture: .glm4moe, layerCount: 46, hiddenSize: 4096, headCount: 96,
    kvHeadCount: 8, headDimension: 128, expertCount: 128, expertsPerToken: 8,
    expertFeedForwardSize: 1408, vocabularySize: 151_552, contextLength: 131_072, ropeBase: 1e6,
    rmsEpsilon: 1e-5, denseLayerCount: 1, denseFeedForwardSize: 10_944, sharedExpertCount: 1,
    sharedFeedForwardSize: 1408)

  /// ERNIE-4.5-21B-A3B, by its config.json.
  package static let ernie21B = ModelShape(
    name: "ernie-4.5-21b-a3b", architecture: .ernie, layerCount: 28, hiddenSize: 2560,
    headCount: 20, kvHeadCount: 4, headDimension: 128, expertCount: 64, expertsPerToken: 6,
    expertFeedForwardSize: 1536, vocabularySize: 103_424, contextLength: 131_072, ropeBase: 5e5,
    rmsEpsilon: 1e-5, denseLayerCount: 1, denseFeedForwardSize: 12_288, sharedExpertCount: 2,
    sharedFeedForwardSize: 3072)

  /// gpt-oss-20b (arXiv 2508.10925).
  package static let gptOSS20B = ModelShape(
    name: "gpt-oss-20b", architecture: .gptOSS, layerCount: 24, hiddenSize: 2880, headCount: 64,
    kvHeadCount: 8, headDimension: 64, expertCount: 32, expertsPerToken: 4,
    expertFeedForwardSize: 2880, vocabularySize: 201_088, contextLength: 131_072, ropeBase: 150_000,
    rmsEpsilon: 1e-5, slidingWindow: 128)

  /// DeepSeek-V2-Lite (arXiv 2405.04434).
  package static let deepSeekV2Lite = ModelShape(
    name: "deepseek-v2-lite", architecture: .deepSeek2, layerCount: 27, hiddenSize: 2048,
    headCount: 16, kvHeadCount: 1, headDimension: 192, expertCount: 64, expertsPerToken: 6,
    expertFeedForwardSize: 1408, vocabularySize: 102_400, contextLength: 163_840, ropeBase: 1e4,
    rmsEpsilon: 1e-6, denseLayerCount: 1, denseFeedForwardSize: 10_944,
    latent: LatentAttention(
      queryRank: nil, keyValueRank: 512, plainDimension: 128, rotaryDimension: 64,
      valueDimension: 128),
    sharedExpertCount: 2, sharedFeedForwardSize: 2816)

  /// DeepSeek-V3 and R1 (arXiv 2412.19437), without the layer that predicts a further token.
  package static let deepSeekV3 = ModelShape(
    name: "deepseek-v3", architecture: .deepSeek2, layerCount: 61, hiddenSize: 7168,
    headCount: 128, kvHeadCount: 1, headDimension: 192, expertCount: 256, expertsPerToken: 8,
    expertFeedForwardSize: 2048, vocabularySize: 129_280, contextLength: 163_840, ropeBase: 1e4,
    rmsEpsilon: 1e-6, denseLayerCount: 3, denseFeedForwardSize: 18_432,
    latent: LatentAttention(
      queryRank: 1536, keyValueRank: 512, plainDimension: 128, rotaryDimension: 64,
      valueDimension: 128),
    groupCount: 8, usedGroupCount: 4, sharedExpertCount: 1, sharedFeedForwardSize: 2048)

  /// Kimi-K2 (arXiv 2507.20534).
  package static let kimiK2 = ModelShape(
    name: "kimi-k2", architecture: .deepSeek2, layerCount: 61, hiddenSize: 7168, headCount: 64,
    kvHeadCount: 1, headDimension: 192, expertCount: 384, expertsPerToken: 8,
    expertFeedForwardSize: 2048, vocabularySize: 163_840, contextLength: 131_072, ropeBase: 5e4,
    rmsEpsilon: 1e-6, denseLayerCount: 1, denseFeedForwardSize: 18_432,
    latent: LatentAttention(
      queryRank: 1536, keyValueRank: 512, plainDimension: 128, rotaryDimension: 64,
      valueDimension: 128),
    groupCount: 1, usedGroupCount: 1, sharedExpertCount: 1, sharedFeedForwardSize: 2048)

  /// Phi-3.5-MoE, by its config.json.
  package static let phi35MoE = ModelShape(
    name: "phi-3.5-moe", architecture: .phimoe, layerCount: 32, hiddenSize: 4096, headCount: 32,
    kvHeadCount: 8, headDimension: 128, expertCount: 16, expertsPerToken: 2,
    expertFeedForwardSize: 6400, vocabularySize: 32_064, contextLength: 131_072, ropeBase: 1e4,
    rmsEpsilon: 1e-5)

  /// Qwen3-Next-80B-A3B, by its config.json.
  package static let qwen3Next = ModelShape(
    name: "qwen3-next-80b-a3b", architecture: .qwen3next, layerCount: 48, hiddenSize: 2048,
    headCount: 16, kvHeadCount: 2, headDimension: 256, expertCount: 512, expertsPerToken: 10,
    expertFeedForwardSize: 512, vocabularySize: 151_936, contextLength: 262_144, ropeBase: 1e7,
    rmsEpsilon: 1e-6, sharedExpertCount: 1, sharedFeedForwardSize: 512,
    linear: .qwen(tiles: false).over(layers: 48))

  /// Qwen3.5-35B-A3B, by its config.json.
  package static let qwen35A3B = ModelShape(
    name: "qwen3.5-35b-a3b", architecture: .qwen35moe, layerCount: 40, hiddenSize: 2048,
    headCount: 16, kvHeadCount: 2, headDimension: 256, expertCount: 256, expertsPerToken: 8,
    expertFeedForwardSize: 512, vocabularySize: 248_320, contextLength: 262_144, ropeBase: 1e7,
    rmsEpsilon: 1e-6, sharedExpertCount: 1, sharedFeedForwardSize: 512,
    linear: .qwen(tiles: true).over(layers: 40))
}

extension LinearAttention {
  /// As Qwen3-Next has it, and Qwen3.5 with its rates apart and its heads in turns.
  fileprivate static func qwen(tiles: Bool) -> LinearAttention {
    LinearAttention(
      keyHeadCount: 16, valueHeadCount: 32, dimension: 128, convolutionWidth: 4, layers: [],
      tilesHeads: tiles, joinsRates: !tiles)
  }

  /// The same in all layers but every fourth.
  fileprivate func over(layers: Int) -> LinearAttention {
    LinearAttention(
      keyHeadCount: keyHeadCount, valueHeadCount: valueHeadCount, dimension: dimension,
      convolutionWidth: convolutionWidth, layers: Set((0..<layers).filter { ($0 + 1) % 4 != 0 }),
      tilesHeads: tilesHeads, joinsRates: joinsRates)
  }
}

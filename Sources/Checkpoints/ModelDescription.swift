internal import Glibc
package import Tensors

/// The numbers of a model, as its checkpoint's metadata states them.
package struct ModelDescription: Sendable, Equatable {
  /// `general.architecture`.
  package let architecture: Architecture
  /// `general.name`, or the architecture's name without one.
  package let name: String
  /// Layers, each of attention and either experts or one network for all tokens.
  package let layerCount: Int
  /// The first of them, which have no experts.
  package let denseLayerCount: Int
  /// Rows of the gate and up projections of those.
  package let denseFeedForwardSize: Int
  /// Values of a hidden state.
  package let hiddenSize: Int
  /// Tokens of the vocabulary.
  package let vocabularySize: Int
  /// Query heads.
  package let headCount: Int
  /// Key and value heads; each serves `headCount / kvHeadCount` query heads.
  package let kvHeadCount: Int
  /// Values of a head's query.
  package let headDimension: Int
  /// The sizes of latent attention; nil: keys and values are kept as they are.
  package let latent: LatentAttention?
  /// The first of them, which are rotated, and which of those go together.
  package let rotaryDimension: Int
  package let rotaryPairs: RotaryPairs
  /// Routed experts of a layer.
  package let expertCount: Int
  /// Experts each token is routed to.
  package var expertsPerToken: Int
  /// Rows of an expert's gate and up projections.
  package let expertFeedForwardSize: Int
  /// The same of the expert that every token is sent to besides; 0 without one.
  package let sharedFeedForwardSize: Int
  /// Whether a sigmoid of a product with the input weighs that expert.
  package let gatesSharedExpert: Bool
  /// How scores become the choice of experts.
  package let router: RouterRule
  /// Tokens of the longest context the model was made for.
  package let contextLength: Int
  /// The base of the rotary frequencies.
  package let ropeBase: Float
  /// How rotary angles are changed for long contexts.
  package let ropeScaling: RopeScaling
  /// Added to the mean square in every RMS norm.
  package let rmsEpsilon: Float
  /// The absolute value to which queries, keys and values are clamped, if any.
  package let qkvClamp: Float?
  /// What the norm of queries and keys runs over; nil without one.
  package let queryKeyNorm: QueryKeyNorm?
  /// Whether queries, keys and values have biases.
  package let hasProjectionBias: Bool
  /// Whether the output projection of attention has a bias, and the one to the vocabulary.
  package let hasOutputBias: Bool
  package let hasHeadBias: Bool
  /// Whether the router and the experts have biases.
  package let hasExpertBiases: Bool
  /// What states are normalised by.
  package let stateNorm: StateNorm
  /// Whether each head's query is followed by a gate for what attention gives.
  package let gatesAttention: Bool
  /// The sizes of layers with a recurrent state in place of attention; nil where there are none.
  package let linear: LinearAttention?
  /// Whether each head has a score without a value.
  package let hasSinks: Bool
  /// The positions that every other layer sees, from the first on; nil where all see all.
  package let slidingWindow: Int?
  /// What the gate and up products of experts become.
  package let activation: GatedActivation
  /// The tensor of a layer that is the norm before its experts.
  package let feedForwardNorm: String
  /// What products of queries and keys are multiplied by.
  package let attentionScale: Float
  /// What embeddings, and what a layer's halves add to the residual stream, are multiplied by, and logits
  /// divided by.
  package let embeddingScale: Float
  package let residualScale: Float
  package let logitScale: Float
  /// Whether the output projection is the token embedding.
  package let tiedOutput: Bool
  /// The blocks that have a scale, where weights may be 8-bit floats.
  package let weightBlock: WeightBlock?
  /// What vectors are stored otherwise than they are used.
  package let valueChanges: [ValueChange]

  /// Reads and checks the description of the model in `checkpoint`.
  /// - Throws: `CheckpointError` naming the key and what it holds, if the architecture or one of
  ///   its features is not supported or a number makes no sense.
  package init(_ checkpoint: Checkpoint) throws(CheckpointError) {
    let architectureName = try checkpoint.string("general.architecture")
    guard let architecture = Architecture(rawValue: architectureName) else {
      throw .unsupportedArchitecture(
        path: checkpoint.path, found: architectureName,
        supported: Architecture.allCases.map(\.rawValue))
    }
    let keys = ArchitectureKeys(source: checkpoint, prefix: architectureName)
    let traits = ArchitectureTraits(architecture)
    try keys.refuseUnsupportedFeatures(traits)

    self.architecture = architecture
    name = try checkpoint.stringIfPresent("general.name") ?? architectureName
    layerCount = try keys.layerCount(traits)
    denseLayerCount = try keys.denseLayerCount(of: layerCount)
    denseFeedForwardSize =
      denseLayerCount == 0 ? 0 : try keys.count("feed_forward_length", maximum: 1 << 24)
    hiddenSize = try keys.count("embedding_length", maximum: 1 << 20)
    vocabularySize = try Self.vocabularySize(checkpoint, keys: keys)
    headCount = try keys.count("attention.head_count", maximum: 65_536)
    latent = traits.isLatent ? try keys.latentAttention() : nil
    kvHeadCount =
      latent != nil
      ? 1 : try keys.countIfPresent("attention.head_count_kv", maximum: headCount) ?? headCount
    guard headCount % kvHeadCount == 0 else {
      throw keys.invalid("attention.head_count_kv", "\(kvHeadCount)", "a divisor of \(headCount)")
    }
    headDimension =
      if let latent { latent.queryDimension } else {
        try Self.headDimension(keys, hiddenSize: hiddenSize, headCount: headCount)
      }
    expertCount = try keys.count("expert_count", maximum: 65_536)
    expertsPerToken = try keys.count("expert_used_count", maximum: expertCount)
    expertFeedForwardSize = try keys.expertFeedForwardSize(architecture, topK: expertsPerToken)
    sharedFeedForwardSize = try keys.sharedFeedForwardSize(
      architecture, expert: expertFeedForwardSize)
    gatesSharedExpert = traits.gatesSharedExpert
    router = try keys.routerRule(traits, firstExpertLayer: denseLayerCount, checkpoint)
    rotaryDimension =
      if let latent { latent.rotaryDimension } else {
        try keys.rotaryDimension(of: headDimension)
      }
    rotaryPairs =
      traits.permutesInGGUF && checkpoint.isAsTrained ? .halves : traits.rotaryPairs
    feedForwardNorm = traits.feedForwardNorm
    linear = traits.hasLinearLayers ? try keys.linearAttention(traits, checkpoint) : nil
    let attended = (0..<layerCount).first { [linear] in linear?.layers.contains($0) != true } ?? 0
    func has(_ part: String) -> Bool { checkpoint.tensors["blk.\(attended).\(part)"] != nil }
    hasOutputBias = traits.hasOutputBias ?? has("attn_output.bias")
    hasHeadBias = traits.mayHaveHeadBias && checkpoint.tensors["output.bias"] != nil
    hasExpertBiases = traits.hasExpertBiases
    stateNorm = traits.stateNorm
    gatesAttention = traits.gatesAttention
    hasSinks = traits.hasSinks
    contextLength = try keys.count("context_length", maximum: 1 << 30)
    slidingWindow = try keys.window(traits, contextLength: contextLength)
    activation = traits.activation
    hasProjectionBias = traits.hasProjectionBias ?? has("attn_q.bias")
    queryKeyNorm =
      traits.queryKeyNormIsOptional && !has("attn_q_norm.weight") ? nil : traits.queryKeyNorm
    func scale(_ key: String) throws(CheckpointError) -> Float? {
      traits.isScaled ? try keys.positiveIfPresent(key) : nil
    }
    embeddingScale = try scale("embedding_scale") ?? 1
    residualScale = try scale("residual_scale") ?? 1
    logitScale = try scale("logit_scale") ?? 1
    ropeBase = try keys.positiveIfPresent("rope.freq_base") ?? 10_000
    ropeScaling = try keys.ropeScaling(
      contextLength: contextLength, pairs: rotaryDimension / 2, traits,
      tensors: checkpoint.tensors)
    var temperature: Float = 1
    if case .yarn(let yarn) = ropeScaling, let multiplier = yarn.logMultiplier {
      temperature = 1 + multiplier * log(yarn.factor)
    }
    attentionScale =
      try scale("attention.scale") ?? temperature * temperature / Float(headDimension).squareRoot()
    rmsEpsilon = try keys.positive("attention.layer_norm_rms_epsilon")
    qkvClamp = try keys.positiveIfPresent("attention.clamp_kqv")
    tiedOutput = checkpoint.tensors["output.weight"] == nil
    weightBlock = try keys.weightBlock()
    let isCentred = traits.centresNorms && checkpoint.isAsTrained
    valueChanges = isCentred ? ValueChange.ofCentredNorms : []
  }

  /// How many positions a token sees in a layer, its own included; nil: all.
  package func window(ofLayer layer: Int) -> Int? {
    layer.isMultiple(of: 2) ? slidingWindow : nil
  }

  /// Layers with experts.
  package var expertLayerCount: Int { layerCount - denseLayerCount }

  /// The rows of the query projection: all heads' values, each head's perhaps with a gate.
  package var querySize: Int { headCount * queryStride }

  /// Values from one head's query to the next.
  package var queryStride: Int { headDimension * (gatesAttention ? 2 : 1) }

  /// Whether a layer has a recurrent state in place of attention.
  package func isLinear(layer: Int) -> Bool { linear?.layers.contains(layer) ?? false }

  /// The name of the matrix that takes what heads give to the state.
  package func outputTensor(ofLayer layer: Int) -> String {
    "blk.\(layer).\(isLinear(layer: layer) ? "ssm_out" : "attn_output").weight"
  }

  /// Layers with attention.
  package var attentionLayerCount: Int { layerCount - (linear?.layers.count ?? 0) }

  /// The rows of the key projection, and of the value projection.
  package var keyValueSize: Int { kvHeadCount * headDimension }

  /// What attention gives the output projection: all heads' values.
  package var attentionSize: Int { headCount * (latent?.valueDimension ?? headDimension) }

  /// The values that are kept of a key and of a value of a position, for each of `kvHeadCount` heads: of latent
  /// attention one row for both.
  package var cachedKeySize: Int { latent?.rowSize ?? headDimension }
  package var cachedValueSize: Int { latent == nil ? headDimension : 0 }

  private static func vocabularySize(
    _ checkpoint: Checkpoint, keys: ArchitectureKeys
  ) throws(CheckpointError) -> Int {
    let maximum = 1 << 24
    if let size = try keys.countIfPresent("vocab_size", maximum: maximum) { return size }
    let key = "tokenizer.ggml.tokens"
    if let tokens = try checkpoint.stringsIfPresent(key) {
      guard (1...maximum).contains(tokens.count) else {
        throw .invalidValue(
          path: checkpoint.path, key: key, found: "an array of \(tokens.count) strings",
          expected: "1 to \(maximum)")
      }
      return tokens.count
    }
    let embedding = try checkpoint.tensor("token_embd.weight")
    guard embedding.shape.count == 2, embedding.shape[1] <= maximum else {
      throw .missingKey(
        path: checkpoint.path, key: keys.name("vocab_size"),
        expected: "an integer, as 'token_embd.weight' of shape \(embedding.shape) does not tell it")
    }
    return embedding.shape[1]
  }

  private static func headDimension(
    _ keys: ArchitectureKeys, hiddenSize: Int, headCount: Int
  ) throws(CheckpointError) -> Int {
    let key = "attention.key_length"
    let dimension: Int
    if let stated = try keys.countIfPresent(key, maximum: 65_536) {
      dimension = stated
    } else {
      guard hiddenSize % headCount == 0 else {
        throw .missingKey(
          path: keys.source.path, key: keys.name(key),
          expected: "an integer, as \(headCount) heads do not divide \(hiddenSize) values")
      }
      dimension = hiddenSize / headCount
    }
    // Rotary embedding turns pairs of values.
    guard dimension % 2 == 0 else { throw keys.invalid(key, "\(dimension)", "an even number") }
    try keys.expect("attention.value_length", integer: dimension)
    return dimension
  }
}

internal import Tensors

extension Checkpoint {
  /// Checks that the checkpoint holds exactly the tensors that `model` computes with: each there,
  /// of its shape and of a type that can be computed, and none besides.
  ///
  /// A tensor that is not known (a bias, `rope_freqs.weight`) would change the output if it were
  /// used, so it is refused rather than ignored. Blocks after the last layer predict further tokens and
  /// change none: they may hold anything.
  /// - Throws: `.missingTensor`, `.wrongShape`, `.unsupportedElementType` or `.unsupportedTensor`.
  package func validateTensors(_ model: ModelDescription) throws(CheckpointError) {
    var known: Set<String> = []
    func check(_ expected: ExpectedTensor) throws(CheckpointError) {
      let found = try validate(expected.allowingScales(model))
      known.insert(expected.name)
      guard let block = model.weightBlock, found.type.hasScalesApart else { return }
      let scales = expected.scales(block)
      try validate(scales)
      known.insert(scales.name)
    }
    for expected in ExpectedTensor.outsideLayers(model) { try check(expected) }
    for layer in 0..<model.layerCount {
      for expected in ExpectedTensor.attention(layer: layer, model) { try check(expected) }
      for expected in ExpectedTensor.feedForward(layer: layer, model) { try check(expected) }
      guard layer >= model.denseLayerCount else { continue }
      for expected in ExpectedTensor.experts(layer: layer, model) { try check(expected) }
    }
    for name in tensorOrder
    where !known.contains(name) && !model.isAfterLastLayer(tensor: name) {
      throw .unsupportedTensor(path: path(of: name), tensor: name)
    }
  }

  /// Checks presence, shape and type of one tensor.
  /// - Returns: the tensor.
  @discardableResult
  func validate(_ expected: ExpectedTensor) throws(CheckpointError) -> TensorInfo {
    let info = try tensor(expected.name)
    guard info.shape == expected.shape else {
      throw .wrongShape(
        path: files[info.file].path, tensor: info.name, found: info.shape,
        expected: expected.shape)
    }
    guard expected.types.contains(info.type) else {
      throw .unsupportedElementType(
        path: files[info.file].path, tensor: info.name, found: info.type,
        supported: expected.types)
    }
    return info
  }

  private func path(of tensor: String) -> String {
    tensors[tensor].map { files[$0.file].path } ?? path
  }
}

/// A tensor that a model needs.
struct ExpectedTensor {
  let name: String
  /// In GGML's order.
  let shape: [Int]
  let types: [ElementType]

  private static let matrixTypes = ElementType.allCases.filter(\.isComputable)

  static func matrix(_ name: String, _ shape: [Int]) -> ExpectedTensor {
    ExpectedTensor(name: name, shape: shape, types: matrixTypes)
  }

  /// Norm weights and biases, which llama.cpp's converter keeps in F32 and others in the model's type.
  static func vector(_ name: String, _ count: Int) -> ExpectedTensor {
    vectors(name, [count])
  }

  static func vectors(_ name: String, _ shape: [Int]) -> ExpectedTensor {
    ExpectedTensor(name: name, shape: shape, types: [.f32, .f16, .bf16])
  }

  /// A norm of states.
  private static func norm(_ name: String, _ model: ModelDescription) -> [ExpectedTensor] {
    let weight = vector("\(name).weight", model.hiddenSize)
    return model.stateNorm == .layer
      ? [weight, vector("\(name).bias", model.hiddenSize)] : [weight]
  }

  /// The embedding, the last norm, what rotations are changed by and, unless it is tied, the output projection.
  static func outsideLayers(_ model: ModelDescription) -> [ExpectedTensor] {
    var tensors = [
      matrix("token_embd.weight", [model.hiddenSize, model.vocabularySize])
    ]
    tensors += norm("output_norm", model)
    if !model.tiedOutput {
      tensors.append(matrix("output.weight", [model.hiddenSize, model.vocabularySize]))
    }
    if model.hasHeadBias { tensors.append(vector("output.bias", model.vocabularySize)) }
    if case .factors(let factors) = model.ropeScaling {
      tensors += factors.tensorNames.map { vector($0, model.rotaryDimension / 2) }
    }
    return tensors
  }

  /// Attention of a layer, and its two norms.
  static func attention(layer: Int, _ model: ModelDescription) -> [ExpectedTensor] {
    let prefix = "blk.\(layer)"
    if let latent = model.latent { return self.latent(prefix, latent, model) }
    let norms =
      norm("\(prefix).attn_norm", model) + norm("\(prefix).\(model.feedForwardNorm)", model)
    if let linear = model.linear, linear.layers.contains(layer) {
      return norms + self.linear(prefix, linear, model)
    }
    var tensors = [
      matrix("\(prefix).attn_q.weight", [model.hiddenSize, model.querySize]),
      matrix("\(prefix).attn_k.weight", [model.hiddenSize, model.keyValueSize]),
      matrix("\(prefix).attn_v.weight", [model.hiddenSize, model.keyValueSize]),
      matrix("\(prefix).attn_output.weight", [model.attentionSize, model.hiddenSize]),
    ]
    tensors += norms
    if model.hasProjectionBias {
      tensors += [
        vector("\(prefix).attn_q.bias", model.querySize),
        vector("\(prefix).attn_k.bias", model.keyValueSize),
        vector("\(prefix).attn_v.bias", model.keyValueSize),
      ]
    }
    if model.hasOutputBias {
      tensors.append(vector("\(prefix).attn_output.bias", model.hiddenSize))
    }
    if model.hasSinks { tensors.append(vector("\(prefix).attn_sinks.weight", model.headCount)) }
    if let norm = model.queryKeyNorm {
      let sizes =
        norm == .projection
        ? (model.querySize, model.keyValueSize) : (model.headDimension, model.headDimension)
      tensors += [
        vector("\(prefix).attn_q_norm.weight", sizes.0),
        vector("\(prefix).attn_k_norm.weight", sizes.1),
      ]
    }
    return tensors
  }

  /// Latent attention of a layer, and its norms: a head's part of the compressed row's matrices after the other.
  private static func latent(
    _ prefix: String, _ latent: LatentAttention, _ model: ModelDescription
  ) -> [ExpectedTensor] {
    let rank = latent.keyValueRank
    var tensors = [
      vector("\(prefix).attn_norm.weight", model.hiddenSize),
      matrix("\(prefix).attn_kv_a_mqa.weight", [model.hiddenSize, latent.rowSize]),
      vector("\(prefix).attn_kv_a_norm.weight", rank),
      matrix("\(prefix).attn_k_b.weight", [latent.plainDimension, rank, model.headCount]),
      matrix("\(prefix).attn_v_b.weight", [rank, latent.valueDimension, model.headCount]),
      matrix("\(prefix).attn_output.weight", [model.attentionSize, model.hiddenSize]),
      vector("\(prefix).\(model.feedForwardNorm).weight", model.hiddenSize),
    ]
    guard let queryRank = latent.queryRank else {
      return tensors + [matrix("\(prefix).attn_q.weight", [model.hiddenSize, model.querySize])]
    }
    tensors += [
      matrix("\(prefix).attn_q_a.weight", [model.hiddenSize, queryRank]),
      vector("\(prefix).attn_q_a_norm.weight", queryRank),
      matrix("\(prefix).attn_q_b.weight", [queryRank, model.querySize]),
    ]
    return tensors
  }

  /// What a layer has for all tokens after its attention: router and shared expert, or one network.
  static func feedForward(layer: Int, _ model: ModelDescription) -> [ExpectedTensor] {
    let prefix = "blk.\(layer)"
    guard layer >= model.denseLayerCount else {
      return network("\(prefix).ffn_", "", model, size: model.denseFeedForwardSize)
    }
    var tensors = [
      matrix("\(prefix).ffn_gate_inp.weight", [model.hiddenSize, model.expertCount])
    ]
    if model.hasExpertBiases {
      let inner = [model.expertFeedForwardSize, model.expertCount]
      tensors += [
        vector("\(prefix).ffn_gate_inp.bias", model.expertCount),
        vectors("\(prefix).ffn_gate_exps.bias", inner),
        vectors("\(prefix).ffn_up_exps.bias", inner),
        vectors("\(prefix).ffn_down_exps.bias", [model.hiddenSize, model.expertCount]),
      ]
    }
    if model.router.hasCorrection {
      tensors.append(vector("\(prefix).exp_probs_b.bias", model.expertCount))
    }
    guard model.sharedFeedForwardSize > 0 else { return tensors }
    if model.gatesSharedExpert {
      tensors.append(vector("\(prefix).ffn_gate_inp_shexp.weight", model.hiddenSize))
    }
    return tensors
      + network("\(prefix).ffn_", "_shexp", model, size: model.sharedFeedForwardSize)
  }

  private static func network(
    _ prefix: String, _ suffix: String, _ model: ModelDescription, size: Int
  ) -> [ExpectedTensor] {
    [
      matrix("\(prefix)gate\(suffix).weight", [model.hiddenSize, size]),
      matrix("\(prefix)up\(suffix).weight", [model.hiddenSize, size]),
      matrix("\(prefix)down\(suffix).weight", [size, model.hiddenSize]),
    ]
  }

  /// Gate, up and down projections of a layer's experts.
  static func experts(layer: Int, _ model: ModelDescription) -> [ExpectedTensor] {
    experts(
      layer: layer,
      ExpertSize(
        hidden: model.hiddenSize, feedForward: model.expertFeedForwardSize,
        count: model.expertCount))
  }

  /// Gate, up and down projections of a layer whose experts have the given size.
  static func experts(layer: Int, _ size: ExpertSize) -> [ExpectedTensor] {
    let inner = [size.hidden, size.feedForward, size.count]
    let outer = [size.feedForward, size.hidden, size.count]
    return [
      matrix("blk.\(layer).ffn_gate_exps.weight", inner),
      matrix("blk.\(layer).ffn_up_exps.weight", inner),
      matrix("blk.\(layer).ffn_down_exps.weight", outer),
    ]
  }
}

extension ModelDescription {
  /// Whether `tensor` is of a block after the last layer.
  func isAfterLastLayer(tensor: String) -> Bool {
    let parts = tensor.split(separator: ".", maxSplits: 2)
    guard parts.count == 3, parts[0] == "blk", let block = Int(parts[1]) else { return false }
    return block >= layerCount && ArchitectureTraits(architecture).mayPredictFurther
  }
}

internal import Tensors

extension Checkpoint {
  /// Checks that the checkpoint holds exactly the tensors that `model` computes with: each there,
  /// of its shape and of a type that can be computed, and none besides.
  ///
  /// A tensor that is not known (a bias, `rope_freqs.weight`) would change the output if it were
  /// used, so it is refused rather than ignored.
  /// - Throws: `.missingTensor`, `.wrongShape`, `.unsupportedElementType` or `.unsupportedTensor`.
  package func validateTensors(_ model: ModelDescription) throws(CheckpointError) {
    var known: Set<String> = []
    func check(_ expected: ExpectedTensor) throws(CheckpointError) {
      try validate(expected)
      known.insert(expected.name)
    }
    for expected in ExpectedTensor.outsideLayers(model) { try check(expected) }
    for layer in 0..<model.layerCount {
      for expected in ExpectedTensor.dense(layer: layer, model) { try check(expected) }
      for expected in ExpectedTensor.experts(layer: layer, model) { try check(expected) }
    }
    for name in tensorOrder where !known.contains(name) {
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

  private static func matrix(_ name: String, _ shape: [Int]) -> ExpectedTensor {
    ExpectedTensor(name: name, shape: shape, types: matrixTypes)
  }

  /// Norm weights, which every converter keeps in F32.
  private static func vector(_ name: String, _ count: Int) -> ExpectedTensor {
    ExpectedTensor(name: name, shape: [count], types: [.f32])
  }

  /// The embedding, the last norm and, unless it is tied, the output projection.
  static func outsideLayers(_ model: ModelDescription) -> [ExpectedTensor] {
    var tensors = [
      matrix("token_embd.weight", [model.hiddenSize, model.vocabularySize]),
      vector("output_norm.weight", model.hiddenSize),
    ]
    if !model.tiedOutput {
      tensors.append(matrix("output.weight", [model.hiddenSize, model.vocabularySize]))
    }
    return tensors
  }

  /// Attention, norms and router of a layer.
  static func dense(layer: Int, _ model: ModelDescription) -> [ExpectedTensor] {
    let prefix = "blk.\(layer)"
    let (queryNormSize, keyNormSize) =
      switch model.queryKeyNorm {
      case .projection: (model.querySize, model.keyValueSize)
      case .head: (model.headDimension, model.headDimension)
      }
    return [
      vector("\(prefix).attn_norm.weight", model.hiddenSize),
      matrix("\(prefix).attn_q.weight", [model.hiddenSize, model.querySize]),
      matrix("\(prefix).attn_k.weight", [model.hiddenSize, model.keyValueSize]),
      matrix("\(prefix).attn_v.weight", [model.hiddenSize, model.keyValueSize]),
      matrix("\(prefix).attn_output.weight", [model.querySize, model.hiddenSize]),
      vector("\(prefix).attn_q_norm.weight", queryNormSize),
      vector("\(prefix).attn_k_norm.weight", keyNormSize),
      vector("\(prefix).ffn_norm.weight", model.hiddenSize),
      matrix("\(prefix).ffn_gate_inp.weight", [model.hiddenSize, model.expertCount]),
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

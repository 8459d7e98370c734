package import Tensors

/// The form of the experts of one layer: three matrices, and the bytes of each for one expert.
package struct ExpertShape: Sendable, Hashable {
  /// Values of a hidden state: columns of gate and up, rows of down.
  package let hidden: Int
  /// Rows of gate and up, columns of down.
  package let feedForward: Int
  /// The type of the gate matrix.
  package let gateType: ElementType
  /// The type of the up matrix.
  package let upType: ElementType
  /// The type of the down matrix.
  package let downType: ElementType
  /// The bytes of one expert's gate matrix.
  package let gateByteCount: Int
  /// The bytes of one expert's up matrix.
  package let upByteCount: Int
  /// The bytes of one expert's down matrix.
  package let downByteCount: Int

  /// The bytes of one expert.
  package var byteCount: Int { gateByteCount + upByteCount + downByteCount }

  package init(
    hidden: Int, feedForward: Int, gateType: ElementType, upType: ElementType,
    downType: ElementType, gateByteCount: Int, upByteCount: Int, downByteCount: Int
  ) {
    self.hidden = hidden
    self.feedForward = feedForward
    self.gateType = gateType
    self.upType = upType
    self.downType = downType
    self.gateByteCount = gateByteCount
    self.upByteCount = upByteCount
    self.downByteCount = downByteCount
  }
}

/// Where one matrix of one expert lies.
package struct ExpertSlice: Sendable, Hashable {
  /// An index into `Checkpoint.files`.
  package let file: Int
  /// The first byte, from the beginning of the file.
  package let offset: UInt64
  /// The bytes of the matrix.
  package let byteCount: Int

  package init(file: Int, offset: UInt64, byteCount: Int) {
    self.file = file
    self.offset = offset
    self.byteCount = byteCount
  }
}

/// Where the three matrices of one expert lie.
package struct ExpertSlices: Sendable, Hashable {
  /// Gate, [hidden, feed-forward] in GGML's order.
  package let gate: ExpertSlice
  /// Up, of the shape of gate.
  package let up: ExpertSlice
  /// Down, [feed-forward, hidden] in GGML's order.
  package let down: ExpertSlice

  /// Gate, up and down.
  var all: [ExpertSlice] { [gate, up, down] }

  package init(gate: ExpertSlice, up: ExpertSlice, down: ExpertSlice) {
    self.gate = gate
    self.up = up
    self.down = down
  }
}

/// Where the bytes of each expert lie in a checkpoint: one after the other in three tensors of a layer, gate,
/// up and down, or each anywhere.
package struct ExpertLayout: Sendable {
  /// The block of the checkpoint, the N of `blk.N`, that each layer is, ascending.
  package let blocks: [Int]
  /// The form of each layer's experts; types may differ by layer, sizes do not.
  package let shapes: [ExpertShape]
  /// Values of a hidden state.
  package let hiddenSize: Int
  /// Rows of gate and up, columns of down.
  package let feedForwardSize: Int
  /// Experts of each layer.
  package let expertCount: Int
  /// All tensors of the layers and outside them that hold no expert, by file and offset.
  package let denseTensors: [TensorInfo]
  /// The experts of each layer, [layers][experts].
  private let experts: [[ExpertSlices]]

  /// Lays out every layer of `model`.
  /// - Throws: `.missingTensor`, `.wrongShape` or `.unsupportedElementType`.
  package init(_ checkpoint: Checkpoint, model: ModelDescription) throws(CheckpointError) {
    try self.init(
      checkpoint, blocks: Array(model.denseLayerCount..<model.layerCount),
      size: ExpertSize(
        hidden: model.hiddenSize, feedForward: model.expertFeedForwardSize,
        count: model.expertCount), model: model)
  }

  /// A layout of experts that are in no checkpoint.
  ///
  /// - Parameters:
  ///   - shape: the form of every layer's experts.
  ///   - experts: where each lies, [layers][experts].
  package init(shape: ExpertShape, experts: [[ExpertSlices]]) {
    blocks = Array(experts.indices)
    shapes = experts.map { _ in shape }
    hiddenSize = shape.hidden
    feedForwardSize = shape.feedForward
    expertCount = experts[0].count
    denseTensors = []
    self.experts = experts
  }

  /// Lays out the given blocks, whose experts all have the same size.
  init(
    _ checkpoint: Checkpoint, blocks: [Int], size: ExpertSize, model: ModelDescription? = nil
  ) throws(CheckpointError) {
    var shapes: [ExpertShape] = []
    var experts: [[ExpertSlices]] = []
    var expertNames: Set<String> = []
    for block in blocks {
      var infos: [TensorInfo] = []
      for expected in ExpectedTensor.experts(layer: block, size) {
        infos.append(
          try checkpoint.validate(model.map(expected.allowingScales) ?? expected))
        expertNames.insert(expected.name)
      }
      let slices = infos.map { info in
        checkpoint.stacks[info.name] ?? Self.consecutive(info, count: size.count)
      }
      shapes.append(
        ExpertShape(
          hidden: size.hidden, feedForward: size.feedForward,
          gateType: infos[0].type, upType: infos[1].type, downType: infos[2].type,
          gateByteCount: slices[0][0].byteCount, upByteCount: slices[1][0].byteCount,
          downByteCount: slices[2][0].byteCount))
      experts.append(
        (0..<size.count).map { expert in
          // In turn from all drives that have it; neighbouring layers begin with different ones.
          func slice(_ matrix: Int) -> ExpertSlice {
            let slice = slices[matrix][expert]
            return ExpertSlice(
              file: checkpoint.copy(experts.count + expert, of: slice.file), offset: slice.offset,
              byteCount: slice.byteCount)
          }
          return ExpertSlices(gate: slice(0), up: slice(1), down: slice(2))
        })
    }
    self.blocks = blocks
    self.shapes = shapes
    self.experts = experts
    hiddenSize = size.hidden
    feedForwardSize = size.feedForward
    expertCount = size.count
    denseTensors = checkpoint.tensorOrder.compactMap { name in
      expertNames.contains(name) || model?.isAfterLastLayer(tensor: name) == true
        ? nil : checkpoint.tensors[name]
    }
  }

  /// Layers of the model.
  package var layerCount: Int { shapes.count }

  /// The form of the experts of `layer`.
  package func shape(layer: Int) -> ExpertShape { shapes[layer] }

  /// The experts of a stack that lies in one piece. An expert is whole rows, so they divide it evenly, and
  /// the tensor's bytes were checked to lie in the file.
  private static func consecutive(_ stack: TensorInfo, count: Int) -> [ExpertSlice] {
    let byteCount = stack.byteCount / count
    return (0..<count).map { expert in
      ExpertSlice(
        file: stack.file, offset: stack.offset + UInt64(byteCount) * UInt64(expert),
        byteCount: byteCount)
    }
  }

  /// Where expert `expert` of `layer` lies; both must be within the model.
  package func slices(layer: Int, expert: Int) -> ExpertSlices {
    precondition((0..<expertCount).contains(expert), "expert \(expert) of \(expertCount)")
    return experts[layer][expert]
  }

  /// The bytes of all experts of `layer`.
  package func byteCount(layer: Int) -> Int { shapes[layer].byteCount * expertCount }

  /// The bytes of all experts. They lie apart in files, so the sum cannot exceed their sizes.
  package var totalExpertByteCount: Int {
    (0..<layerCount).reduce(0) { $0 + byteCount(layer: $1) }
  }

  /// The bytes of all tensors that hold no expert.
  package var denseByteCount: Int { denseTensors.reduce(0) { $0 + $1.byteCount } }
}

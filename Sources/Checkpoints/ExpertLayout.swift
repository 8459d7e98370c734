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
}

/// Where one matrix of one expert lies.
package struct ExpertSlice: Sendable, Hashable {
  /// An index into `Checkpoint.files`.
  package let file: Int
  /// The first byte, from the beginning of the file.
  package let offset: UInt64
  /// The bytes of the matrix.
  package let byteCount: Int
}

/// Where the three matrices of one expert lie.
package struct ExpertSlices: Sendable, Hashable {
  /// Gate, [hidden, feed-forward] in GGML's order.
  package let gate: ExpertSlice
  /// Up, of the shape of gate.
  package let up: ExpertSlice
  /// Down, [feed-forward, hidden] in GGML's order.
  package let down: ExpertSlice
}

/// Where the bytes of each expert lie in a checkpoint that keeps a layer's experts in three
/// tensors, gate, up and down, with the expert as the slowest dimension.
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
  /// All tensors that hold no expert, by file and offset.
  package let denseTensors: [TensorInfo]
  /// The first expert of each layer.
  private let first: [ExpertSlices]

  /// Lays out every layer of `model`.
  /// - Throws: `.missingTensor`, `.wrongShape` or `.unsupportedElementType`.
  package init(_ checkpoint: Checkpoint, model: ModelDescription) throws(CheckpointError) {
    try self.init(
      checkpoint, blocks: Array(0..<model.layerCount),
      size: ExpertSize(
        hidden: model.hiddenSize, feedForward: model.expertFeedForwardSize,
        count: model.expertCount))
  }

  /// Lays out the given blocks, whose experts all have the same size.
  init(
    _ checkpoint: Checkpoint, blocks: [Int], size: ExpertSize
  ) throws(CheckpointError) {
    var shapes: [ExpertShape] = []
    var first: [ExpertSlices] = []
    var expertNames: Set<String> = []
    for block in blocks {
      var infos: [TensorInfo] = []
      for expected in ExpectedTensor.experts(layer: block, size) {
        infos.append(try checkpoint.validate(expected))
        expertNames.insert(expected.name)
      }
      // An expert is whole rows, so the experts divide the tensor evenly.
      let slices = infos.map { info in
        ExpertSlice(file: info.file, offset: info.offset, byteCount: info.byteCount / size.count)
      }
      shapes.append(
        ExpertShape(
          hidden: size.hidden, feedForward: size.feedForward,
          gateType: infos[0].type, upType: infos[1].type, downType: infos[2].type,
          gateByteCount: slices[0].byteCount, upByteCount: slices[1].byteCount,
          downByteCount: slices[2].byteCount))
      first.append(ExpertSlices(gate: slices[0], up: slices[1], down: slices[2]))
    }
    self.blocks = blocks
    self.shapes = shapes
    self.first = first
    hiddenSize = size.hidden
    feedForwardSize = size.feedForward
    expertCount = size.count
    denseTensors = checkpoint.tensorOrder.compactMap { name in
      expertNames.contains(name) ? nil : checkpoint.tensors[name]
    }
  }

  /// Layers of the model.
  package var layerCount: Int { shapes.count }

  /// The form of the experts of `layer`.
  package func shape(layer: Int) -> ExpertShape { shapes[layer] }

  /// Where expert `expert` of `layer` lies; both must be within the model.
  package func slices(layer: Int, expert: Int) -> ExpertSlices {
    precondition((0..<expertCount).contains(expert), "expert \(expert) of \(expertCount)")
    func slice(_ first: ExpertSlice) -> ExpertSlice {
      // Within the tensor, whose bytes were checked to lie in the file.
      ExpertSlice(
        file: first.file, offset: first.offset + UInt64(first.byteCount) * UInt64(expert),
        byteCount: first.byteCount)
    }
    let layerFirst = first[layer]
    return ExpertSlices(
      gate: slice(layerFirst.gate), up: slice(layerFirst.up), down: slice(layerFirst.down))
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

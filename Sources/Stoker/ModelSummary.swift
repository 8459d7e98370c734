internal import Checkpoints
internal import Models
internal import Tensors

/// What a checkpoint holds and needs: the answer of `stoker inspect`.
public struct ModelSummary: Hashable, Sendable, Codable {
  /// A run of neighbouring layers whose experts are alike.
  public struct ExpertGroup: Hashable, Sendable, Codable {
    public let firstLayer: Int
    public var lastLayer: Int
    public let gateType: String
    public let upType: String
    public let downType: String
    /// Bytes of one expert.
    public let byteCount: Int
  }

  public let path: String
  public let fileByteCount: UInt64
  public let files: Int
  /// Copies of them on other drives.
  public let copies: Int
  public let architecture: String
  public let name: String?
  public let layers: Int
  public let hiddenSize: Int
  public let heads: Int
  public let keyValueHeads: Int
  public let headDimension: Int
  public let experts: Int
  public let expertsPerToken: Int
  public let expertFeedForwardSize: Int
  /// Rows of the gate projections that every token goes through besides, at a layer with experts and at one
  /// without; 0 where there is none. The first layers are without.
  public let sharedFeedForwardSize: Int
  public let denseLayers: Int
  public let denseFeedForwardSize: Int
  public let vocabulary: Int
  public let contextLength: Int
  public let expertGroups: [ExpertGroup]
  public let expertBytes: Int
  public let denseBytes: Int
  /// Bytes of weights that decoding one token reads: of the experts chosen, of the dense tensors,
  /// and of the embedding, unless it is the output head too, one row.
  public let activeBytesPerToken: Int
  public let keyValueBytesPerToken: Int
  /// Layers with a recurrent state in place of attention, and the bytes of all of them; 0 without such.
  public let recurrentLayers: Int
  public let recurrentStateBytes: Int
  /// The context the two budgets below are for.
  public let context: Int
  public let minimumBudget: Int
  public let fullBudget: Int
  /// How fast the experts can be read, where that has been measured.
  public var disk: DiskMeasurement?
}

extension ModelFile {
  /// Describes the checkpoint, and the budgets of a run with `options`.
  public func summary(_ options: ModelOptions = ModelOptions()) throws -> ModelSummary {
    let shape = try shape(options)
    let needs = try requirements(options)
    var groups: [ModelSummary.ExpertGroup] = []
    for layer in 0..<layout.layerCount {
      let experts = layout.shape(layer: layer)
      let group = ModelSummary.ExpertGroup(
        firstLayer: layout.blocks[layer], lastLayer: layout.blocks[layer],
        gateType: experts.gateType.name,
        upType: experts.upType.name, downType: experts.downType.name,
        byteCount: experts.byteCount)
      if let last = groups.last, last.gateType == group.gateType, last.upType == group.upType,
        last.downType == group.downType
      {
        groups[groups.count - 1].lastLayer = layout.blocks[layer]
      } else {
        groups.append(group)
      }
    }
    let activeExperts = (0..<layout.layerCount).reduce(0) {
      $0 + layout.shape(layer: $1).byteCount * description.expertsPerToken
    }
    return ModelSummary(
      path: path, fileByteCount: UInt64(byteCount),
      files: fileCount, copies: checkpointFiles.count - fileCount,
      architecture: description.architecture.rawValue,
      name: description.name, layers: description.layerCount, hiddenSize: description.hiddenSize,
      heads: description.headCount, keyValueHeads: description.kvHeadCount,
      headDimension: description.headDimension, experts: description.expertCount,
      expertsPerToken: description.expertsPerToken,
      expertFeedForwardSize: description.expertFeedForwardSize,
      sharedFeedForwardSize: description.sharedFeedForwardSize,
      denseLayers: description.denseLayerCount,
      denseFeedForwardSize: description.denseFeedForwardSize,
      vocabulary: description.vocabularySize, contextLength: description.contextLength,
      expertGroups: groups, expertBytes: layout.totalExpertByteCount,
      denseBytes: layout.denseByteCount,
      activeBytesPerToken: activeExperts + layout.denseByteCount - unreadEmbeddingByteCount,
      keyValueBytesPerToken: KeyValueCache.byteCount(
        description, capacity: 1, type: shape.keyValueType),
      recurrentLayers: description.layerCount - description.attentionLayerCount,
      recurrentStateBytes: RecurrentState.byteCount(description),
      context: shape.context, minimumBudget: needs.minimumBudget, fullBudget: needs.fullBudget)
  }

  /// The bytes of the embedding that decoding one token does not read.
  private var unreadEmbeddingByteCount: Int {
    guard !description.tiedOutput,
      let embedding = layout.denseTensors.first(where: { $0.name == "token_embd.weight" })
    else { return 0 }
    return embedding.byteCount / description.vocabularySize * (description.vocabularySize - 1)
  }
}

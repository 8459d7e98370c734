internal import Checkpoints
internal import Models
internal import Placement
internal import Tensors

/// The numbers of a model that is planned for without a file of it. As JSON it has the names of its
/// properties in snake case.
public struct PlanShape: Hashable, Sendable, Codable {
  public var name: String
  public var layers: Int
  public var hiddenSize: Int
  /// Query heads, key and value heads, and values of a head.
  public var heads: Int
  public var keyValueHeads: Int
  public var headDimension: Int
  public var experts: Int
  public var expertsPerToken: Int
  /// Rows of an expert's gate matrix.
  public var expertFeedForwardSize: Int
  public var vocabulary: Int
  /// Rows of the gate matrix of what every token uses beside its experts at a layer; nil or 0: nothing.
  public var sharedFeedForwardSize: Int?
  /// Values of all matrices that every token uses, but for embedding, output head and routers, all layers
  /// together; nil: of attention as the heads say, and what is beside the experts.
  public var denseValues: Int?
  /// Bytes that a position takes in the key-value cache, all layers together; nil: those of keys and values
  /// in half precision.
  public var keyValueBytesPerPosition: Int?
  /// GGUF's name of the element type of all matrices.
  public var type: String

  /// The rows of the query projection.
  var attentionSize: Int { heads * headDimension }

  private var elementType: ElementType? {
    ElementType.allCases.first { $0.name.uppercased() == type.uppercased() }
  }

  /// What is not possible in the shape, in words; nil if all is.
  public var fault: String? {
    let counts = [
      ("layers", layers, 1024), ("hidden_size", hiddenSize, 1 << 20), ("heads", heads, 65_536),
      ("key_value_heads", keyValueHeads, 65_536), ("head_dimension", headDimension, 65_536),
      ("experts", experts, 4096), ("experts_per_token", expertsPerToken, 4096),
      ("expert_feed_forward_size", expertFeedForwardSize, 1 << 24),
      ("vocabulary", vocabulary, 1 << 24),
    ]
    for (name, count, most) in counts where !(1...most).contains(count) {
      return "\(name) is \(count), expected 1 to \(most)"
    }
    guard expertsPerToken <= experts else {
      return "experts_per_token is \(expertsPerToken), expected at most the \(experts) there are"
    }
    guard let elementType, Kernels.supports(elementType) else {
      let known = ElementType.allCases.filter(Kernels.supports).map(\.name)
      return "type is '\(type)', expected one of \(known.joined(separator: ", "))"
    }
    for (name, count) in [
      ("hidden_size", hiddenSize), ("expert_feed_forward_size", expertFeedForwardSize),
    ] where !count.isMultiple(of: elementType.blockSize) {
      return "\(name) is \(count), expected a multiple of \(elementType.blockSize) for \(type)"
    }
    return nil
  }

  /// The bytes of a matrix of so many values.
  private func bytes(_ values: Int) -> Int {
    guard let type = elementType else { return 0 }
    return values / type.blockSize * type.blockByteCount
  }

  var embeddingByteCount: Int { bytes(vocabulary * hiddenSize) }

  /// What the model asks of a machine; the shape is one without `fault`.
  var work: ModelWork {
    let type = elementType?.name ?? self.type
    let attention = 2 * hiddenSize * (attentionSize + keyValueHeads * headDimension)
    let shared = 3 * hiddenSize * (sharedFeedForwardSize ?? 0)
    let denseValues = denseValues ?? layers * (attention + shared)
    let matrix = ModelWork.Weights(type: type, bytes: bytes(hiddenSize * expertFeedForwardSize))
    return ModelWork(
      name: name, layers: layers, experts: experts, topK: expertsPerToken, hiddenSize: hiddenSize,
      vocabulary: vocabulary,
      dense: [
        .init(type: "F32", bytes: layers * 4 * hiddenSize * experts),
        .init(type: type, bytes: bytes(denseValues)),
      ],
      head: .init(type: type, bytes: embeddingByteCount),
      expertMatrices: Array(repeating: [matrix, matrix, matrix], count: layers),
      keyValueBytesPerPosition: keyValueBytesPerPosition
        ?? 4 * layers * keyValueHeads * headDimension,
      // Every head goes through keys and values; where they are compressed, all through the same rows, which
      // are both.
      lookBacks: [
        .init(
          bytesPerPosition: keyValueBytesPerPosition.map {
            $0 * heads / keyValueHeads * (keyValueHeads == 1 ? 2 : 1)
          } ?? 4 * layers * heads * headDimension)
      ],
      chunkTokens: ModelOptions.chunkTokenCount)
  }
}

extension PlanShape {
  /// The shapes that ship with stoker.
  public static let names = ModelShape.all.map(\.name)

  /// The shape of that name; nil if there is none.
  ///
  /// - Parameter type: GGUF's name of the element type of its matrices; nil: Q4_K, or MXFP4 where rows are not
  ///   whole blocks of that.
  public init?(named name: String, type: String? = nil) {
    let columns = ModelShape.all.first { $0.name == name }?.hiddenSize ?? 0
    let usual: ElementType = columns.isMultiple(of: ElementType.q4_K.blockSize) ? .q4_K : .mxfp4
    let type = type ?? usual.name
    guard let shape = ModelShape.all.first(where: { $0.name == name }) else { return nil }
    self.init(
      name: name, layers: shape.layerCount - shape.denseLayerCount, hiddenSize: shape.hiddenSize,
      heads: shape.headCount,
      keyValueHeads: shape.kvHeadCount, headDimension: shape.headDimension,
      experts: shape.expertCount, expertsPerToken: shape.expertsPerToken,
      expertFeedForwardSize: shape.expertFeedForwardSize, vocabulary: shape.vocabularySize,
      sharedFeedForwardSize: shape.sharedFeedForwardSize, denseValues: shape.denseValueCount,
      keyValueBytesPerPosition: 2 * shape.cachedValueCount, type: type)
  }
}

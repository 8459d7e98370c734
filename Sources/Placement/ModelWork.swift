/// What a model asks of a machine, token by token: bytes by element type, without any weights.
public struct ModelWork: Hashable, Sendable, Codable {
  /// Weights that are multiplied together.
  public struct Weights: Hashable, Sendable, Codable {
    /// GGUF's name of the element type.
    public var type: String
    public var bytes: Int

    public init(type: String, bytes: Int) {
      self.type = type
      self.bytes = bytes
    }
  }

  /// What attention of some layers goes through for each position that a token looks back on.
  public struct LookBack: Hashable, Sendable, Codable {
    /// Bytes of keys and values, for every query head: those that heads share, as often.
    public var bytesPerPosition: Int
    /// The positions that a token sees at most; nil: all.
    public var window: Int?

    public init(bytesPerPosition: Int, window: Int? = nil) {
      self.bytesPerPosition = bytesPerPosition
      self.window = window
    }
  }

  /// The model in words.
  public var name: String
  public var layers: Int
  /// Experts of a layer, and of a token at a layer.
  public var experts: Int
  public var topK: Int
  /// Values of a hidden state.
  public var hiddenSize: Int
  /// Tokens of the vocabulary.
  public var vocabulary: Int
  /// The matrices of all layers beside the experts: attention, router.
  public var dense: [Weights]
  /// The matrix of the output head.
  public var head: Weights
  /// The matrices of one expert of each layer: gate, up, down, [layers][3].
  public var expertMatrices: [[Weights]]
  /// Bytes that one position takes in the key-value cache, all layers together.
  public var keyValueBytesPerPosition: Int
  /// What attention goes through; nil: what the cache takes, once.
  public var lookBacks: [LookBack]?
  /// The tokens of a prompt that pass through the model together.
  public var chunkTokens: Int
  /// The reads of an expert: 1 where its matrices lie together, 2 where gate and up do; nil: one for each.
  public var readsPerExpert: Int?

  public init(
    name: String, layers: Int, experts: Int, topK: Int, hiddenSize: Int, vocabulary: Int,
    dense: [Weights],
    head: Weights, expertMatrices: [[Weights]], keyValueBytesPerPosition: Int,
    lookBacks: [LookBack]? = nil, chunkTokens: Int, readsPerExpert: Int? = nil
  ) {
    self.name = name
    self.layers = layers
    self.experts = experts
    self.topK = topK
    self.hiddenSize = hiddenSize
    self.vocabulary = vocabulary
    self.dense = dense
    self.head = head
    self.expertMatrices = expertMatrices
    self.keyValueBytesPerPosition = keyValueBytesPerPosition
    self.lookBacks = lookBacks
    self.chunkTokens = chunkTokens
    self.readsPerExpert = readsPerExpert
  }

  /// The bytes that one token's attention goes through to look back on `positions`, over all layers.
  public func lookBackBytes(positions: Double) -> Double {
    let parts = lookBacks ?? [LookBack(bytesPerPosition: keyValueBytesPerPosition)]
    return parts.reduce(0) {
      $0 + min(positions, $1.window.map(Double.init) ?? .infinity) * Double($1.bytesPerPosition)
    }
  }

  /// The bytes of an expert of each layer, [layers].
  public var expertByteCounts: [Int] {
    expertMatrices.map { $0.reduce(0) { $0 + $1.bytes } }
  }

  /// The bytes of an expert, over all layers' mean.
  public var meanExpertByteCount: Int { expertByteCounts.reduce(0, +) / max(1, layers) }

  /// The reads of an expert.
  public var readCount: Int { min(3, max(1, readsPerExpert ?? 3)) }

  /// The bytes of a read of an expert.
  public var meanReadByteCount: Int { max(1, meanExpertByteCount / readCount) }

  /// The bytes of all experts.
  public var totalExpertByteCount: Int { expertByteCounts.reduce(0) { $0 + $1 * experts } }

  /// The bytes of the matrices that every token uses, its output head among them.
  public var denseByteCount: Int { dense.reduce(head.bytes) { $0 + $1.bytes } }

  /// The bytes of weights that one token uses.
  public var tokenByteCount: Int {
    denseByteCount + expertByteCounts.reduce(0) { $0 + $1 * topK }
  }
}

public import DirectIO
public import Models
public import Residency
internal import Tensors

/// Whether experts are read before the router asks for them.
public enum PrefetchMode: Hashable, Sendable {
  /// As many as pay, and none while none do.
  case auto
  /// None.
  case off
  /// At most this many of a layer, even when it has not paid lately.
  case depth(Int)

  var parameters: PrefetchPlanner.Parameters {
    var parameters = PrefetchPlanner.Parameters()
    if case .depth(let count) = self {
      parameters.depth = count
      parameters.isGoverned = false
    }
    return parameters
  }
}

/// How a model is to be run. Every default is chosen for the machine at hand.
public struct ModelOptions: Sendable {
  /// Bytes that weights, key-value cache, slots, scratch and the process itself may come to; nil:
  /// what the machine has available, less a reserve.
  public var memory: Int?
  /// Bytes that the process itself is counted with; nil: what it holds when the model is made, and a
  /// margin. A host with much memory of its own gives the share it wants counted.
  public var processMemory: Int?
  /// Positions of the key-value cache; nil: the model's context, at most 4,096.
  public var context: Int?
  /// Threads that compute; nil: the processors this process may use.
  public var threads: Int?
  /// How keys and values are stored; nil: f32 where the attention weights are F32, else f16.
  public var keyValueType: KeyValueType?
  /// Which expert goes when room is needed; one that `PolicyName.canRun`.
  public var policy: PolicyName
  /// Whether experts are read before the router asks for them.
  public var prefetch: PrefetchMode
  /// How the routing is predicted; nil: by the heads fitted to the model where there are any, else
  /// corrected.
  public var predictor: PredictorKind?
  /// The folder that keeps a history of the routing of each model: a model begins with the experts that
  /// its history has as the likeliest, and `MoEModel.saveHistory` adds to it. Nil keeps none; a run that
  /// is recorded to be replayed wants that.
  public var historyFolder: String?
  /// How experts are read.
  public var io: ReadEngineKind
  /// Whether reads pass by the page cache.
  public var direct: DirectPolicy
  /// Whether the bytes of every expert that is read are compared with its checksums, which only packed files
  /// have.
  public var verifiesReads: Bool

  /// The defaults.
  public init(
    memory: Int? = nil, processMemory: Int? = nil, context: Int? = nil, threads: Int? = nil,
    keyValueType: KeyValueType? = nil, policy: PolicyName = .nextUse,
    prefetch: PrefetchMode = .auto, predictor: PredictorKind? = nil, historyFolder: String? = nil,
    io: ReadEngineKind = .auto,
    direct: DirectPolicy = .auto, verifiesReads: Bool = false
  ) {
    self.memory = memory
    self.processMemory = processMemory
    self.context = context
    self.threads = threads
    self.keyValueType = keyValueType
    self.policy = policy
    self.prefetch = prefetch
    self.predictor = predictor
    self.historyFolder = historyFolder
    self.io = io
    self.direct = direct
    self.verifiesReads = verifiesReads
  }

  /// Tokens of a prompt that pass through the model together. It does not depend on the budget.
  package static let chunkTokenCount = 512
}

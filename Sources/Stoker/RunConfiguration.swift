internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
public import Models
internal import Residency
internal import Tensors

/// How a model runs.
public struct RunConfiguration: Hashable, Sendable, Codable {
  /// The read engine, as "io_uring" or "pread".
  public let engine: String
  /// Whether reads pass by the page cache.
  public let direct: Bool
  /// Whether slots and files are registered with the ring.
  public let registeredBuffers: Bool
  public let registeredFiles: Bool
  /// Whether the system accepted huge pages for the slots.
  public let hugePages: Bool
  public let kernels: String
  public let threads: Int
  public let context: Int
  public let keyValueType: KeyValueType
  /// Slots, and experts in all.
  public internal(set) var slots: Int
  public let experts: Int
  /// The bytes that are divided into slots: what 'stoker replay --memory' is to be given for the same
  /// slots.
  public internal(set) var slotMemory: Int
  /// Which expert goes when room is needed.
  public let policy: String
  /// How the routing is predicted for prefetching; nil: nothing is read ahead.
  public internal(set) var predictor: PredictorKind?
  /// Slots for experts that are read ahead, beside those of `slots`.
  public internal(set) var stagingSlots: Int
  /// The tokens of the history that it began with, older ones counting less; nil if none is kept.
  public let historyTokens: Double?
  /// What had to be done without, and why, each once.
  public private(set) var fallbacks: [String]
}

extension RunConfiguration {
  /// Whether there is a slot for every expert.
  public var holdsEveryExpert: Bool { slots == experts }

  /// Takes over how the slots are divided now.
  mutating func note(_ plan: SlotPlan) {
    slots = plan.slotCount
    slotMemory = plan.capacity
    stagingSlots = plan.stagingSlotCount
  }

  init(
    _ shape: RunShape, engine: any ReadEngine, runtime: ExpertRuntime, slots: Arena,
    options: ModelOptions, history: HistoryFile?, fallbacks given: [String]
  ) {
    self.engine = engine.name
    direct = shape.files.allSatisfy(\.isDirect)
    registeredBuffers = engine.registeredBuffers
    registeredFiles = engine.registeredFiles
    hugePages = slots.byteCount >= Arena.hugePageByteCount && slots.hugePageRefusal == nil
    kernels = shape.kernels.set.name
    threads = shape.threadCount
    context = shape.context
    keyValueType = shape.keyValueType
    self.slots = 0
    slotMemory = 0
    stagingSlots = 0
    experts = runtime.layerCount * runtime.expertCount
    policy = options.policy.name
    predictor = runtime.canPrefetch ? shape.predictor : nil
    historyTokens = history?.history.tokens
    var fallbacks = runtime.fallbacks + given
    if case .depth(let depth) = options.prefetch, !runtime.canPrefetch, !runtime.holdsEveryExpert {
      fallbacks.append(
        "--prefetch \(depth) reads nothing ahead: staging takes \(SlotPlan.slotsPerStaged) slots or "
          + "more for each size of expert; raise --memory")
    }
    self.fallbacks = fallbacks
    note(runtime.slotPlan)
  }

  /// Adds what had to be done without since.
  /// - Returns: what is new.
  mutating func note(fallbacks found: [String]) -> [String] {
    let new = found.filter { !fallbacks.contains($0) }
    fallbacks += new
    return new
  }
}

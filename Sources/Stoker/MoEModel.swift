internal import Checkpoints
internal import DirectIO
public import ExpertRuntime
public import Logging
package import Models
internal import Residency
internal import Routing
internal import Tensors

/// A mixture-of-experts model ready to generate within a memory budget.
///
/// Its output is the same to the bit whatever the budget, the read engine and the number of
/// threads. One task at a time may use it.
public final class MoEModel {
  /// The file it was made from.
  public let file: ModelFile
  /// Every large allocation, and the budget.
  public let ledger: MemoryLedger
  /// How it runs: engine, kernels, threads, and what had to be done without.
  public private(set) var configuration: RunConfiguration
  /// Records the routing of every generation; nil records nothing.
  public var recorder: RoutingRecorder? {
    didSet {
      transformer.onState = nil
      guard let recorder else {
        transformer.onRouting = nil
        return
      }
      if recorder.predictor != nil {
        transformer.onState = { [transformer] point, layer, rows in
          recorder.take(point, layer: layer, rows: rows, of: transformer)
        }
      }
      transformer.onRouting = {
        [runtime = transformer.runtime] layer, position, phase, routing, score in
        recorder.record(
          layer: layer, position: position, phase: phase, routing: routing,
          prefetch: runtime.statistics.prefetch[layer], score: score)
      }
    }
  }
  /// What earlier runs have routed; nil if no history is kept.
  private(set) var history: HistoryFile?
  /// Where the routing of the tokens decoded last is kept; nil if no history is.
  private(set) var routingFile: RoutingFile?
  package let transformer: MoETransformer
  let pool: WorkerPool
  private let engine: any ReadEngine
  private let logger: Logger
  /// Those it was made with.
  let options: ModelOptions
  /// What the process itself is counted with, in bytes.
  let processByteCount: Int

  /// Reads the dense weights, and every expert where all fit the budget.
  ///
  /// - Parameters:
  ///   - progress: called with the bytes read so far and in all, while weights are read.
  ///   - logger: told once of every fallback.
  /// - Throws: `RuntimeError.budgetTooSmall` naming the minimum; errors that name the file or
  ///   option at fault.
  public init(
    _ file: ModelFile, options: ModelOptions = ModelOptions(), logger: Logger,
    progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) throws {
    self.file = file
    let shape = try file.shape(options)
    let requirements = shape.requirements(process: file.processByteCount(options))
    self.options = options
    self.logger = logger
    processByteCount = requirements.process
    let wanted = options.memory ?? min(Machine.defaultMemoryBudget, requirements.fullBudget)
    let tooSmall = RuntimeError.budgetTooSmall(
      budget: wanted, minimum: requirements.minimumBudget)
    guard wanted >= requirements.minimumBudget else { throw tooSmall }
    ledger = MemoryLedger(budget: wanted)
    try ledger.reserve("process", byteCount: requirements.process)
    if shape.readScratchByteCount > 0 {
      try ledger.reserve("rearranged reads", byteCount: shape.readScratchByteCount)
    }
    pool = try ExpertRuntime.makePool(threadCount: shape.threadCount)
    let plan = ExpertRuntime.slotPlan(
      geometry: shape.geometry, expertCount: shape.layout.expertCount,
      topK: shape.description.expertsPerToken, capacity: wanted - requirements.fixed,
      staging: options.prefetch != .off)
    guard let plan else { throw tooSmall }
    let (slots, weightMemory) = try ledger.allocate(
      Self.slotEntry, byteCount: plan.byteCount, before: "dense weights",
      byteCount: shape.denseByteCount)
    engine = try ExpertRuntime.makeEngine(
      options.io, files: shape.files, slots: slots, expertCount: shape.layout.expertCount)
    let weights = try DenseWeights(
      shape.layout.denseTensors, files: shape.files, engine: engine, kernels: shape.kernels,
      block: shape.description.weightBlock, changes: shape.description.valueChanges,
      into: weightMemory)
    let cache = try KeyValueCache(
      shape.description, capacity: shape.context, type: shape.keyValueType, ledger: ledger)
    let buffers = try TransformerBuffers(
      shape.description, tokenCapacity: shape.tokenCapacity, positions: shape.context,
      threadCount: shape.threadCount, kernels: shape.kernels, ledger: ledger)
    let runtime = ExpertRuntime(
      layout: shape.layout, geometry: shape.geometry, topK: shape.description.expertsPerToken,
      tokenCapacity: shape.tokenCapacity, plan: plan, policy: options.policy,
      prefetch: options.prefetch.parameters, slotMemory: slots,
      scratch: try ledger.allocate(
        "expert activations", byteCount: shape.expertScratchByteCount, isTouched: true),
      files: shape.files, engine: engine, pool: pool, kernels: shape.kernels)
    runtime.checksums = try file.checksums(options)
    transformer = MoETransformer(
      description: shape.description, weights: weights, cache: cache,
      recurrent: try RecurrentState(shape.description, ledger: ledger), runtime: runtime,
      buffers: buffers, pool: pool, kernels: shape.kernels)
    if let folder = options.historyFolder {
      let kept = HistoryFile(folder: folder, transformer: transformer)
      runtime.begin(with: kept.history)
      history = kept
      var routing = RoutingFile(folder: folder, model: file)
      runtime.recentRouting = routing.read(file.routingGeometry)
      routingFile = routing
    }
    configuration = RunConfiguration(
      shape, engine: engine, runtime: runtime, slots: slots, options: options, history: history,
      fallbacks: [history?.refusal, routingFile?.refusal].compactMap(\.self))
    if let kind = shape.predictor, runtime.canPrefetch {
      transformer.predictor = try predictor(kind, shape, ledger: ledger)
    }
    for fallback in configuration.fallbacks { logger.warning("\(fallback)") }
    if runtime.holdsEveryExpert {
      let total = shape.layout.totalExpertByteCount
      try runtime.preload { done, all in progress(total / all * done, total) }
    }
  }

  /// Tells what had to be done without while it ran.
  func noteFallbacks() {
    for fallback in configuration.note(fallbacks: transformer.runtime.fallbacks) {
      logger.warning("\(fallback)")
    }
  }

  /// Takes over how the slots are divided now, and what predicts.
  func note(_ plan: SlotPlan, predictor: PredictorKind?) {
    configuration.note(plan)
    configuration.predictor = predictor
  }

  /// Adds what this model has routed to its history, for the next one to begin with, and keeps the routing
  /// of the latest tokens for plans; does nothing if no history is kept or nothing was routed.
  ///
  /// The files are replaced as a whole: one that is read meanwhile is the old or the new one.
  /// - Throws: an error that names the file or its folder, if it cannot be written.
  public func saveHistory() throws {
    var session = transformer.runtime.history
    session.residents = transformer.runtime.residentExperts
    guard let history, session.tokens > 0 else { return }
    try history.save(session)
    if let routing = transformer.runtime.recentRouting, routing.tokenCount > 0 {
      try routingFile?.write(routing, model: traceName)
    }
  }

  /// Fills the slots that are free with the experts that the model's history has as the likeliest, for a
  /// host that waits for its first request; while tokens are decoded, the idle disk does.
  ///
  /// - Parameter isCancelled: asked before every read.
  public func fillFreeSlots(isCancelled: () -> Bool = { false }) {
    transformer.runtime.fillFreeSlots(isCancelled: isCancelled)
  }

  /// A predictor beside the model's own, in memory beside its budget: by the fitted heads where there
  /// are any, else corrected.
  func makePredictor() throws -> RouterPredictor {
    let shape = try file.shape(ModelOptions(context: transformer.cache.capacity))
    return try predictor(
      shape.heads == nil ? .corrected : .fitted, shape, ledger: MemoryLedger(budget: .max))
  }

  /// A predictor of the model's routing.
  /// - Throws: an error that names the file of the fitted heads, if they are not the model's.
  func predictor(
    _ kind: PredictorKind, _ shape: RunShape, ledger: MemoryLedger
  ) throws -> RouterPredictor {
    var heads: PredictorHeads?
    if kind == .fitted, let fitted = shape.heads {
      try fitted.file.validate(shape.description, routers: transformer.routerFingerprint)
      heads = try PredictorHeads(
        fitted.file, data: fitted.data, layerCount: shape.description.expertLayerCount,
        kernels: shape.kernels, ledger: ledger)
    }
    return try RouterPredictor(
      kind, heads: heads, model: shape.description, kernels: shape.kernels, pool: pool,
      ledger: ledger)
  }

  /// Checks that ids are in the vocabulary and fit the context with `extra` more positions.
  func validate(_ tokens: [Int32], extra: Int) throws {
    guard !tokens.isEmpty else { throw StokerError.emptyPrompt }
    try checkVocabulary(of: tokens)
    let (needed, overflow) = tokens.count.addingReportingOverflow(extra)
    guard !overflow, needed <= transformer.cache.capacity else {
      throw StokerError.contextExceeded(
        needed: overflow ? .max : needed, context: transformer.cache.capacity,
        maximum: transformer.description.contextLength)
    }
  }

  /// - Throws: `StokerError.unknownToken` for the first id outside the vocabulary.
  func checkVocabulary(of tokens: [Int32]) throws {
    let vocabulary = transformer.description.vocabularySize
    for token in tokens where !(0..<Int32(vocabulary)).contains(token) {
      throw StokerError.unknownToken(id: Int(token), vocabulary: vocabulary)
    }
  }

  /// Runs `tokens` from `position` on in chunks; stops between chunks when `isCancelled` says so.
  /// - Returns: whether all were run.
  func prefill(
    _ tokens: ArraySlice<Int32>, at position: Int, logits: MoETransformer.Logits,
    isCancelled: () -> Bool, _ body: (Int, UnsafeMutableBufferPointer<Float>) throws -> Void
  ) throws -> Bool {
    var done = 0
    while done < tokens.count {
      if isCancelled() { return false }
      let count = min(transformer.runtime.tokenCapacity, tokens.count - done)
      let isLast = done + count == tokens.count
      let chunk = Array(tokens.dropFirst(done).prefix(count))
      var failure: (any Error)?
      try transformer.forward(
        chunk.span, at: position + done, phase: .prefill,
        logits: logits == .last && !isLast ? .none : logits
      ) { index, row in
        guard failure == nil else { return }
        do { try body(done + index, row) } catch { failure = error }
      }
      if let failure { throw failure }
      done += count
    }
    return true
  }
}

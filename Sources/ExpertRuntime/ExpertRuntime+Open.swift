internal import Checkpoints
public import DirectIO
internal import Glibc
internal import Residency
internal import Tensors

extension ExpertRuntime {
  /// Opens the experts of a GGUF checkpoint of any architecture, for a model that computes
  /// attention, norms and routers itself.
  ///
  /// Every block with the tensors `blk.N.ffn_{gate,up,down}_exps.weight` is a layer, counted from 0
  /// in the order of N; `blocks` gives the N of each. Experts are SwiGLU: down(silu(gate(x)) *
  /// up(x)), without biases. Where all experts fit the budget, all are read here.
  ///
  /// - Parameters:
  ///   - path: the file; of a split checkpoint, any of its files.
  ///   - memory: bytes that slots and working memory may come to; nil: room for every expert.
  ///   - topK: experts of a token; nil: what the checkpoint states.
  ///   - tokenCapacity: the most tokens of one call, 1 to 65,536.
  ///   - threads: threads that compute, the caller's included, 1 to 256.
  ///   - io: how experts are read.
  ///   - direct: whether reads pass by the page cache.
  /// - Throws: `RuntimeError.budgetTooSmall` naming the minimum, `RuntimeError.argument`; errors
  ///   that name the file and the key or tensor at fault.
  public static func open(
    _ path: String, memory: Int? = nil, topK: Int? = nil, tokenCapacity: Int, threads: Int,
    io: ReadEngineKind = .auto, direct: DirectPolicy = .auto
  ) throws -> ExpertRuntime {
    try require(tokenCapacity, in: 1...65_536, "the token capacity")
    try require(threads, in: 1...256, "the number of threads")
    let checkpoint = try Checkpoint.open(path)
    let layout = try ExpertLayout(checkpoint)
    let expertsPerToken =
      try topK ?? checkpoint.expertsPerToken(maximum: layout.expertCount)
    try require(expertsPerToken, in: 1...layout.expertCount, "the number of experts per token")
    let kernels = Kernels(set: try KernelSet.selected(environment: kernelEnvironment()))
    let files = try checkpoint.files.map { try DataFile(path: $0.path, direct: direct) }
    let geometry = ExpertGeometry(layout: layout, files: files)
    let scratchByteCount = scratchByteCount(
      layout: layout, topK: expertsPerToken, tokenCapacity: tokenCapacity, kernels: kernels)
    let plan = try slotPlan(
      geometry, experts: layout.expertCount, topK: expertsPerToken, memory: memory,
      scratch: MemoryLedger.footprint(scratchByteCount))
    let ledger = MemoryLedger(budget: memory ?? .max)
    let slots = try ledger.allocate("expert slots", byteCount: plan.byteCount)
    let runtime = ExpertRuntime(
      layout: layout, geometry: geometry, topK: expertsPerToken, tokenCapacity: tokenCapacity,
      plan: plan, slotMemory: slots,
      scratch: try ledger.allocate("expert activations", byteCount: scratchByteCount),
      files: files,
      engine: try makeReadEngine(
        kind: io, files: files, arenas: [slots], capacity: max(1024, 3 * layout.expertCount)),
      pool: try makePool(threads), kernels: kernels)
    if runtime.holdsEveryExpert { try runtime.preload { _, _ in } }
    return runtime
  }

  /// The slots: how many experts can be in memory at a time.
  public var slotCount: Int { slotPlan.slotCount }

  /// The block of the checkpoint, the N of `blk.N`, that each layer is.
  public var blocks: [Int] { layout.blocks }

  /// The read engine, as "io_uring" or "pread".
  public var engineName: String { engine.name }

  /// What had to be done without, and why, each once.
  public var fallbacks: [String] {
    var reasons = engine.fallbacks + files.compactMap(\.fallbackReason)
    if let refusal = slotMemory.hugePageRefusal { reasons.append(refusal) }
    if kernels.set < .best {
      reasons.append(
        "kernels are capped to \(kernels.set.name) by \(KernelSet.environmentVariable); "
          + "this processor has \(KernelSet.best.name)")
    }
    return reasons
  }

  private static func require(
    _ value: Int, in range: ClosedRange<Int>, _ name: String
  ) throws(RuntimeError) {
    guard range.contains(value) else {
      throw .argument(
        name: name, found: value, expected: "\(range.lowerBound) to \(range.upperBound)")
    }
  }

  /// The one variable of the environment that chooses kernels.
  private static func kernelEnvironment() -> [String: String] {
    guard let value = getenv(KernelSet.environmentVariable) else { return [:] }
    return [KernelSet.environmentVariable: String(cString: value)]
  }

  private static func makePool(_ threads: Int) throws(RuntimeError) -> WorkerPool {
    do throws(WorkerPoolError) {
      return try WorkerPool(threadCount: threads)
    } catch {
      throw .threads(reason: "\(error)")
    }
  }

  /// Divides what `memory` leaves beside `scratch` bytes.
  private static func slotPlan(
    _ geometry: ExpertGeometry, experts: Int, topK: Int, memory: Int?, scratch: Int
  ) throws(RuntimeError) -> SlotPlan {
    let sizes = geometry.slotByteCounts
    let least = MemoryLedger.footprint(
      SlotPlan.minimumByteCount(expertByteCounts: sizes, topK: topK))
    let all = MemoryLedger.footprint(sizes.reduce(0) { $0 + $1 * experts })
    // A slot arena large enough for huge pages takes whole ones.
    var capacity: Int?
    if let memory, max(0, memory) - scratch < all {
      let free = max(0, memory) - scratch
      let page = free >= Arena.hugePageByteCount ? Arena.hugePageByteCount : 4096
      capacity = free / page * page
    }
    let plan = SlotPlan(
      expertByteCounts: sizes, expertsPerLayer: experts, topK: topK, capacity: capacity)
    guard let plan, capacity.map({ $0 >= least }) ?? true else {
      throw .budgetTooSmall(budget: memory ?? 0, minimum: scratch + least)
    }
    return plan
  }
}

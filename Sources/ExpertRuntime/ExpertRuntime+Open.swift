internal import Checkpoints
public import DirectIO
public import Residency
package import Tensors

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
  ///   - policy: which expert goes when room is needed; one that `PolicyName.canRun`.
  ///   - readsAhead: whether some slots are kept for experts that `predict` says will be needed.
  ///   - io: how experts are read.
  ///   - direct: whether reads pass by the page cache.
  /// - Throws: `RuntimeError.budgetTooSmall` naming the minimum, `.argument`, `.policy`; errors
  ///   that name the file and the key or tensor at fault.
  public static func open(
    _ path: String, memory: Int? = nil, topK: Int? = nil, tokenCapacity: Int, threads: Int,
    policy: PolicyName = .nextUse, readsAhead: Bool = false, io: ReadEngineKind = .auto,
    direct: DirectPolicy = .auto
  ) throws -> ExpertRuntime {
    let checkpoint = try Checkpoint.open(path)
    let layout = try ExpertLayout(checkpoint)
    return try open(
      layout: layout,
      files: checkpoint.files.open(direct),
      topK: topK ?? checkpoint.expertsPerToken(maximum: layout.expertCount), memory: memory,
      tokenCapacity: tokenCapacity, threads: threads, policy: policy, readsAhead: readsAhead, io: io
    )
  }

  /// Opens experts that come from somewhere else: from memory, or from a function that gets them.
  ///
  /// As with a file, those in use are kept within the budget, the others are asked for when they are needed or
  /// predicted. Parameters are those of `open(_:memory:topK:tokenCapacity:threads:policy:readsAhead:io:direct:)`.
  /// - Throws: `RuntimeError.budgetTooSmall` naming the minimum, `.argument`, `.policy`; where all experts fit
  ///   the budget, `.read` for one that could not be got.
  public static func open(
    _ source: ExpertSource, memory: Int? = nil, tokenCapacity: Int, threads: Int,
    policy: PolicyName = .nextUse, readsAhead: Bool = false
  ) throws -> ExpertRuntime {
    try open(
      layout: source.layout, files: [source.file], topK: source.topK, memory: memory,
      tokenCapacity: tokenCapacity, threads: threads, policy: policy, readsAhead: readsAhead,
      io: .auto)
  }

  private static func open(
    layout: ExpertLayout, files: [DataFile], topK: Int, memory: Int?, tokenCapacity: Int,
    threads: Int, policy: PolicyName, readsAhead: Bool, io: ReadEngineKind
  ) throws -> ExpertRuntime {
    try require(tokenCapacity, in: 1...65_536, "the token capacity")
    try require(threads, in: 1...256, "the number of threads")
    try require(topK, in: 1...layout.expertCount, "the number of experts per token")
    guard policy.canRun else {
      throw RuntimeError.policy(name: policy.name, expected: PolicyName.runnableNames)
    }
    let kernels = Kernels(set: try KernelSet.selected())
    let geometry = ExpertGeometry(layout: layout, files: files)
    let scratchByteCount = scratchByteCount(
      layout: layout, topK: topK, tokenCapacity: tokenCapacity, kernels: kernels)
    let readScratch = readScratchByteCount(files)
    let scratch = MemoryLedger.footprint(scratchByteCount) + readScratch
    let plan = slotPlan(
      geometry: geometry, expertCount: layout.expertCount, topK: topK,
      capacity: memory.map { max(0, $0) - scratch }, staging: readsAhead)
    guard let plan else {
      let slots = SlotPlan.minimumByteCount(
        expertByteCounts: geometry.slotByteCounts, topK: topK)
      throw RuntimeError.budgetTooSmall(
        budget: memory ?? 0, minimum: scratch + MemoryLedger.footprint(slots))
    }
    let ledger = MemoryLedger(budget: memory ?? .max)
    if readScratch > 0 { try ledger.reserve("rearranged reads", byteCount: readScratch) }
    let slots = try ledger.allocate("expert slots", byteCount: plan.byteCount)
    let runtime = ExpertRuntime(
      layout: layout, geometry: geometry, topK: topK, tokenCapacity: tokenCapacity,
      plan: plan, policy: policy, slotMemory: slots,
      scratch: try ledger.allocate(
        "expert activations", byteCount: scratchByteCount, isTouched: true),
      files: files,
      engine: try makeEngine(io, files: files, slots: slots, expertCount: layout.expertCount),
      pool: try makePool(threadCount: threads), kernels: kernels)
    if runtime.holdsEveryExpert { try runtime.preload { _, _ in } }
    return runtime
  }

  /// The memory that threads which read take beside where they read to.
  package static func readScratchByteCount(_ files: [DataFile]) -> Int {
    readerThreadCount * (files.map(\.scratchByteCount).max() ?? 0)
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

  static func require(
    _ value: Int, in range: ClosedRange<Int>, _ name: String
  ) throws(RuntimeError) {
    guard range.contains(value) else {
      throw .argument(
        name: name, found: value, expected: "\(range.lowerBound) to \(range.upperBound)")
    }
  }

  /// A read engine with room for every expert of a layer at once, which is what a chunk of prompt
  /// can ask for, and for the dense weights, a few at a time.
  package static func makeEngine(
    _ kind: ReadEngineKind, files: [DataFile], slots: Arena, expertCount: Int
  ) throws(IOError) -> any ReadEngine {
    try makeReadEngine(
      kind: kind, files: files, arenas: [slots],
      capacity: 64 + ExpertMatrix.allCases.count * (expertCount + SlotPlan.mostStagedOfAll))
  }

  /// The threads that compute.
  /// - Throws: `RuntimeError.threads`.
  package static func makePool(threadCount: Int) throws(RuntimeError) -> WorkerPool {
    do throws(WorkerPoolError) {
      return try WorkerPool(threadCount: threadCount)
    } catch {
      throw .threads(reason: "\(error)")
    }
  }

  /// The slots that `capacity` bytes make; nil if they are too few, or, where no capacity is given,
  /// a slot for every expert; some of them for staging where that is wished for.
  package static func slotPlan(
    geometry: ExpertGeometry, expertCount: Int, topK: Int, capacity: Int?, staging: Bool = false
  ) -> SlotPlan? {
    let sizes = geometry.slotByteCounts
    let all = MemoryLedger.footprint(sizes.reduce(0) { $0 + $1 * expertCount })
    var usable: Int?
    if let capacity, capacity < all { usable = max(0, capacity) / 4096 * 4096 }
    let plan = SlotPlan(
      expertByteCounts: sizes, expertsPerLayer: expertCount, topK: topK, capacity: usable)
    guard staging else { return plan }
    return plan?.withStaging(
      expertByteCounts: sizes, expertsPerLayer: expertCount, topK: topK)
  }
}

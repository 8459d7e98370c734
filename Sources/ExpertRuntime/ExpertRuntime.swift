package import Checkpoints
package import DirectIO
package import Residency
public import Routing
package import Tensors

/// Executes MoE layers whose experts do not all fit in memory.
///
/// It is given hidden states and routings and gives back weighted sums of expert outputs; it knows
/// nothing of attention, tokens or tokenizers. Experts are kept in a pool of slots over all
/// layers. Those missing are read while those present are computed; each of an expert's three
/// matrices is multiplied as soon as its bytes are there. Outputs are summed in routing order, so
/// the result is the same to the bit whatever was resident and whatever arrived first.
///
/// One thread at a time may use it: the one that owns its worker pool and read engine.
public final class ExpertRuntime {
  /// What has been done since the runtime was made.
  public internal(set) var statistics: RuntimeStatistics
  /// Values of a hidden state.
  public let hiddenSize: Int
  /// Layers, counted over the whole model.
  public let layerCount: Int
  /// Experts of a layer.
  public let expertCount: Int
  /// The most tokens one call may carry.
  public let tokenCapacity: Int
  /// The division of the slot memory.
  package private(set) var slotPlan: SlotPlan

  /// What gate and up products become.
  package var activation = GatedActivation.silu
  /// What is added to the products of each layer's experts, [layers]; empty: nothing.
  package var biases: [ExpertBiases] = []
  /// The scales of each layer's experts, [layers], where they are 8-bit floats; empty: they are not.
  package var scales: [ExpertScales] = []
  /// What the bytes of every read are compared with; nil: nothing.
  package var checksums: PackedChecksums?
  let layout: ExpertLayout
  package let geometry: ExpertGeometry
  let files: [DataFile]
  let engine: any ReadEngine
  let pool: WorkerPool
  let kernels: Kernels
  /// Decides which experts are in which slots.
  var residents: ResidentSet
  /// Makes the events `residents` is told of.
  var events: EventBuilder
  /// What has been routed since the runtime was made.
  package internal(set) var history: RoutingHistory
  /// The routing of the tokens that were decoded last, those of earlier runs among them; nil if it is not kept.
  package var recentRouting: RecentRouting?
  /// Experts that free slots are to be filled with while the disk is idle; the next one is the last.
  var likely: [Int32] = []
  /// Matrices of that one that have been asked for.
  var filledMatrices = 0
  /// The experts missed by the event being executed.
  var missed: [Int32] = []
  /// The staged experts that are being gone through.
  var stagedExperts: [Int32] = []
  /// Decides what is read ahead.
  var planner: PrefetchPlanner
  /// How busy the disk is.
  var disk = DiskLoad()
  var buffers: LayerBuffers
  let batch: ProductBatch
  /// The experts of the layer being executed, [experts]: those resident, then those that are read, in
  /// the order in which they are.
  var tasks: [ExpertTask]
  var taskCount = 0
  /// Tasks whose expert was resident or whose reads have been queued.
  var startedCount = 0
  /// What is in each slot, [slots].
  var contents: [SlotContent]
  /// Whether the layer being executed streams its experts.
  var streaming = false
  /// Slots with reads under way.
  var flightCount = 0
  var busySince: UInt64 = 0
  /// How the latest predictions of the layer being executed fared; nil in a prompt.
  var outcome: (right: Int, wrong: Int)?
  /// What had been read ahead for that layer when its router decided, and the disk's time that was wasted.
  var headStart = HeadStart()
  var wastedSeconds: Float = 0
  /// The time waited and spent on predictions before that layer.
  var waitedBefore: UInt64 = 0
  var predictedBefore: UInt64 = 0
  /// When the layer being executed was begun.
  var layerStart: UInt64 = 0
  /// When it was first waited for the disk in that layer; 0: not yet.
  var stallStart: UInt64 = 0
  /// When the last read that a layer waited for ended.
  var demandEnd: UInt64 = 0
  var firstFailure: ReadFailure?
  private(set) var slotMemory: Arena
  private var slotOffsets: [Int]
  private let scratch: Arena

  /// The shape of the scratch memory; see `scratchByteCount`.
  private static func makeBuffers(
    layout: ExpertLayout, topK: Int, tokenCapacity: Int, kernels: Kernels,
    cursor: inout ScratchCursor
  ) -> LayerBuffers {
    LayerBuffers(
      tokenCapacity: tokenCapacity, topK: topK, expertCount: layout.expertCount,
      hidden: layout.hiddenSize, feedForward: layout.feedForwardSize, kernels: kernels,
      cursor: &cursor)
  }

  /// The scratch bytes for `tokenCapacity` tokens at a time.
  package static func scratchByteCount(
    layout: ExpertLayout, topK: Int, tokenCapacity: Int, kernels: Kernels
  ) -> Int {
    ScratchCursor.measure { cursor in
      _ = makeBuffers(
        layout: layout, topK: topK, tokenCapacity: tokenCapacity, kernels: kernels,
        cursor: &cursor)
    }
  }

  /// - Parameters:
  ///   - topK: experts per token.
  ///   - tokenCapacity: the most tokens of one call.
  ///   - plan: the division of `slotMemory` into slots.
  ///   - policy: which expert goes when room is needed; one that `canRun`.
  ///   - prefetch: what is tuned of prefetching.
  ///   - slotMemory: at least `plan.byteCount` bytes.
  ///   - scratch: at least `scratchByteCount` bytes.
  ///   - files: the checkpoint's files in its order, the same the engine reads.
  package init(
    layout: ExpertLayout, geometry: ExpertGeometry, topK: Int, tokenCapacity: Int, plan: SlotPlan,
    policy: PolicyName = .nextUse, prefetch: PrefetchPlanner.Parameters = .init(),
    slotMemory: Arena, scratch: Arena, files: [DataFile], engine: any ReadEngine, pool: WorkerPool,
    kernels: Kernels
  ) {
    self.layout = layout
    self.geometry = geometry
    self.tokenCapacity = tokenCapacity
    self.slotMemory = slotMemory
    self.scratch = scratch
    self.files = files
    self.engine = engine
    self.pool = pool
    self.kernels = kernels
    statistics = RuntimeStatistics(layerCount: layout.layerCount)
    slotPlan = plan
    hiddenSize = layout.hiddenSize
    layerCount = layout.layerCount
    expertCount = layout.expertCount
    let shape = RoutingGeometry(
      expertCount: layout.expertCount, topK: topK,
      expertByteCounts: layout.shapes.map(\.byteCount))
    residents = ResidentSet(
      geometry: shape, plan: plan,
      policy: policy.make(geometry: shape, capacity: plan.meanCapacity(of: shape)))
    events = EventBuilder(geometry: shape, hasWeights: true)
    history = RoutingHistory(
      model: "", routers: "", layerCount: layout.layerCount, expertCount: layout.expertCount)
    planner = PrefetchPlanner(geometry: shape, parameters: prefetch)
    missed.reserveCapacity(layout.expertCount)
    slotOffsets = Self.offsets(plan)
    precondition(plan.byteCount <= slotMemory.byteCount, "slot memory is smaller than the plan")
    var cursor = ScratchCursor(scratch.region(offset: 0, count: scratch.byteCount))
    buffers = Self.makeBuffers(
      layout: layout, topK: topK, tokenCapacity: tokenCapacity, kernels: kernels, cursor: &cursor)
    buffers.bind(hidden: layout.hiddenSize, feedForward: layout.feedForwardSize)
    batch = ProductBatch(kernels: kernels, pool: pool, capacity: layout.expertCount)
    tasks = Array(repeating: ExpertTask(), count: layout.expertCount)
    contents = Array(repeating: SlotContent(), count: slotOffsets.count)
  }

  deinit { engine.drain() }

  /// Where each slot begins, those for staging last, [slots].
  private static func offsets(_ plan: SlotPlan) -> [Int] {
    var offsets: [Int] = []
    var end = 0
    func append(_ count: Int, _ byteCount: Int) {
      for _ in 0..<count {
        offsets.append(end)
        end += byteCount
      }
    }
    for slotClass in plan.classes { append(slotClass.slotCount, slotClass.byteCount) }
    for slotClass in plan.classes { append(plan.stagingCount, slotClass.byteCount) }
    return offsets
  }

  /// Goes over to other slots, between two layers: residents that fit stay, the policy's choice of the others
  /// goes. What is under way is waited for, what was read ahead is given up.
  ///
  /// Memory is given back slot by slot as it is copied, so that both arenas together take little more than
  /// the larger one does.
  ///
  /// - Parameters:
  ///   - plan: a division for the same experts.
  ///   - memory: at least `plan.byteCount` bytes, not touched yet.
  package func resize(to plan: SlotPlan, memory: Arena) {
    precondition(plan.byteCount <= memory.byteCount, "slot memory is smaller than the plan")
    giveUpReads()
    engine.replaceArenas([])
    let moves = residents.resize(to: plan)
    let old = (memory: slotMemory, offsets: slotOffsets, contents: contents)
    let sizes = slotByteCounts
    let kept = Set(moves.map(\.from))
    for slot in old.offsets.indices where !kept.contains(slot) {
      old.memory.release(offset: old.offsets[slot], count: sizes[slot])
    }
    slotPlan = plan
    slotMemory = memory
    slotOffsets = Self.offsets(plan)
    contents = Array(repeating: SlotContent(), count: slotOffsets.count)
    for move in moves {
      let byteCount = sizes[move.from]
      (memory.base + slotOffsets[move.to]).copyMemory(
        from: old.memory.base + old.offsets[move.from], byteCount: byteCount)
      old.memory.release(offset: old.offsets[move.from], count: byteCount)
      contents[move.to] = old.contents[move.from]
    }
    engine.replaceArenas([memory])
  }

  /// The bytes of each slot, [slots].
  private var slotByteCounts: [Int] {
    slotPlan.classes.flatMap { Array(repeating: $0.byteCount, count: $0.slotCount) }
      + slotPlan.classes.flatMap { Array(repeating: $0.byteCount, count: slotPlan.stagingCount) }
  }

  /// Experts of a token.
  public var topK: Int { buffers.topK }

  /// Whether there is a slot for every expert.
  public var holdsEveryExpert: Bool { slotPlan.slotCount == layerCount * expertCount }

  /// The experts that are resident, numbered over the model; nil if all are.
  package var residentExperts: [Int32]? {
    if holdsEveryExpert { return nil }
    return (0..<Int32(layerCount * expertCount)).filter { residents.table.contains($0) }
  }

  /// Whether `expert` is resident.
  package func isResident(_ expert: ExpertID) -> Bool {
    residents.table.contains(Int32(expert.layer * expertCount + expert.expert))
  }

  /// The memory of `slot`.
  func memory(ofSlot slot: Int) -> UnsafeMutableRawPointer { slotMemory.base + slotOffsets[slot] }

  /// Computes one MoE layer: output[t] = sum over k of weight[t, k] * expert[t, k](hidden[t]).
  ///
  /// - Parameters:
  ///   - layer: the layer, counted over the whole model.
  ///   - hidden: the layer's inputs, [tokens, hidden].
  ///   - routing: the experts and weights of the same tokens.
  ///   - output: receives the sums, [tokens, hidden].
  /// - Throws: `RuntimeError.routing` if layer, sizes or expert ids do not fit the model,
  ///   `RuntimeError.read` if an expert cannot be read; the runtime stays usable.
  public func execute(
    layer: Int, hidden: Span<Float>, routing: Routing, output: inout MutableSpan<Float>,
    phase: Phase
  ) throws(RuntimeError) {
    let tokens = routing.tokenCount
    try check(layer: layer, hidden: hidden.count, output: output.count, routing: routing)
    hidden.withUnsafeBufferPointer { source in
      if let base = source.baseAddress {
        buffers.input.floats.update(from: base, count: tokens * hiddenSize)
      }
    }
    let failure = output.withUnsafeMutableBufferPointer { target -> RuntimeError? in
      guard let base = target.baseAddress else { return nil }
      do throws(RuntimeError) {
        try executeInput(layer: layer, routing: routing, into: base, phase: phase)
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }

  /// The rows `executeInput` reads its hidden states from, [tokenCapacity, hidden]; a caller that
  /// writes them in place saves a copy.
  package var inputRows: ActivationRows { buffers.input }

  private func check(
    layer: Int, hidden: Int, output: Int, routing: borrowing Routing
  ) throws(RuntimeError) {
    let tokens = routing.tokenCount
    guard (0..<layerCount).contains(layer) else {
      throw .routing(reason: "layer \(layer) of \(layerCount)")
    }
    guard routing.topK == buffers.topK else {
      throw .routing(reason: "\(routing.topK) experts per token, expected \(buffers.topK)")
    }
    guard (1...tokenCapacity).contains(tokens), routing.experts.count == tokens * routing.topK
    else {
      throw .routing(
        reason: "\(routing.experts.count) expert ids, expected a multiple of \(routing.topK) for "
          + "1 to \(tokenCapacity) tokens")
    }
    guard hidden == tokens * hiddenSize, output == hidden else {
      throw .routing(
        reason: "\(hidden) hidden values and \(output) outputs, expected \(tokens * hiddenSize)")
    }
    for expert in routing.experts where !(0..<Int32(expertCount)).contains(expert) {
      throw .routing(reason: "expert \(expert) of \(expertCount)")
    }
    for token in 0..<tokens {
      for k in 0..<topK {
        for other in 0..<k
        where routing.experts[token * topK + k] == routing.experts[token * topK + other] {
          throw .routing(reason: "expert \(routing.experts[token * topK + k]) twice in one token")
        }
      }
    }
  }
}

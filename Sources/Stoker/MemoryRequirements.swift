internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Models
internal import Residency
internal import Tensors

/// The bytes each part of a run needs, before anything is allocated.
public struct MemoryRequirements: Hashable, Sendable, Codable {
  /// Code, tokenizer tables, stacks, and room for what allocators round up.
  public let process: Int
  public let denseWeights: Int
  /// Keys and values, and what layers without attention keep of a sequence.
  public private(set) var keyValueCache: Int
  /// Working memory of attention, experts, prediction and of reads that are rearranged.
  public private(set) var activations: Int
  /// Slots for one layer's top-k experts: without them nothing can be computed.
  public let minimumSlots: Int
  /// Slots for every expert.
  public let allSlots: Int

  /// What is needed whatever the number of slots.
  var fixed: Int { process + denseWeights + keyValueCache + activations }
  /// The smallest budget that works.
  public var minimumBudget: Int { fixed + minimumSlots }
  /// The budget above which nothing is gained: every expert resident.
  public var fullBudget: Int { fixed + allSlots }

  /// What is needed to decode so many more sequences together with one: a cache and a row of logits for each.
  func adding(sequences: Int, vocabulary: Int) -> MemoryRequirements {
    var more = self
    more.keyValueCache += sequences * keyValueCache
    more.activations += sequences * vocabulary * MemoryLayout<Float>.size
    return more
  }
}

/// The sizes a run is made with.
struct RunShape {
  let description: ModelDescription
  let layout: ExpertLayout
  let geometry: ExpertGeometry
  let files: [DataFile]
  let kernels: Kernels
  let threadCount: Int
  let context: Int
  let tokenCapacity: Int
  let keyValueType: KeyValueType
  /// How the routing is predicted; nil: it is not.
  let predictor: PredictorKind?
  /// The heads that it is predicted with, where they are fitted.
  let heads: (file: PredictorFile, data: DataFile)?

  var expertScratchByteCount: Int {
    ExpertRuntime.scratchByteCount(
      layout: layout, topK: description.expertsPerToken, tokenCapacity: tokenCapacity,
      kernels: kernels)
  }

  var denseByteCount: Int {
    DenseWeights.byteCount(
      of: layout.denseTensors, files: files, changes: description.valueChanges)
  }

  /// What threads that read take to rearrange what they read.
  var readScratchByteCount: Int {
    ExpertRuntime.readScratchByteCount(files)
  }

  /// - Parameter process: bytes the process holds before anything large is allocated.
  func requirements(process: Int) -> MemoryRequirements {
    let cache = KeyValueCache.byteCount(description, capacity: context, type: keyValueType)
    let buffers = TransformerBuffers.byteCount(
      description, tokenCapacity: tokenCapacity, positions: context, threadCount: threadCount,
      kernels: kernels)
    var prediction = 0
    if let predictor {
      prediction = MemoryLedger.footprint(
        RouterPredictor.byteCount(predictor, description, kernels: kernels))
      if let heads { prediction += MemoryLedger.footprint(heads.file.byteCount(in: heads.data)) }
    }
    let minimumSlots = SlotPlan.minimumByteCount(
      expertByteCounts: geometry.slotByteCounts, topK: description.expertsPerToken)
    let allSlots = geometry.slotByteCounts.reduce(0) { $0 + $1 * layout.expertCount }
    return MemoryRequirements(
      process: process,
      denseWeights: MemoryLedger.footprint(denseByteCount),
      keyValueCache: MemoryLedger.footprint(cache)
        + MemoryLedger.footprint(RecurrentState.byteCount(description)),
      activations: MemoryLedger.footprint(buffers)
        + MemoryLedger.footprint(expertScratchByteCount) + prediction + readScratchByteCount,
      minimumSlots: MemoryLedger.footprint(minimumSlots),
      allSlots: MemoryLedger.footprint(allSlots))
  }
}

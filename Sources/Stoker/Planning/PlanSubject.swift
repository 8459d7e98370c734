internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Models
public import Placement
internal import Residency
internal import Routing
internal import Tensors

/// What is planned for: a model, in a file or only by its numbers, and how much memory its parts need.
public struct PlanSubject: Sendable {
  /// The ways to run it that differ in what they need.
  struct Variant: Hashable, Sendable {
    var direct: Bool
    var prefetch: Bool
  }

  /// What one of them needs.
  struct Needs: Sendable {
    var memory: MemoryRequirements
    /// The bytes of a slot of each layer's experts, [layers].
    var slotByteCounts: [Int]
  }

  public let work: ModelWork
  public let model: Plan.Model
  /// Positions of each sequence's key-value cache.
  public let context: Int
  /// Sequences that are decoded together. Prompts pass through the model one after the other.
  public let batch: Int
  /// What predictions name, by distance.
  private let recall: [Int: PredictionRecall]
  private let needs: [Variant: Needs]

  func needs(direct: Bool, prefetch: Bool) -> Needs {
    needs[Variant(direct: direct, prefetch: prefetch)]!
  }

  /// The bytes with which every expert is resident.
  public var fullBudget: Int { needs(direct: true, prefetch: false).memory.fullBudget }

  /// Recall of the predictors in the runtime, before a layer's attention and one layer ahead, where it is not
  /// known: as measured on the demo model (`Benchmarks/README.md`), of fitted heads and of gate reuse with a
  /// running mean.
  private static let fittedRecall = [
    0: PredictionRecall(ofChoices: 0.92, ofExperts: 0.82),
    1: PredictionRecall(ofChoices: 0.88, ofExperts: 0.70),
  ]
  private static let correctedRecall = [
    0: PredictionRecall(ofChoices: 0.84, ofExperts: 0.68),
    1: PredictionRecall(ofChoices: 0.83, ofExperts: 0.59),
  ]

  /// The share that predictions name of the experts that are not resident, by distance, where such a share of
  /// all is: before a layer's attention and one layer ahead.
  func missRecall(residentShare: Double) -> [Int: Double] {
    recall.filter { $0.key <= 1 }.mapValues { $0.ofMisses(residentShare: residentShare) }
  }

  /// A model in a file.
  ///
  /// - Parameter batch: sequences that are decoded together, from 1 on, as a host with a model of its own
  ///   does: a `MoEModel` decodes one.
  /// - Throws: `StokerError.option`, or an error that names the file that could not be opened.
  public init(_ file: ModelFile, options: ModelOptions = ModelOptions(), batch: Int = 1) throws {
    work = try file.work(options)
    self.batch = batch
    var needs: [Variant: Needs] = [:]
    var context = 1
    var recall = Self.correctedRecall
    // It grows while it is asked, and all variants are to count the same.
    let process = file.processByteCount(options)
    for direct in [true, false] {
      for prefetch in [true, false] {
        var options = options
        options.direct = direct ? .auto : .off
        options.prefetch = prefetch ? .auto : .off
        let shape = try file.shape(options)
        context = shape.context
        if shape.predictor == .fitted, let heads = shape.heads {
          recall = heads.file.recall.isEmpty ? Self.fittedRecall : heads.file.recall
        }
        needs[Variant(direct: direct, prefetch: prefetch)] = Needs(
          memory: shape.requirements(process: process)
            .adding(sequences: batch - 1, vocabulary: work.vocabulary),
          slotByteCounts: shape.geometry.slotByteCounts)
      }
    }
    self.needs = needs
    self.context = context
    self.recall = recall
    model = Plan.Model(
      name: work.name, path: file.path,
      fileBytes: file.byteCount, layers: work.layers,
      experts: work.experts, topK: work.topK)
  }

  /// A model of which only the numbers are known.
  ///
  /// - Parameters:
  ///   - context: positions of the key-value cache.
  ///   - threads: threads that compute.
  ///   - batch: sequences that are decoded together, from 1 on.
  public init(_ shape: PlanShape, context: Int, threads: Int, batch: Int = 1) {
    let work = shape.work
    self.batch = batch
    self.work = work
    self.context = context
    recall = Self.correctedRecall
    // Each matrix is read aligned outward to a page at both ends.
    let slots = work.expertMatrices.map { matrices in
      matrices.reduce(0) { $0 + ($1.bytes + 4095) / 4096 * 4096 + 4096 }
    }
    let chunk = work.chunkTokens
    let values =
      chunk * (6 * shape.hiddenSize + 2 * shape.attentionSize + work.experts)
      + chunk * work.topK * (2 * shape.expertFeedForwardSize + shape.hiddenSize)
      + 8 * work.vocabulary + threads * 16 * context
    let prediction = 3 * work.layers * shape.hiddenSize * 4
    func requirements(prefetch: Bool) -> MemoryRequirements {
      MemoryRequirements(
        process: 48 << 20, denseWeights: work.denseByteCount + shape.embeddingByteCount,
        keyValueCache: work.keyValueBytesPerPosition * context,
        activations: 4 * values + (prefetch ? prediction : 0),
        minimumSlots: SlotPlan.minimumByteCount(expertByteCounts: slots, topK: work.topK),
        allSlots: slots.reduce(0) { $0 + $1 * work.experts }
      ).adding(sequences: batch - 1, vocabulary: work.vocabulary)
    }
    var needs: [Variant: Needs] = [:]
    for direct in [true, false] {
      for prefetch in [true, false] {
        needs[Variant(direct: direct, prefetch: prefetch)] = Needs(
          memory: requirements(prefetch: prefetch), slotByteCounts: slots)
      }
    }
    self.needs = needs
    model = Plan.Model(
      name: work.name, path: nil,
      fileBytes: work.totalExpertByteCount + work.denseByteCount + shape.embeddingByteCount,
      layers: work.layers, experts: work.experts, topK: work.topK)
  }
}

import Checkpoints
import DirectIO
import ExpertRuntime
import Residency
import Routing
import Tensors
import TestSupport
import Testing

/// How a runtime is put together; none of it may change a bit of the output.
struct RuntimeSetup: Sendable, CustomStringConvertible {
  enum Slots: String, CaseIterable { case all, half, minimum }

  var slots = Slots.all
  var io = ReadEngineKind.pread
  var direct = DirectPolicy.off
  var threads = 1
  var tokenCapacity = 12
  var policy = PolicyName.lru
  /// Whether some slots are for experts that are read ahead.
  var staging = false

  var description: String {
    "\(slots.rawValue) slots, \(io.rawValue), direct \(direct.rawValue), \(threads) threads"
  }
}

/// A toy model in a file, and the runtime that executes it.
struct RuntimeBench {
  let model: ToyMoE
  let file: TemporaryFile
  let runtime: ExpertRuntime
  let plan: SlotPlan

  init(_ model: ToyMoE, _ setup: RuntimeSetup = RuntimeSetup()) throws {
    let file = try TemporaryFile()
    try model.write(to: file.path)
    try self.init(model, setup, file: file)
  }

  /// - Parameters:
  ///   - file: holds `model` already.
  ///   - wrap: puts something between the runtime and its engine for that file.
  init(
    _ model: ToyMoE, _ setup: RuntimeSetup, file: TemporaryFile,
    wrap: (any ReadEngine, DataFile) -> any ReadEngine = { engine, _ in engine }
  ) throws {
    self.model = model
    self.file = file
    let layout = try ExpertLayout(Checkpoint.open(file.path))
    let files = [try DataFile(path: file.path, direct: setup.direct)]
    let geometry = ExpertGeometry(layout: layout, files: files)
    let sizes = geometry.slotByteCounts
    let capacity: Int? =
      switch setup.slots {
      case .all: nil
      case .half: sizes.reduce(0, +) * model.expertCount / 2
      case .minimum: SlotPlan.minimumByteCount(expertByteCounts: sizes, topK: model.topK)
      }
    let divided = try #require(
      SlotPlan(
        expertByteCounts: sizes, expertsPerLayer: model.expertCount, topK: model.topK,
        capacity: capacity))
    plan =
      setup.staging
      ? divided.withStaging(
        expertByteCounts: sizes, expertsPerLayer: model.expertCount, topK: model.topK) : divided
    let slots = try Arena(byteCount: plan.byteCount)
    let kernels = Kernels(set: try KernelSet.selected())
    let scratch = ExpertRuntime.scratchByteCount(
      layout: layout, topK: model.topK, tokenCapacity: setup.tokenCapacity, kernels: kernels)
    runtime = ExpertRuntime(
      layout: layout, geometry: geometry, topK: model.topK, tokenCapacity: setup.tokenCapacity,
      plan: plan, policy: setup.policy, slotMemory: slots, scratch: try Arena(byteCount: scratch),
      files: files,
      engine: wrap(try makeReadEngine(kind: setup.io, files: files, arenas: [slots]), files[0]),
      pool: try WorkerPool(threadCount: setup.threads), kernels: kernels)
  }

  /// The output of `layer` for some tokens, [tokens * hidden].
  func run(
    layer: Int, _ tokens: ArraySlice<ToyToken>, phase: Phase = .decode
  ) throws -> [Float] {
    try runtime.output(layer: layer, tokens, topK: model.topK, phase: phase)
  }
}

extension ExpertRuntime {
  /// The output of `layer` for some tokens, [tokens * hidden].
  func output(
    layer: Int, _ tokens: ArraySlice<ToyToken>, topK: Int, phase: Phase = .decode
  ) throws -> [Float] {
    let hidden = tokens.flatMap(\.hidden)
    // What is not written shows.
    var output = [Float](repeating: .nan, count: hidden.count)
    var span = output.mutableSpan
    try execute(
      layer: layer, hidden: hidden.span, routing: Routing(tokens, topK: topK), output: &span,
      phase: phase)
    return output
  }
}

/// A hidden state and where it is routed.
struct ToyToken: Sendable {
  var hidden: [Float]
  var experts: [Int32]
  var weights: [Float]
}

extension ToyMoE {
  /// Random hidden states, each routed to different random experts.
  func tokens(_ count: Int, seed: UInt64) -> [ToyToken] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in
      ToyToken(
        hidden: (0..<hidden).map { _ in .random(in: -1...1, using: &generator) },
        experts: Array((0..<Int32(expertCount)).shuffled(using: &generator).prefix(topK)),
        weights: (0..<topK).map { _ in .random(in: 0.1...1, using: &generator) })
    }
  }
}

extension Routing {
  init(_ tokens: ArraySlice<ToyToken>, topK: Int) {
    self.init(topK: topK, tokenCapacity: tokens.count)
    for token in tokens {
      for (expert, weight) in zip(token.experts, token.weights) {
        append(expert: Int(expert), weight: weight)
      }
    }
  }
}

/// What this machine offers.
enum Probe {
  /// Whether the kernel gives out an io_uring.
  static let hasRing = (try? makeReadEngine(kind: .uring, files: [], arenas: [])) != nil
  /// Whether the file system of temporary files takes O_DIRECT.
  static let hasDirect: Bool = {
    guard let file = try? TemporaryFile() else { return false }
    return (try? DataFile(path: file.path, direct: .on)) != nil
  }()
}

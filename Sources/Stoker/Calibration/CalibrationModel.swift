internal import Foundation
internal import Logging
internal import Models
internal import Placement
internal import Residency
internal import Routing
internal import Tensors

/// A model so small that decoding with it shows what layers and tokens take beside their products.
struct CalibrationModel {
  /// What is measured of it; the units are those of `MachineProfile`, but products are still in it.
  struct Parts {
    var layerSeconds: Double
    var tokenSeconds: Double
    var samplingSeconds: Double
    var contextBytesPerSecond: Double
    var promptContextBytesPerSecond: Double
    var promptValueSeconds: Double
    var predictionSeconds: Double
  }

  /// What it asks of the machine.
  let work: ModelWork
  private let model: MoEModel
  private let shape: ModelShape

  /// Makes the model in `folder`, where it does not stay.
  init(_ shape: ModelShape, _ quantization: SynthesisQuantization, folder: String, threads: Int)
    throws
  {
    self.shape = shape
    let path = "\(folder)/.stoker-calibration-\(ProcessInfo.processInfo.processIdentifier).gguf"
    defer { try? FileManager.default.removeItem(atPath: path) }
    do {
      try Synthesizer(shape: shape, quantization: quantization, seed: 1).write(
        to: path, threadCount: threads)
      let file = try ModelFile(path: path)
      work = try file.work(ModelOptions(context: shape.contextLength))
      // All of it is resident: the file is read once, here.
      model = try MoEModel(
        file,
        options: ModelOptions(
          memory: try file.requirements(ModelOptions(context: shape.contextLength)).fullBudget,
          context: shape.contextLength, threads: threads, prefetch: .off),
        logger: Logger(label: "stoker", factory: { _ in SwiftLogNoOpLogHandler() }))
    } catch {
      throw StokerError.calibration(folder: folder, reason: "\(error)")
    }
  }

  /// The model that what layers take is measured with.
  static func small(folder: String, threads: Int) throws -> CalibrationModel {
    try CalibrationModel(.calibration, .q8_0, folder: folder, threads: threads)
  }

  /// The mean seconds of some repetitions, as the speed of a run is a mean too: what disturbs a machine now
  /// and then counts.
  private func mean(_ count: Int, _ body: () throws -> Double) rethrows -> Double {
    var sum = 0.0
    for _ in 0..<count { sum += try body() }
    return sum / Double(count)
  }

  private func decode(at position: Int, logits: MoETransformer.Logits) throws -> Double {
    try mean(60) { try model.timedToken(at: position, logits: logits) }
  }

  private func prompt(at position: Int, count: Int, times: Int = 4) throws -> Double {
    let tokens = (0..<count).map { Int32($0 * 37 % shape.vocabularySize) }
    return try mean(times) {
      let start = monotonicNanoseconds()
      try model.transformer.forward(
        tokens.span, at: position, phase: .prefill, logits: .none
      ) { _, _ in }
      return Double(monotonicNanoseconds() - start) / 1e9
    }
  }

  /// Seconds of choosing a token by the default parameters, for each there is.
  private func samplingSeconds() throws -> Double {
    let count = 1 << 16
    let logits = (0..<count).map { Float($0 &* 2_654_435_761 % 65_521) / 8192 }
    var sampler = try Sampler(SamplingParameters())
    return try mean(5) {
      let start = monotonicNanoseconds()
      _ = try logits.withUnsafeBufferPointer { try sampler.sample($0) }
      return Double(monotonicNanoseconds() - start) / 1e9 / Double(count)
    }
  }

  /// Seconds of predicting a layer's routing and of deciding what to read ahead, of 64 experts; the product is
  /// so small that it counts for nothing.
  private func predictionSeconds() throws -> Double {
    let predictor = try RouterPredictor(
      .gateReuse, heads: nil, model: model.transformer.description,
      kernels: Kernels(set: try KernelSet.selected()), pool: model.pool,
      ledger: MemoryLedger(budget: .max))
    let geometry = RoutingGeometry(expertCount: 64, topK: 8, expertByteCounts: [1, 1])
    let residents = ResidentSet(
      geometry: geometry, capacity: 16,
      policy: PolicyName.lru.make(geometry: geometry, capacity: 16))
    var planner = PrefetchPlanner(geometry: geometry)
    var event = RoutingEvent()
    (event.layer, event.experts) = (1, Array(64..<72))
    let scores = (0..<64).map { Float($0 * 37 % 64) / 16 }
    let row = [Float](repeating: 0.5, count: shape.hiddenSize)
    predictor.note(beforeAttentionOf: 0, state: row)
    predictor.note(atRouterOf: 0, state: row)
    return try mean(200) {
      // What a prediction needs is not in the nearest caches any more when a layer has been computed.
      _ = try model.timedToken(at: 7, logits: .none)
      let start = monotonicNanoseconds()
      _ = model.transformer.predictedScores(of: 1, distance: 1, by: predictor)
      planner.predict(
        layer: 1, distance: 1, scores: scores.span, residents: residents.table, utilisation: 0.5)
      planner.settle(event)
      return Double(monotonicNanoseconds() - start) / 1e9
    }
  }

  /// Seconds of a layer of one token at the beginning of a context, its products among them.
  func layerSeconds() throws -> Double {
    // Others have had the caches, and its threads have slept.
    for _ in 0..<20 { _ = try model.timedToken(at: 7, logits: .none) }
    return try decode(at: 7, logits: .none) / Double(shape.layerCount)
  }

  /// Runs a prompt, so that memory has been touched and the context has something in it.
  func warm(promptTokens: Int) throws { _ = try prompt(at: 0, count: promptTokens) }

  /// Seconds of one token's layers.
  func decodeSeconds() throws -> Double {
    var token = 0
    return try mean(6) {
      // Others each time, so that other experts are used: the same ones would come out of the caches.
      token += 1
      return try model.timedToken(
        Int32(token * 37 % shape.vocabularySize), at: 7, logits: .none)
    }
  }

  /// Seconds of the layers of a prompt of so many tokens.
  func promptSeconds(tokens: Int) throws -> Double { try prompt(at: 0, count: tokens, times: 1) }

  /// Measures once.
  func measure(_ effort: Calibration.Effort) throws -> Parts {
    let layers = Double(shape.layerCount)
    let chunk = model.transformer.runtime.tokenCapacity
    let far = shape.contextLength - chunk
    // The context has something in it wherever a token looks back.
    for position in stride(from: 0, through: far, by: chunk) {
      _ = try prompt(at: position, count: chunk)
    }
    let near = layers * (try layerSeconds())
    let whole = try decode(at: 7, logits: .last)
    let back = try decode(at: far - 1, logits: .none)
    let first = try prompt(at: 0, count: chunk)
    let last = try prompt(at: far, count: chunk)
    let keyValueBytes = Double(work.keyValueBytesPerPosition)
    let lookBack = Double(far - 8) * keyValueBytes / max(back - near, 1e-9)
    let promptLookBack = Double(chunk) * Double(far) * keyValueBytes / max(last - first, 1e-9)
    return Parts(
      layerSeconds: near / layers, tokenSeconds: max(0, whole - near),
      samplingSeconds: try samplingSeconds(),
      contextBytesPerSecond: lookBack, promptContextBytesPerSecond: promptLookBack,
      promptValueSeconds: max(
        0, first - Double(chunk * chunk / 2) * keyValueBytes / promptLookBack)
        / Double(chunk * shape.hiddenSize) / layers,
      predictionSeconds: try predictionSeconds())
  }
}

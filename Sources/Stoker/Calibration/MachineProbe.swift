internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Foundation
public import Placement
internal import Residency
public import Routing
internal import Tensors

/// How fast the machine is while a model runs, beside when it was measured: shared machines drift.
///
/// A sample takes at most a fifth of a second. Between two tokens it is bursts of one expert's reads and of as
/// many as a token needs of a layer, products with one token, both at once, and a tiny model's layers, which are
/// hardly products; beside a prompt it is a stream of experts, products with as many tokens as a prompt's experts
/// have, and both at once. Products are of the model's own type.
public final class MachineProbe {
  private let profile: MachineProfile
  private let work: ModelWork
  private let kind: ReadKind
  private let reader: ExpertReader?
  private let products: RandomProducts?
  private let isCached: Bool
  /// Shows what layers take beside their products.
  private let tinyModel: CalibrationModel
  /// Experts that are under way at a time: those of a layer that a token needs, or a wave of a prompt's.
  private let experts: [Phase: Int]
  private var samples: [Phase: [Sample]] = [:]

  private struct Sample {
    /// Seconds of a burst of one expert's reads and of a layer's.
    var one = 0.0
    var all = 0.0
    /// Seconds of a layer of the tiny model.
    var layer = 0.0
    /// Bytes per second of a stream, and bytes of weights multiplied per second: each alone, and both at once.
    var stream = 0.0
    var products = 0.0
    var together = (stream: 0.0, products: 0.0)
  }

  /// Tokens that products are measured with.
  private static func tokens(_ phase: Phase) -> Int { phase == .prefill ? 16 : 1 }

  /// - Parameters:
  ///   - model: the model that runs; its threads multiply, so that no others are in their way.
  ///   - profile: the machine as it was measured.
  ///   - kind: how its experts are read.
  /// - Throws: an error that names the file that could not be opened.
  public init(_ model: MoEModel, profile: MachineProfile, reads kind: ReadKind) throws {
    self.profile = profile
    self.kind = kind
    work = try model.file.work(model.options)
    experts = [
      .prefill: model.transformer.runtime.slotPlan.wave, .decode: max(2, work.topK),
    ]
    // Where every expert is resident nothing is read.
    reader =
      model.configuration.holdsEveryExpert
      ? nil
      : try ExpertReader(
        model.file.shape(model.options), io: model.options.io, kind: kind,
        most: experts.values.max()!)
    tinyModel = try .small(
      folder: NSTemporaryDirectory(), threads: model.configuration.threads)
    let isCached = CostModel(profile: profile, work: work).isCached
    self.isCached = isCached
    let type = work.expertMatrices[0][0].type
    let element = ElementType.allCases.first { $0.name == type && Kernels.supports($0) }
    products = try element.map {
      RandomProducts(
        $0, rows: isCached ? 256 : 1024, columns: isCached ? 256 : 2048,
        in: RandomWeights(byteCount: isCached ? 8 << 20 : Calibration.farByteCount),
        tokenCapacity: Self.tokens(.prefill),
        kernels: Kernels(set: try KernelSet.selected()),
        pool: model.pool)
    }
  }

  /// Measures once.
  ///
  /// - Parameter phase: what is run before or after.
  /// - Throws: an error that names the file that could not be read.
  public func sample(_ phase: Phase) throws {
    var sample = Sample()
    let tokens = Self.tokens(phase)
    if let products {
      sample.products = workPerSecond(for: 25_000_000) {
        Double(products.run(RandomProducts.batchCount, tokens: tokens))
      }
    }
    if let reader {
      let experts = experts[phase]!
      if phase == .decode {
        sample.one = try reader.burstSeconds(experts: 1, nanoseconds: 15_000_000)
        sample.all = try reader.burstSeconds(experts: experts, nanoseconds: 40_000_000)
      }
      // Copying out of the page cache and multiplying are not done at once.
      if phase == .prefill || kind != .cached {
        sample.stream = try reader.bytesPerSecond(experts: experts, nanoseconds: 40_000_000)
      }
      if kind != .cached, let products {
        var (computed, elapsed) = (0, UInt64(0))
        let start = monotonicNanoseconds()
        sample.together.stream = try reader.bytesPerSecond(
          experts: experts, nanoseconds: 40_000_000
        ) {
          computed += products.run(RandomProducts.batchCount, tokens: tokens)
          elapsed = monotonicNanoseconds() - start
        }
        sample.together.products = Double(computed) / (Double(elapsed) / 1e9)
      }
    }
    if phase == .decode { sample.layer = try tinyModel.layerSeconds() }
    samples[phase, default: []].append(sample)
  }

  /// The mean, but for the tenth of the samples that has the largest values and as many of the smallest, one of
  /// three at the least: one that the machine was stopped in would count for more than a run's share of that.
  private static func mean(_ values: [Double]) -> Double {
    let left = max(values.count / 10, values.count > 2 ? 1 : 0)
    let kept = values.sorted().dropFirst(left).dropLast(left)
    return kept.reduce(0, +) / Double(kept.count)
  }

  /// The rates of products and of a layer's reads, or of a stream of them, over those of the profile, by the
  /// samples of `phase`; 1 where there are none.
  public func ratios(_ phase: Phase) -> (compute: Double, disk: Double) {
    var ratios = (compute: 1.0, disk: 1.0)
    guard let seen = samples[phase] else { return ratios }
    if products != nil {
      let expected = profile.productBytesPerSecond(
        work.expertMatrices[0][0].type, tokens: Double(Self.tokens(phase)), isCached: isCached)
      ratios.compute = 1 / Self.mean(seen.map { expected / $0.products })
    }
    guard reader != nil else { return ratios }
    switch phase {
    case .prefill:
      if let expected = CostModel(profile: profile, work: work).steadyBytesPerSecond(kind) {
        ratios.disk = 1 / Self.mean(seen.map { expected / $0.stream })
      }
    case .decode:
      if let expected = profile.burstSeconds(
        kind, blockBytes: work.meanReadByteCount, count: work.readCount * experts[.decode]!)
      {
        ratios.disk = expected / Self.mean(seen.map(\.all))
      }
    }
    return ratios
  }

  /// The rate of what layers take beside their products over that of the profile, while products are faster by
  /// `compute`; nil where there are no samples of it, or where nothing but products is left.
  private func restRatio(_ phase: Phase, compute: Double) -> Double? {
    guard phase == .decode, let seen = samples[phase] else { return nil }
    let now = CostModel(profile: profile.scalingCompute(by: compute), work: tinyModel.work)
    let rest = Self.mean(seen.map(\.layer)) - now.layerProductSeconds
    let expected = profile.layerSeconds.value
    return rest > 0 && expected > 0 ? expected / rest : nil
  }

  /// The machine as the samples of `phase` have it: bursts as they were, and everything else of the drive or
  /// the processor by their ratios.
  public func profile(_ phase: Phase) -> MachineProfile {
    let ratios = ratios(phase)
    var now = profile.scalingCompute(
      by: ratios.compute, rest: restRatio(phase, compute: ratios.compute))
    guard reader != nil, let seen = samples[phase],
      let steady = CostModel(profile: profile, work: work).steadyBytesPerSecond(kind)
    else { return now }
    let block = work.meanReadByteCount
    let depths = [1, experts[.decode]!].map { $0 * work.readCount }
    let bursts =
      phase == .decode
      ? [Self.mean(seen.map(\.one)), Self.mean(seen.map(\.all))]
      : depths.map {
        (profile.burstSeconds(kind, blockBytes: block, count: $0) ?? 0) / ratios.disk
      }
    if kind != .cached, products != nil {
      func share(_ together: (Sample) -> Double, of alone: (Sample) -> Double) -> Figure {
        Figure(min(1, Self.mean(seen.map(together)) / Self.mean(seen.map(alone))))
      }
      let contention = Contention(
        readShare: share(\.together.stream, of: \.stream),
        computeShare: share(\.together.products, of: \.products))
      if phase == .decode { now.contention = contention } else { now.promptContention = contention }
    }
    now.disk.removeAll { $0.kind == kind }
    for (depth, seconds) in zip(depths, bursts) {
      var rate = steady * ratios.disk
      if phase == .decode { rate = max(rate, Double(block * depth) / seconds) }
      now.disk.append(
        DiskRate(
          kind: kind, blockBytes: block, depth: depth, bytesPerSecond: Figure(rate),
          burstSeconds: Figure(seconds)))
    }
    return now
  }
}

/// Reads random experts of a model, so many at a time.
private final class ExpertReader {
  private let shape: RunShape
  private let engine: any ReadEngine
  private let memory: Arena
  private let slotByteCount: Int
  private let slotCount: Int
  private var next = 0
  private var random = SystemRandomNumberGenerator()
  private var failure: IOError?

  /// - Parameters:
  ///   - kind: how reads are answered. What the processor copies goes to memory, as into the slots of a model,
  ///     not to a cache that it stays in.
  ///   - most: experts at a time.
  init(_ shape: RunShape, io: ReadEngineKind, kind: ReadKind, most: Int) throws {
    self.shape = shape
    slotByteCount = shape.geometry.slotByteCounts.max() ?? 0
    slotCount = max(
      most + 1, kind == .cached ? Calibration.farByteCount / max(1, slotByteCount) : 0)
    memory = try Arena(byteCount: slotByteCount * slotCount)
    memory.region(offset: 0, count: memory.byteCount).initializeMemory(as: UInt8.self, repeating: 1)
    engine = try makeReadEngine(kind: io, files: shape.files, arenas: [memory])
  }

  /// Begins to read an expert.
  /// - Returns: the bytes of it.
  @discardableResult
  private func enqueue() -> Int {
    next = (next + 1) % slotCount
    let layer = Int.random(in: 0..<shape.layout.layerCount, using: &random)
    let expert = Int.random(in: 0..<shape.layout.expertCount, using: &random)
    for read in shape.geometry.reads(layer: layer) {
      let place = shape.geometry.placement(read, layer: layer, expert: expert)
      engine.enqueue(
        ReadRequest(
          file: place.file, span: place.span,
          destination: memory.base + next * slotByteCount + place.slotOffset, tag: UInt64(next),
          priority: .demand))
    }
    return shape.layout.shape(layer: layer).byteCount
  }

  /// Waits until no read is under way.
  private func waitForAll() throws {
    engine.submit()
    while engine.outstandingCount > 0 {
      engine.wait()
      engine.poll { failure = failure ?? $0.error }
    }
    if let failure { throw failure }
  }

  /// The mean seconds from asking for so many experts until all are there.
  func burstSeconds(experts: Int, nanoseconds: UInt64) throws -> Double {
    let start = monotonicNanoseconds()
    var count = 0
    var elapsed: UInt64 = 0
    repeat {
      for _ in 0..<experts { enqueue() }
      try waitForAll()
      count += 1
      elapsed = monotonicNanoseconds() - start
    } while elapsed < nanoseconds
    return Double(elapsed) / 1e9 / Double(count)
  }

  /// Bytes per second while so many experts are always under way.
  ///
  /// - Parameter meanwhile: what the processor does instead of sleeping.
  func bytesPerSecond(
    experts: Int, nanoseconds: UInt64, meanwhile: (() -> Void)? = nil
  ) throws -> Double {
    let start = monotonicNanoseconds()
    let most = experts * shape.geometry.reads(layer: 0).count
    var (byteCount, readCount) = (0, 0)
    var elapsed: UInt64 = 0
    var endedCount = 0
    // At least one, however slow the drive is.
    repeat {
      while engine.outstandingCount < most {
        let before = engine.outstandingCount
        byteCount += enqueue()
        readCount += engine.outstandingCount - before
      }
      engine.submit()
      if let meanwhile { meanwhile() } else { engine.wait() }
      engine.poll { failure = failure ?? $0.error }
      elapsed = monotonicNanoseconds() - start
      endedCount = readCount - engine.outstandingCount
    } while elapsed < nanoseconds || endedCount == 0
    try waitForAll()
    return Double(byteCount) * Double(endedCount) / Double(readCount) / (Double(elapsed) / 1e9)
  }
}

extension ModelFile {
  /// Reads all of the model's files once, so that the page cache holds them if it has the room.
  ///
  /// - Parameter progress: called with the bytes done and all; what it throws ends the reading.
  /// - Throws: what `progress` throws; an error that names the file that could not be read.
  public func fillPageCache(progress: (_ done: Int, _ total: Int) throws -> Void) throws {
    let total = checkpointFiles.reduce(0) { $0 + Int($1.byteCount) }
    var done = 0
    for file in checkpointFiles {
      let handle = try FileHandle(forReadingFrom: URL(fileURLWithPath: file.path))
      while let piece = try handle.read(upToCount: 16 << 20), !piece.isEmpty {
        done += piece.count
        try progress(done, total)
      }
    }
  }
}

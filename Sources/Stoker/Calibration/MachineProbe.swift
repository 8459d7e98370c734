internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Foundation
public import Placement
internal import Tensors

/// How fast the machine is while a model runs, beside when it was measured: shared machines drift.
///
/// A sample takes about a tenth of a second, between two tokens: bursts of one expert's reads and of as many
/// as a token needs of a layer, and products of the model's own type.
public final class MachineProbe {
  private let profile: MachineProfile
  private let work: ModelWork
  private let kind: ReadKind
  private let reader: BurstReader?
  private let products: RandomProducts?
  private let isCached: Bool
  private var samples: [Sample] = []

  /// Seconds of a burst of one expert's reads and of a layer's, and bytes of weights multiplied per second
  /// with one token and with as many as a prompt's experts have.
  struct Sample {
    var one = 0.0
    var all = 0.0
    var products = 0.0
    var promptProducts = 0.0
  }

  /// Tokens of an expert in a prompt of some length.
  private static let promptTokens = 16

  /// - Parameters:
  ///   - model: the model that runs; its threads multiply, so that no others are in their way.
  ///   - profile: the machine as it was measured.
  ///   - kind: how its experts are read.
  /// - Throws: an error that names the file that could not be opened.
  public init(_ model: MoEModel, profile: MachineProfile, reads kind: ReadKind) throws {
    self.profile = profile
    self.kind = kind
    work = try model.file.work(model.options)
    // Where every expert is resident nothing is read.
    reader =
      model.configuration.holdsEveryExpert
      ? nil
      : try BurstReader(
        model.file.shape(model.options), io: model.options.io, kind: kind)
    let isCached = CostModel(profile: profile, work: work).isCached
    self.isCached = isCached
    let type = work.expertMatrices[0][0].type
    let element = ElementType.allCases.first { $0.name == type && Kernels.supports($0) }
    products = try element.map {
      RandomProducts(
        $0, rows: isCached ? 256 : 1024, columns: isCached ? 256 : 2048,
        in: RandomWeights(byteCount: isCached ? 8 << 20 : Calibration.farByteCount),
        tokenCapacity: Self.promptTokens,
        kernels: Kernels(set: try KernelSet.selected()),
        pool: model.pool)
    }
  }

  /// Measures once.
  ///
  /// - Parameter prompt: whether products of a prompt are of interest too.
  /// - Throws: an error that names the file that could not be read.
  public func sample(prompt: Bool = false) throws {
    var sample = Sample()
    if let reader {
      sample.one = try reader.burstSeconds(experts: 1, nanoseconds: 20_000_000)
      sample.all = try reader.burstSeconds(experts: max(2, work.topK), nanoseconds: 50_000_000)
    }
    if let products {
      sample.products = rate(products, tokens: 1)
      if prompt { sample.promptProducts = rate(products, tokens: Self.promptTokens) }
    }
    samples.append(sample)
  }

  /// The mean of times, but for the tenth of them that is the longest and as many of the shortest: a sample
  /// that the machine was stopped in would count for more than a run's share of that.
  private static func mean(_ times: [Double]) -> Double {
    let left = times.count / 10
    let kept = times.sorted().dropFirst(left).dropLast(left)
    return kept.reduce(0, +) / Double(kept.count)
  }

  private func rate(_ products: RandomProducts, tokens: Int) -> Double {
    workPerSecond(for: 30_000_000) {
      Double(products.run(RandomProducts.batchCount, tokens: tokens))
    }
  }

  /// The rate of products over that of the profile, a prompt's where all of the samples have it, and of a
  /// layer's reads: the mean of times of some of the samples; 1 where there are none.
  public func ratios(_ range: some RangeExpression<Int>) -> (compute: Double, disk: Double) {
    let seen = samples[range]
    guard !seen.isEmpty else { return (1, 1) }
    var ratios = (compute: 1.0, disk: 1.0)
    if products != nil {
      let isPrompt = seen.allSatisfy { $0.promptProducts > 0 }
      let expected = profile.productBytesPerSecond(
        work.expertMatrices[0][0].type, tokens: isPrompt ? Double(Self.promptTokens) : 1,
        isCached: isCached)
      ratios.compute =
        1 / Self.mean(seen.map { expected / (isPrompt ? $0.promptProducts : $0.products) })
    }
    if reader != nil,
      let expected = profile.burstSeconds(
        kind, blockBytes: work.meanReadByteCount, count: work.readCount * max(2, work.topK))
    {
      ratios.disk = expected / Self.mean(seen.map(\.all))
    }
    return ratios
  }

  /// The number of samples so far.
  public var count: Int { samples.count }

  /// The machine as some of the samples have it: bursts as they were, and everything else of the drive
  /// or the processor by their ratios.
  public func profile(_ range: some RangeExpression<Int>) -> MachineProfile {
    let ratios = ratios(range)
    var now = profile.scalingCompute(by: ratios.compute)
    let seen = samples[range]
    guard reader != nil, !seen.isEmpty else { return now }
    if kind != .cached { now = now.scalingDisk(by: ratios.disk) }
    let block = work.meanReadByteCount
    let all = work.readCount * max(2, work.topK)
    let steady = CostModel(profile: now, work: work).measuredSteadyBytesPerSecond(kind) ?? 1
    now.disk.removeAll { $0.kind == kind }
    for (depth, seconds) in [
      (work.readCount, Self.mean(seen.map(\.one))), (all, Self.mean(seen.map(\.all))),
    ] {
      now.disk.append(
        DiskRate(
          kind: kind, blockBytes: block, depth: depth,
          bytesPerSecond: Figure(max(steady, Double(block * depth) / seconds)),
          burstSeconds: Figure(seconds)))
    }
    return now
  }
}

/// Reads random experts of a model, so many at a time.
private final class BurstReader {
  private let shape: RunShape
  private let engine: any ReadEngine
  private let memory: Arena
  private let slotByteCount: Int
  private let slotCount: Int
  private var next = 0
  private var random = SystemRandomNumberGenerator()

  /// - Parameter kind: how reads are answered. What the processor copies goes to memory, as into the slots of a
  ///   model, not to a cache that it stays in.
  init(_ shape: RunShape, io: ReadEngineKind, kind: ReadKind) throws {
    self.shape = shape
    slotByteCount = shape.geometry.slotByteCounts.max() ?? 0
    let fewest = max(2, shape.description.expertsPerToken)
    slotCount = max(fewest, kind == .cached ? Calibration.farByteCount / max(1, slotByteCount) : 0)
    memory = try Arena(byteCount: slotByteCount * slotCount)
    memory.region(offset: 0, count: memory.byteCount).initializeMemory(as: UInt8.self, repeating: 1)
    engine = try makeReadEngine(kind: io, files: shape.files, arenas: [memory])
  }

  /// The mean seconds from asking for so many experts until all are there.
  func burstSeconds(experts: Int, nanoseconds: UInt64) throws -> Double {
    let start = monotonicNanoseconds()
    var count = 0
    var elapsed: UInt64 = 0
    var failure: IOError?
    repeat {
      for _ in 0..<experts {
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
      }
      engine.submit()
      while engine.outstandingCount > 0 {
        engine.wait()
        engine.poll { failure = failure ?? $0.error }
      }
      if let failure { throw failure }
      count += 1
      elapsed = monotonicNanoseconds() - start
    } while elapsed < nanoseconds
    return Double(elapsed) / 1e9 / Double(count)
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

internal import DirectIO
internal import Foundation
internal import Models
public import Placement
internal import Tensors

/// Measures what a machine does: `stoker calibrate`.
///
/// Everything is measured in three rounds, one after the other, so that a figure's spread shows how far
/// the machine itself drifts within the time that measuring takes.
public struct Calibration {
  /// How much is measured.
  public enum Effort: Sendable {
    /// Three rounds of everything, in about a minute.
    case whole
    /// One short round with a small file, for tests: figures that mean little.
    case trial

    var rounds: Int { self == .whole ? 3 : 1 }
    /// The shortest measurement of the drive and of anything else, in nanoseconds.
    var diskNanoseconds: UInt64 { self == .whole ? 24_000_000 : 2_000_000 }
    var nanoseconds: UInt64 { self == .whole ? 16_000_000 : 2_000_000 }
    /// Bytes of the file that is read.
    var fileByteCount: Int { self == .whole ? 2 << 30 : 32 << 20 }
    /// Numbers of tokens that products are measured with: for a decoded token, and for the experts of a prompt
    /// that few or many of its tokens use.
    var tokenCounts: [Int] {
      self == .whole ? [1, 2, 4, 8, 16, 32, 128, 512] : [1, 16, 64]
    }
    /// Turns of what is measured beside something else.
    var turns: Int { self == .whole ? 6 : 1 }
    var weightByteCount: Int { self == .whole ? Calibration.farByteCount : 8 << 20 }
  }

  /// Bytes of weights of which what is read has left the caches before it is read again: processors keep a part
  /// of what is gone through in turn, so several times what they hold; no more than an eighth of the memory.
  static var farByteCount: Int {
    max(96 << 20, min(16 * Machine.sharedCacheByteCount, Machine.defaultMemoryBudget / 8, 1 << 30))
  }

  let folder: String
  let effort: Effort
  let pool: WorkerPool
  let kernels: Kernels
  /// Weights out of memory, and out of the cache.
  let weights: (far: RandomWeights, near: RandomWeights)
  /// Memory that is read, and read to in turn, as into the slots of a model: what a cache keeps is faster.
  let farMemory: Arena
  private let identity: MachineIdentity

  /// - Parameters:
  ///   - folder: a folder on the drive that will hold the model.
  ///   - threads: threads that compute; nil: those this process may use.
  /// - Throws: `StokerError.calibration` if the folder cannot be used.
  public init(folder: String, threads: Int? = nil, effort: Effort = .whole) throws {
    self.folder = folder
    self.effort = effort
    var isFolder: ObjCBool = false
    guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue
    else { throw StokerError.calibration(folder: folder, reason: "there is no such folder") }
    identity = try .here(folder: folder, threads: threads)
    guard (1...256).contains(identity.threads) else {
      throw StokerError.option(
        name: "--threads", found: "\(identity.threads)", expected: "1 to 256")
    }
    pool = try WorkerPool(threadCount: identity.threads)
    kernels = Kernels(set: try KernelSet.selected())
    weights = (RandomWeights(byteCount: effort.weightByteCount), RandomWeights(byteCount: 8 << 20))
    farMemory = try Arena(byteCount: effort.weightByteCount)
    farMemory.region(offset: 0, count: farMemory.byteCount)
      .initializeMemory(as: UInt8.self, repeating: 1)
  }

  /// Measures; the files it makes in the folder are gone afterwards, however it ends.
  ///
  /// - Parameters:
  ///   - progress: called with the share that is done and what is under way.
  ///   - isCancelled: asked again and again.
  /// - Throws: `StokerError.calibration` naming the folder and why; `.cancelled`.
  public func run(
    progress: (_ share: Double, _ step: String) -> Void = { _, _ in },
    isCancelled: () -> Bool = { false }
  ) throws -> MachineProfile {
    func step(_ share: Double, _ name: String) throws {
      guard !isCancelled() else { throw StokerError.cancelled }
      progress(share, name)
    }
    var file = try CalibrationFile(folder: folder, byteCount: effort.fileByteCount) {
      try step(0.1 * $0, "writing a file to read")
    }
    let model = try CalibrationModel.small(folder: folder, threads: identity.threads)
    let layers = try CalibrationModel(
      .calibrationLayers, .q4_0, folder: folder, threads: identity.threads)
    var disk: [CalibrationFile.Cell: (rates: [Double], bursts: [Double])] = [:]
    var handIns: [CalibrationFile.HandIn] = []
    var memory: [Int: [Double]] = [:]
    var products: [ProductCell: [Double]] = [:]
    /// Shares of reading and of products, by the tokens of the products.
    var shares: [Int: [(read: Double, compute: Double)]] = [:]
    var parts: [CalibrationModel.Parts] = []
    var timings: [LayerTimes] = []
    for round in 0..<effort.rounds {
      let base = 0.1 + 0.9 * Double(round) / Double(effort.rounds)
      let span = 0.9 / Double(effort.rounds)
      handIns.append(
        try file.measure(effort, into: farMemory) { cell, rate, burst in
          disk[cell, default: ([], [])].rates.append(rate)
          disk[cell]!.bursts.append(burst)
          try step(base + 0.1 * span, "disk")
        })
      try step(base + 0.4 * span, "memory")
      for (threads, rate) in try memoryRates() { memory[threads, default: []].append(rate) }
      for type in ElementType.allCases where Kernels.supports(type) {
        try step(base + 0.5 * span, "products with \(type.name)")
        for (cell, rate) in productRates(type) + otherProductRates(type) {
          products[cell, default: []].append(rate)
        }
      }
      try step(base + 0.9 * span, "reading while computing")
      for tokens in [1, Self.expertTokens] {
        shares[tokens, default: []].append(try contention(with: file, tokens: tokens))
      }
      try step(base + 0.95 * span, "a small model")
      parts.append(try model.measure(effort))
      timings.append(try layerTimes(of: layers))
    }
    func figures(of tokens: Int) -> Contention {
      let rounds = shares[tokens]!
      return Contention(
        readShare: Figure(rounds: rounds.map(\.read)),
        computeShare: Figure(rounds: rounds.map(\.compute)))
    }
    var profile = MachineProfile(
      name: "\(identity.processor), \(identity.threads) threads, \(identity.kernels); "
        + identity.drive,
      isNominal: false, date: Date().formatted(.iso8601), machine: identity,
      disk: disk.map { cell, samples in
        DiskRate(
          kind: cell.kind, blockBytes: cell.blockByteCount, depth: cell.depth,
          bytesPerSecond: Figure(rounds: samples.rates),
          burstSeconds: Figure(rounds: samples.bursts))
      }.sorted {
        ($0.kind.rawValue, $0.blockBytes, $0.depth) < ($1.kind.rawValue, $1.blockBytes, $1.depth)
      },
      memory: memory.sorted { $0.key < $1.key }.map {
        MemoryRate(threads: $0.key, bytesPerSecond: Figure(rounds: $0.value))
      },
      products: products.map { cell, samples in
        ProductRate(
          type: cell.type, kernels: cell.kernels, tokens: cell.tokens, isCached: cell.isCached,
          bytesPerSecond: Figure(rounds: samples))
      }.sorted {
        ($0.type, $0.kernels, $0.isCached ? 1 : 0, $0.tokens)
          < ($1.type, $1.kernels, $1.isCached ? 1 : 0, $1.tokens)
      },
      layerSeconds: Figure(rounds: parts.map(\.layerSeconds)),
      tokenSeconds: Figure(rounds: parts.map(\.tokenSeconds)),
      samplingSeconds: Figure(rounds: parts.map(\.samplingSeconds)),
      contextBytesPerSecond: Figure(rounds: parts.map(\.contextBytesPerSecond)),
      promptContextBytesPerSecond: Figure(rounds: parts.map(\.promptContextBytesPerSecond)),
      promptValueSeconds: Figure(rounds: parts.map(\.promptValueSeconds)),
      contention: figures(of: 1), promptContention: figures(of: Self.expertTokens))
    profile.handInSeconds = Figure(rounds: handIns.map(\.once))
    profile.readHandInSeconds = Figure(rounds: handIns.map(\.perRead))
    profile.predictionSeconds = Figure(rounds: parts.map(\.predictionSeconds))
    profile.notes = Machine.notes + file.notes
    file.checkPlausibility(&profile)
    if let fault = profile.fault { throw StokerError.calibration(folder: folder, reason: fault) }
    CostModel(profile: profile, work: model.work).takeProducts(
      out: &profile, tokens: model.work.chunkTokens)
    // What those layers take alone, of what they took.
    let alone = CostModel(profile: profile, work: layers.work)
      .residentSeconds(promptTokens: Self.promptTokens)
    func share(_ alone: Double, _ tokens: Int, byteCount: Double) -> Double {
      alone / byteCount
        * profile.productBytesPerSecond(
          Self.layerType.name, tokens: Double(tokens), isCached: false)
    }
    profile.decodeEfficiency = Figure(
      rounds: timings.map { share(alone.decode, 1, byteCount: $0.decode) })
    profile.promptEfficiency = Figure(
      rounds: timings.map { share(alone.prompt, Self.expertTokens, byteCount: $0.prompt) })
    return profile
  }

  /// Tokens of the prompt that a model's layers are timed with, and those of each of its experts.
  private static let promptTokens = 64
  private static let expertTokens = 32
  /// The type of that model.
  static let layerType = ElementType.q4_0

  /// Bytes of weights that products alone go through in the time that a model's layers take: for a token, and
  /// for a prompt.
  private struct LayerTimes {
    let decode: Double
    let prompt: Double
  }

  private func layerTimes(of model: CalibrationModel) throws -> LayerTimes {
    let products = RandomProducts(
      Self.layerType, rows: 1024, columns: 2048, in: weights.far,
      tokenCapacity: Self.expertTokens, kernels: kernels, pool: pool)
    // In turn, and the median of them: a machine that others use too is now faster, now slower.
    func byteCount(tokens: Int, seconds: () throws -> Double) rethrows -> Double {
      Figure(
        rounds: try (0..<effort.turns).map { _ in
          let count = tokens > 1 ? 1 : RandomProducts.batchCount
          let rate = rate { products.run(count, tokens: tokens) }
          return rate * (try seconds())
        }
      ).value
    }
    try model.warm(promptTokens: Self.promptTokens)
    return LayerTimes(
      decode: try byteCount(tokens: 1) { try model.decodeSeconds() },
      prompt: try byteCount(tokens: Self.expertTokens) {
        try model.promptSeconds(tokens: Self.promptTokens)
      })
  }

  /// What products are measured with.
  struct ProductCell: Hashable {
    let type: String
    let kernels: String
    let tokens: Int
    let isCached: Bool
  }
}

/// What a machine does per second: measured by `stoker calibrate`, or nominal, from datasheets.
///
/// As JSON it has the names of its properties in snake case, and is read by people too.
public struct MachineProfile: Hashable, Sendable, Codable {
  /// The version of this form.
  public static let currentVersion = 4

  public var version = Self.currentVersion
  /// The machine in words.
  public var name: String
  /// Whether the figures are from datasheets.
  public var isNominal: Bool
  /// When it was measured, as ISO 8601 has it; nil for nominal ones.
  public var date: String?
  public var machine: MachineIdentity
  /// Reads from the drive, by kind, block and number of reads at a time.
  public var disk: [DiskRate]
  /// Plain reading of memory, by number of threads.
  public var memory: [MemoryRate]
  /// Products with weights, on all threads; of kernel sets other than the machine's only some, to compare.
  public var products: [ProductRate]
  /// What a layer takes beside its products and the disk: norms, router, threads that meet.
  public var layerSeconds: Figure
  /// What a token takes beside its layers and the output head.
  public var tokenSeconds: Figure
  /// Seconds of choosing the next token, for each token of the vocabulary.
  public var samplingSeconds: Figure
  /// Bytes of keys and values that attention goes through per second: when one token looks back, and,
  /// counted once for each token, when many of a prompt do.
  public var contextBytesPerSecond: Figure
  public var promptContextBytesPerSecond: Figure
  /// Seconds of a prompt's token at a layer beside products and attention, for each value of its hidden
  /// state.
  public var promptValueSeconds: Figure
  /// Seconds for which the processor is kept by handing in reads past the page cache, once and for each read.
  public var handInSeconds = Figure(0)
  public var readHandInSeconds = Figure(0)
  /// What a prediction of a layer's routing takes beside its product.
  public var predictionSeconds = Figure(0)
  /// The share of their rates that products keep in a model that runs, out of memory: with one token, and
  /// with the many of a prompt.
  public var decodeEfficiency = Figure(1)
  public var promptEfficiency = Figure(1)
  /// What is left of each rate while the disk is read and experts are multiplied at the same time: with one
  /// token, when memory binds, and with the many of a prompt.
  public var contention: Contention
  public var promptContention: Contention
  /// The accelerators, none where there is none. Only presets have them so far.
  public var devices: [DeviceRate] = []
  /// What was seen of the system, in words: memory limits, huge pages, features of io_uring.
  public var notes: [String] = []

  public init(
    name: String, isNominal: Bool, date: String?, machine: MachineIdentity, disk: [DiskRate],
    memory: [MemoryRate], products: [ProductRate], layerSeconds: Figure, tokenSeconds: Figure,
    samplingSeconds: Figure,
    contextBytesPerSecond: Figure, promptContextBytesPerSecond: Figure, promptValueSeconds: Figure,
    contention: Contention, promptContention: Contention
  ) {
    self.name = name
    self.isNominal = isNominal
    self.date = date
    self.machine = machine
    self.disk = disk
    self.memory = memory
    self.products = products
    self.layerSeconds = layerSeconds
    self.tokenSeconds = tokenSeconds
    self.samplingSeconds = samplingSeconds
    self.contextBytesPerSecond = contextBytesPerSecond
    self.promptContextBytesPerSecond = promptContextBytesPerSecond
    self.promptValueSeconds = promptValueSeconds
    self.contention = contention
    self.promptContention = promptContention
  }
}

/// A measured figure: the median of some rounds, and how far they lay apart.
public struct Figure: Hashable, Sendable, Codable {
  public var value: Double
  /// Half of what lies between the largest and the smallest round, over the median: 0.1 is a tenth up
  /// and down. Without one round too many there is no spread; then it is 0.
  public var spread: Double

  public init(_ value: Double, spread: Double = 0) {
    self.value = value
    self.spread = spread
  }

  /// The median of `rounds`, of which there is at least one.
  public init(rounds: [Double]) {
    let sorted = rounds.sorted()
    let middle = sorted.count / 2
    value =
      sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
    spread = value == 0 ? 0 : (sorted[sorted.count - 1] - sorted[0]) / 2 / abs(value)
  }

  public static func * (figure: Figure, factor: Double) -> Figure {
    Figure(figure.value * factor, spread: figure.spread)
  }
}

/// Which machine a profile is of.
public struct MachineIdentity: Hashable, Sendable, Codable {
  public var processor: String
  /// Threads that a run may use.
  public var threads: Int
  /// Memory, in bytes.
  public var memoryBytes: Int
  /// The kernel set of products, as "avx2".
  public var kernels: String
  /// The largest cache that threads share, in bytes.
  public var cacheBytes: Int
  /// The drive that was read: its device and file system, in words.
  public var drive: String

  public init(
    processor: String, threads: Int, memoryBytes: Int, kernels: String, cacheBytes: Int,
    drive: String
  ) {
    self.processor = processor
    self.threads = threads
    self.memoryBytes = memoryBytes
    self.kernels = kernels
    self.cacheBytes = cacheBytes
    self.drive = drive
  }

  /// How `other` differs, in words; nil if it does not.
  public func difference(from other: MachineIdentity) -> String? {
    if processor != other.processor {
      return "it is of '\(other.processor)', this is '\(processor)'"
    }
    if threads != other.threads {
      return "it is of \(other.threads) threads, this run has \(threads)"
    }
    if kernels != other.kernels { return "it is of \(other.kernels) kernels, these are \(kernels)" }
    // Firmware and kernels take a little more or less from boot to boot.
    if abs(memoryBytes - other.memoryBytes) > memoryBytes / 16 {
      return "it is of another amount of memory"
    }
    return nil
  }
}

/// How reads are answered.
public enum ReadKind: String, Hashable, Sendable, Codable, CaseIterable {
  /// By the drive, past the page cache (O_DIRECT).
  case direct
  /// By the drive, through the page cache, which keeps what was read.
  case buffered
  /// By the page cache.
  case cached
}

/// Reads of one size, so many at a time.
public struct DiskRate: Hashable, Sendable, Codable {
  public var kind: ReadKind
  public var blockBytes: Int
  /// Reads under way at a time.
  public var depth: Int
  /// Bytes per second while as many reads are always under way.
  public var bytesPerSecond: Figure
  /// Seconds from handing in `depth` reads until the last of them is done, with none before or after.
  public var burstSeconds: Figure

  public init(
    kind: ReadKind, blockBytes: Int, depth: Int, bytesPerSecond: Figure, burstSeconds: Figure
  ) {
    self.kind = kind
    self.blockBytes = blockBytes
    self.depth = depth
    self.bytesPerSecond = bytesPerSecond
    self.burstSeconds = burstSeconds
  }
}

/// Memory read by so many threads.
public struct MemoryRate: Hashable, Sendable, Codable {
  public var threads: Int
  public var bytesPerSecond: Figure

  public init(threads: Int, bytesPerSecond: Figure) {
    self.threads = threads
    self.bytesPerSecond = bytesPerSecond
  }
}

/// Products of weights of one element type with so many tokens' vectors at once.
public struct ProductRate: Hashable, Sendable, Codable {
  /// GGUF's name of the type, as "Q4_K".
  public var type: String
  /// The kernel set, as "avx2".
  public var kernels: String
  /// Vectors that are multiplied with the same weights.
  public var tokens: Int
  /// Whether the weights come out of the processor's cache.
  public var isCached: Bool
  /// Bytes of weights per second; each byte is counted once, whatever the number of tokens.
  public var bytesPerSecond: Figure

  public init(
    type: String, kernels: String, tokens: Int, isCached: Bool, bytesPerSecond: Figure
  ) {
    self.type = type
    self.kernels = kernels
    self.tokens = tokens
    self.isCached = isCached
    self.bytesPerSecond = bytesPerSecond
  }
}

/// The shares of their rates that reading and computing keep when both are under way.
public struct Contention: Hashable, Sendable, Codable {
  public var readShare: Figure
  public var computeShare: Figure

  public init(readShare: Figure, computeShare: Figure) {
    self.readShare = readShare
    self.computeShare = computeShare
  }

  /// The course of things while something is computed and something is read, until one of both ends.
  ///
  /// - Parameters:
  ///   - computing: seconds of what is to be computed, alone.
  ///   - reading: seconds of what is to be read, alone.
  /// - Returns: the seconds that pass, and of `computing` and of `reading` those that are done then.
  package func overlap(
    computing: Double, reading: Double
  ) -> (seconds: Double, computed: Double, read: Double) {
    let (computeShare, readShare) = (min(1, computeShare.value), min(1, readShare.value))
    let seconds = min(computing / computeShare, reading / readShare)
    return (seconds, min(computing, seconds * computeShare), min(reading, seconds * readShare))
  }
}

/// An accelerator with memory of its own, behind a link.
public struct DeviceRate: Hashable, Sendable, Codable {
  public var name: String
  public var memoryBytes: Int
  /// Bytes per second of its memory.
  public var bytesPerSecond: Double
  /// Operations per second with 16-bit factors.
  public var operationsPerSecond: Double
  /// Bytes per second over the link to the host, and seconds of a transfer beyond its bytes.
  public var linkBytesPerSecond: Double
  public var linkSeconds: Double
  /// Seconds of a layer's kernels beyond their bytes.
  public var launchSeconds: Double

  public init(
    name: String, memoryBytes: Int, bytesPerSecond: Double, operationsPerSecond: Double,
    linkBytesPerSecond: Double, linkSeconds: Double = 20e-6, launchSeconds: Double = 30e-6
  ) {
    self.name = name
    self.memoryBytes = memoryBytes
    self.bytesPerSecond = bytesPerSecond
    self.operationsPerSecond = operationsPerSecond
    self.linkBytesPerSecond = linkBytesPerSecond
    self.linkSeconds = linkSeconds
    self.launchSeconds = launchSeconds
  }
}

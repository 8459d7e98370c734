internal import Checkpoints
internal import DirectIO
internal import Foundation
public import Placement
internal import Tensors

/// How fast the machine is now, beside when it was measured: shared machines drift.
public struct MachineProbe: Hashable, Sendable, Codable {
  /// The drive's rate over that of the profile, with reads of the model's size.
  public var disk: Double
  /// The rate of products over that of the profile.
  public var compute: Double

  /// Nothing has changed.
  public init() {
    disk = 1
    compute = 1
  }

  /// The mean of both.
  public static func mean(_ a: MachineProbe, _ b: MachineProbe) -> MachineProbe {
    var mean = MachineProbe()
    mean.disk = (a.disk + b.disk) / 2
    mean.compute = (a.compute + b.compute) / 2
    return mean
  }

  /// `profile` as the machine is now.
  public func applied(to profile: MachineProfile) -> MachineProfile {
    profile.scalingDisk(by: disk).scalingCompute(by: compute)
  }
}

extension ModelFile {
  /// Looks for some two seconds how fast the drive and the processor are now.
  ///
  /// - Parameter kind: how experts are read; what comes out of the page cache is the processor's doing.
  /// - Throws: an error that names the file or expert that could not be read.
  public func probe(
    _ profile: MachineProfile, reads kind: ReadKind, options: ModelOptions
  ) throws -> MachineProbe {
    var probe = MachineProbe()
    let work = try work(options)
    if kind != .cached {
      var options = options
      options.direct = kind == .direct ? .auto : .off
      let measured = try measureDisk(options)
      // The profile's rate with as many reads at a time, which is a burst that never ends.
      let rates = profile.disk.filter { $0.kind == kind }
      let block = work.meanMatrixByteCount
      let nearest = rates.min {
        Self.distance($0, block, measured.queueDepth)
          < Self.distance($1, block, measured.queueDepth)
      }
      if let nearest { probe.disk = measured.bytesPerSecond / nearest.bytesPerSecond.value }
    }
    let type = work.expertMatrices[0][0].type
    guard
      let element = ElementType.allCases.first(where: { $0.name == type && $0.isComputable })
    else { return probe }
    let threads = options.threads ?? Machine.processorCount
    let products = RandomProducts(
      element, rows: 1024, columns: 2048, byteCount: 64 << 20, tokenCapacity: 1,
      kernels: Kernels(set: try KernelSet.selected()), pool: try WorkerPool(threadCount: threads))
    var rates: [Double] = []
    for _ in 0..<15 {
      let start = monotonicNanoseconds()
      var bytes = 0
      while monotonicNanoseconds() - start < 20_000_000 {
        bytes += products.run(RandomProducts.batchCount, tokens: 1)
      }
      rates.append(Double(bytes) / (Double(monotonicNanoseconds() - start) / 1e9))
    }
    probe.compute =
      Figure(rounds: rates).value
      / profile.productBytesPerSecond(type, tokens: 1, isCached: false)
    return probe
  }

  /// The share of the model's files that the page cache has; nil where the system does not say.
  /// - Throws: an error that names the file that could not be opened.
  public func cachedShare() throws -> Double? {
    var bytes = 0.0
    for file in checkpointFiles {
      guard let share = try DataFile(path: file.path, direct: .off).cachedShare() else {
        return nil
      }
      bytes += share * Double(file.byteCount)
    }
    return bytes / Double(max(1, checkpointFiles.reduce(0) { $0 + $1.byteCount }))
  }

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

  /// How far a cell is from reads of `block` bytes, `depth` at a time: factors count, whichever way.
  private static func distance(_ rate: DiskRate, _ block: Int, _ depth: Int) -> Double {
    func factor(_ a: Int, _ b: Int) -> Double { Double(max(a, b)) / Double(max(1, min(a, b))) }
    return factor(rate.blockBytes, block) * factor(rate.depth, depth)
  }
}

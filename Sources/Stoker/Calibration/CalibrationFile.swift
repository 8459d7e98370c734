internal import DirectIO
internal import Foundation
internal import Placement
internal import Tensors

/// A file of random bytes on the drive that is measured. Nobody else sees it, and it goes with the value.
struct CalibrationFile {
  /// Reads of one kind, size and number at a time.
  struct Cell: Hashable {
    let kind: ReadKind
    let blockByteCount: Int
    let depth: Int
  }

  private let direct: DataFile?
  private let buffered: DataFile
  private let folder: String
  /// What was found out on the way, in words.
  private(set) var notes: [String] = []

  /// Writes the file.
  /// - Throws: `StokerError.calibration`, and what `progress` throws.
  init(folder: String, byteCount: Int, progress: (Double) throws -> Void) throws {
    self.folder = folder
    func failure(_ reason: String) -> StokerError { .calibration(folder: folder, reason: reason) }
    let values = try? URL(fileURLWithPath: folder).resourceValues(
      forKeys: [.volumeAvailableCapacityKey])
    if let free = values?.volumeAvailableCapacity, free < byteCount + byteCount / 8 {
      throw failure(
        "\(byteCount) bytes are needed for a file to read, and \(free) are free")
    }
    let path = "\(folder)/.stoker-calibration-\(ProcessInfo.processInfo.processIdentifier)"
    guard FileManager.default.createFile(atPath: path, contents: nil),
      let handle = FileHandle(forWritingAtPath: path)
    else { throw failure("no file can be made in it") }
    // Without a name it is gone with the process, however that ends.
    try? FileManager.default.removeItem(atPath: path)
    do {
      let pieceByteCount = 8 << 20
      var random = SystemRandomNumberGenerator()
      var piece = Data(count: pieceByteCount)
      piece.withUnsafeMutableBytes { bytes in
        for offset in stride(from: 0, to: pieceByteCount, by: 8) {
          bytes.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
        }
      }
      var done = 0
      while done < byteCount {
        // No two pieces are the same, should the drive look for that.
        for offset in stride(from: 0, to: pieceByteCount, by: 4096) {
          piece[offset] = UInt8.random(in: 0...255, using: &random)
        }
        try handle.write(contentsOf: piece)
        done += pieceByteCount
        try progress(Double(done) / Double(byteCount))
      }
      try handle.synchronize()
    } catch let error as StokerError {
      throw error
    } catch {
      throw failure("\(error.localizedDescription)")
    }
    let link = "/proc/self/fd/\(handle.fileDescriptor)"
    let file = try DataFile(path: link, direct: .auto)
    direct = file.isDirect ? file : nil
    buffered = try DataFile(path: link, direct: .off)
    try handle.close()
    if file.fallbackReason != nil {
      notes.append("the drive of '\(folder)' is read through the page cache: it refuses O_DIRECT")
    }
  }

  /// How experts are read from here unless it is asked otherwise.
  var mainKind: ReadKind { direct == nil ? .buffered : .direct }

  private static let blockByteCounts = [4 << 10, 32 << 10, 128 << 10, 512 << 10, 1 << 20, 4 << 20]
  private static let depths = [1, 3, 8, 24]

  /// Measures every kind of read once, into `memory`.
  ///
  /// - Parameter note: called with a cell, its bytes per second and the seconds of a burst.
  /// - Returns: the seconds for which handing in reads keeps the processor.
  mutating func measure(
    _ effort: Calibration.Effort, into memory: Arena,
    note: (Cell, Double, Double) throws -> Void
  ) throws -> HandIn {
    var handIns = HandIns()
    for kind in ReadKind.allCases where kind != .direct || direct != nil {
      for block in Self.blockByteCounts where kind != .buffered || block >= 32 << 10 {
        for depth in Self.depths {
          let cell = Cell(kind: kind, blockByteCount: block, depth: depth)
          if kind == .buffered { buffered.forgetCached() }
          var reader = try reader(cell, into: memory)
          // Once for all, as nothing else is read through it meanwhile.
          if kind == .cached, block == Self.blockByteCounts[0], depth == Self.depths[0] {
            try reader.warm()
          }
          let time = kind == .cached ? effort.nanoseconds / 2 : effort.diskNanoseconds
          let burst = try reader.burstSeconds(nanoseconds: time)
          if kind == mainKind, HandIns.blockByteCounts.contains(block) {
            handIns.add(reader.handInSeconds, depth: depth)
          }
          let rate = try reader.steadyRate(nanoseconds: time)
          try note(cell, rate, burst)
        }
      }
    }
    let engine = try makeReadEngine(kind: .auto, files: [buffered], arenas: [])
    let note =
      "experts are read with \(engine.name)"
      + (engine.registeredFiles ? ", files registered" : "")
    if !notes.contains(note) { notes += [note] + engine.fallbacks }
    return handIns.result
  }

  /// What handing in reads takes: once, and for each read.
  struct HandIn {
    let once: Double
    let perRead: Double
  }

  /// What it took, by the reads that were handed in together.
  private struct HandIns {
    /// Blocks as large as matrices of experts are.
    static let blockByteCounts = (128 << 10)...(1 << 20)
    private var samples: [(depth: Double, seconds: Double)] = []

    mutating func add(_ seconds: Double, depth: Int) { samples.append((Double(depth), seconds)) }

    /// The straight line nearest to the samples; not below 0 at either end.
    var result: HandIn {
      let count = Double(max(1, samples.count))
      let depth = samples.reduce(0) { $0 + $1.depth } / count
      let seconds = samples.reduce(0) { $0 + $1.seconds } / count
      let both = samples.reduce(0) { $0 + ($1.depth - depth) * ($1.seconds - seconds) }
      let square = samples.reduce(0) { $0 + ($1.depth - depth) * ($1.depth - depth) }
      let perRead = square > 0 ? min(max(0, both / square), seconds / max(1, depth)) : 0
      return HandIn(once: max(0, seconds - perRead * depth), perRead: perRead)
    }
  }

  /// Something to read with as `cell` says, into `memory` in turn.
  func reader(_ cell: Cell, into memory: Arena) throws -> CalibrationReader {
    try CalibrationReader(
      cell.kind == .direct ? direct ?? buffered : buffered, cell: cell, memory: memory)
  }

  /// Takes out of `profile` what the drive cannot have done, and says so.
  ///
  /// A rate above that of the drive's link was answered by a cache on the way. Where the system does not
  /// tell the link, the fastest that drives have stands for it: PCIe 5.0 with four lanes.
  func checkPlausibility(_ profile: inout MachineProfile) {
    let link = Machine.drive(of: folder).link
    let limit = link?.bytesPerSecond ?? 15.75e9
    let name = link?.name ?? "any drive's link (PCIe 5.0 x 4)"
    let before = profile.disk.count
    profile.disk.removeAll { $0.kind != .cached && $0.bytesPerSecond.value > limit }
    if profile.disk.count < before {
      profile.notes.append(
        "\(before - profile.disk.count) bandwidths are left out: more than \(Int(limit)) bytes/s, what "
          + "\(name) carries; a cache answered instead of the drive")
    }
  }
}

/// Reads random blocks of a file, none of them twice while there are others.
struct CalibrationReader {
  private let file: DataFile
  private let cell: CalibrationFile.Cell
  private let engine: any ReadEngine
  private let memory: Arena
  private var order: [Int]
  private var next = 0
  private var place = 0
  private var handInNanoseconds: UInt64 = 0
  private var burstCount = 0
  /// The mean seconds of handing in the reads of a burst.
  var handInSeconds: Double { Double(handInNanoseconds) / 1e9 / Double(max(1, burstCount)) }

  init(_ file: DataFile, cell: CalibrationFile.Cell, memory: Arena) throws {
    self.file = file
    self.cell = cell
    let byteCount = cell.blockByteCount * cell.depth
    self.memory = memory.byteCount >= byteCount ? memory : try Arena(byteCount: byteCount)
    engine = try makeReadEngine(kind: .auto, files: [file], arenas: [self.memory])
    let readByteCount =
      cell.kind == .cached ? min(file.byteCount, Self.cachedByteCount) : file.byteCount
    let most = 1 << 16
    order = Array((0..<max(1, min(most, readByteCount / cell.blockByteCount))))
    let stride = max(1, readByteCount / cell.blockByteCount / order.count)
    order = order.map { $0 * stride }.shuffled()
  }

  private mutating func enqueue(slot: Int) {
    let span = file.span(
      offset: UInt64(order[next] * cell.blockByteCount), byteCount: cell.blockByteCount)
    next = (next + 1) % order.count
    place = (place + 1) % (memory.byteCount / cell.blockByteCount)
    engine.enqueue(
      ReadRequest(
        file: 0, span: span, destination: memory.base + place * cell.blockByteCount,
        tag: UInt64(slot), priority: .demand))
  }

  /// What the page cache is to answer has to fit it.
  private static let cachedByteCount = 512 << 20

  /// Has the page cache hold what is read, as it does of a file that has been gone through from its beginning:
  /// in pages as large as it likes. Where blocks were read here and there it has small ones, which it answers
  /// from at half the rate.
  func warm() throws {
    file.forgetCached()
    let step = 1 << 20
    let piece = try Arena(byteCount: step)
    let end = min(file.byteCount, Self.cachedByteCount)
    for offset in stride(from: 0, to: end, by: step) {
      let span = file.span(offset: UInt64(offset), byteCount: min(step, end - offset))
      if let failure = file.read(span, into: piece.base) { throw failure }
    }
  }

  private mutating func burst() throws {
    for slot in 0..<cell.depth { enqueue(slot: slot) }
    let start = monotonicNanoseconds()
    engine.submit()
    handInNanoseconds += monotonicNanoseconds() - start
    burstCount += 1
    var failure: IOError?
    while engine.outstandingCount > 0 {
      engine.wait()
      engine.poll { failure = failure ?? $0.error }
    }
    if let failure { throw failure }
  }

  /// The mean seconds from handing in as many reads as go at a time until all are done.
  mutating func burstSeconds(nanoseconds: UInt64) throws -> Double {
    let start = monotonicNanoseconds()
    var count = 0
    var elapsed: UInt64 = 0
    repeat {
      try burst()
      count += 1
      elapsed = monotonicNanoseconds() - start
    } while elapsed < nanoseconds
    return Double(elapsed) / 1e9 / Double(count)
  }

  /// Bytes per second while always as many reads are under way.
  /// - Parameter meanwhile: what the processor does instead of sleeping.
  mutating func steadyRate(nanoseconds: UInt64, meanwhile: (() -> Void)? = nil) throws -> Double {
    let start = monotonicNanoseconds()
    var byteCount = 0
    var failure: IOError?
    var ended: [Int] = []
    for slot in 0..<cell.depth { enqueue(slot: slot) }
    engine.submit()
    while monotonicNanoseconds() - start < nanoseconds || engine.outstandingCount > 0 {
      if let meanwhile { meanwhile() } else { engine.wait() }
      engine.poll { completion in
        failure = failure ?? completion.error
        byteCount += cell.blockByteCount
        ended.append(Int(completion.tag))
      }
      if failure == nil, monotonicNanoseconds() - start < nanoseconds {
        for slot in ended { enqueue(slot: slot) }
        engine.submit()
      }
      ended.removeAll(keepingCapacity: true)
    }
    if let failure { throw failure }
    return Double(byteCount) / (Double(monotonicNanoseconds() - start) / 1e9)
  }
}

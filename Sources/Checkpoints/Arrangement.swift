package import DirectIO
internal import Synchronization
internal import Tensors

/// Experts in 4-bit floats that lie in a file otherwise than they are computed with, as in gpt-oss's folders: the
/// scales of blocks apart from them, neighbouring values in a byte, rows of gate and up taking turns.
///
/// They have places of their own beyond the end of the file, where they are blocks of MXFP4, gate before up; a
/// read there is made of reads of the file.
package struct Arrangement: Sendable, Hashable {
  /// A matrix of one expert, or gate and up, which are read together.
  struct Matrix: Sendable, Hashable {
    /// Its place.
    let start: UInt64
    let rows: Int
    /// Blocks of 32 values in a row.
    let groups: Int
    /// Whether even rows are those of the first half, odd rows of the second.
    let isInterleaved: Bool
    /// Where the blocks are, [rows, groups, 16 bytes].
    let blocks: UInt64
    /// Where the scales are, [rows, groups], and in which file.
    let scales: (file: Int, offset: UInt64)

    var rowByteCount: Int { groups * 17 }
    var byteCount: Int { rows * rowByteCount }

    /// The row of the file that a row is.
    func source(of row: Int) -> Int {
      guard isInterleaved else { return row }
      return row < rows / 2 ? 2 * row : 2 * (row - rows / 2) + 1
    }

    /// The row that a row of the file is.
    func row(of source: Int) -> Int {
      guard isInterleaved else { return source }
      return source / 2 + (source.isMultiple(of: 2) ? 0 : rows / 2)
    }

    /// The rows of the file, from the first to the last, that some rows are among.
    func sources(of wanted: Range<Int>) -> Range<Int> {
      let half = rows / 2
      guard isInterleaved, wanted.lowerBound < half, wanted.upperBound > half else {
        return source(of: wanted.lowerBound)..<source(of: wanted.upperBound - 1) + 1
      }
      // The end of the first half and the beginning of the second.
      let first = min(source(of: wanted.lowerBound), 1)
      let last = max(source(of: half - 1), source(of: wanted.upperBound - 1))
      return first..<last + 1
    }

    static func == (a: Matrix, b: Matrix) -> Bool {
      (a.start, a.rows, a.groups, a.blocks) == (b.start, b.rows, b.groups, b.blocks)
        && a.isInterleaved == b.isInterleaved && a.scales == b.scales
    }

    func hash(into hasher: inout Hasher) { hasher.combine(start) }
  }

  /// Beyond every file.
  private static let firstPlace: UInt64 = 1 << 60
  /// What keeps matrices of different reads apart.
  private static let gap: UInt64 = 1 << 20

  /// By their places.
  private(set) var matrices: [Matrix] = []

  /// Whether what lies at `offset` is arranged.
  package static func arranges(_ offset: UInt64) -> Bool { offset >= firstPlace }

  /// Adds a matrix.
  /// - Returns: its place.
  mutating func add(
    rows: Int, groups: Int, isInterleaved: Bool, blocks: UInt64,
    scales: (file: Int, offset: UInt64)
  ) -> UInt64 {
    let start = matrices.last.map { $0.start + UInt64($0.byteCount) + Self.gap } ?? Self.firstPlace
    matrices.append(
      Matrix(
        start: start, rows: rows, groups: groups, isInterleaved: isInterleaved, blocks: blocks,
        scales: scales))
    return start
  }

  /// The matrix whose bytes `place` is among.
  fileprivate func matrix(at place: UInt64) -> Matrix? {
    var (low, high) = (0, matrices.count)
    while low < high {
      let middle = (low + high) / 2
      if matrices[middle].start <= place { low = middle + 1 } else { high = middle }
    }
    guard low > 0, place < matrices[low - 1].start + UInt64(matrices[low - 1].byteCount) else {
      return nil
    }
    return matrices[low - 1]
  }
}

extension [Checkpoint.File] {
  /// Opens the files for reading, those with an arrangement so that it can be read.
  /// - Throws: `IOError` naming the file.
  package func open(_ direct: DirectPolicy) throws(IOError) -> [DataFile] {
    var opened: [DataFile] = []
    for file in self { opened.append(try DataFile(path: file.path, direct: direct)) }
    return indices.map { index in
      guard let arrangement = self[index].arrangement else { return opened[index] }
      let reader = ArrangedReader(arrangement: arrangement, file: opened[index], files: opened)
      return DataFile(
        name: self[index].path, byteCount: opened[index].byteCount,
        isDirect: opened[index].isDirect, scratchByteCount: reader.scratchByteCount,
        fallbackReason: opened[index].fallbackReason
          ?? "the experts of '\(self[index].path)' are rearranged while threads read them, without "
          + "io_uring: `stoker pack` writes them as they are computed with",
        provider: reader.read)
    }
  }
}

/// Reads a file that has an arrangement.
private struct ArrangedReader: Sendable {
  let arrangement: Arrangement
  let file: DataFile
  let files: [DataFile]

  private let pool: ScratchPool

  /// Memory that a read takes.
  var scratchByteCount: Int { pool.byteCount }

  /// Bytes of blocks that are read at a time, at least.
  private static let pieceByteCount = 1 << 20

  init(arrangement: Arrangement, file: DataFile, files: [DataFile]) {
    self.arrangement = arrangement
    self.file = file
    self.files = files
    // The scales of a matrix, a row that is wanted in part, blocks, and room for alignment.
    let most = arrangement.matrices.map { matrix in
      matrix.rows * matrix.groups + matrix.rowByteCount
        + max(Self.pieceByteCount, matrix.groups * 16) + 4 * 4096
    }
    // Whole huge pages: the drive takes larger pieces of them.
    let unit = Arena.hugePageByteCount
    pool = ScratchPool(byteCount: ((most.max() ?? 0) + unit - 1) / unit * unit)
  }

  /// Fills `bytes` from `offset` on.
  /// - Returns: why it could not.
  func read(_ offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) -> String? {
    guard let target = bytes.baseAddress else { return nil }
    let scratch: Arena
    do throws(IOError) { scratch = try pool.take() } catch { return "\(error)" }
    defer { pool.put(scratch) }
    guard Arrangement.arranges(offset) else {
      return copy(from: offset, count: bytes.count, to: target, scratch)
    }
    var done = 0
    while done < bytes.count {
      guard let matrix = arrangement.matrix(at: offset + UInt64(done)) else {
        return "nothing lies at \(offset + UInt64(done))"
      }
      let first = Int(offset + UInt64(done) - matrix.start)
      let range = first..<min(matrix.byteCount, first + bytes.count - done)
      if let reason = arrange(matrix, range, to: target + done, scratch) { return reason }
      done += range.count
    }
    return nil
  }

  /// Reads what lies in the file as it is.
  private func copy(
    from offset: UInt64, count: Int, to target: UnsafeMutableRawPointer,
    _ scratch: Arena
  ) -> String? {
    var done = 0
    while done < count {
      let part = min(scratch.byteCount - 2 * 4096, count - done)
      let span = file.span(offset: offset + UInt64(done), byteCount: part)
      if let error = file.read(span, into: scratch.base) { return "\(error)" }
      (target + done).copyMemory(from: scratch.base + span.lead, byteCount: part)
      done += part
    }
    return nil
  }

  /// Writes the bytes `range` of a matrix to `target`.
  private func arrange(
    _ matrix: Arrangement.Matrix, _ range: Range<Int>, to target: UnsafeMutableRawPointer,
    _ arena: Arena
  ) -> String? {
    let scratch = arena.base
    let rowByteCount = matrix.rowByteCount
    let rows = range.lowerBound / rowByteCount..<(range.upperBound - 1) / rowByteCount + 1
    let sources = matrix.sources(of: rows)
    // All scales at once: with those of a piece each, every piece would wait for the drive twice.
    let scaleFile = files[matrix.scales.file]
    let scales = scaleFile.span(
      offset: matrix.scales.offset + UInt64(sources.lowerBound * matrix.groups),
      byteCount: sources.count * matrix.groups)
    if let error = scaleFile.read(scales, into: scratch) { return "\(error)" }
    let row = scratch + scales.byteCount
    let start = (scales.byteCount + rowByteCount + 4095) / 4096 * 4096
    let pieceBytes = scratch + start
    let step = max(1, (arena.byteCount - start - 2 * 4096) / (16 * matrix.groups))
    for first in stride(from: sources.lowerBound, to: sources.upperBound, by: step) {
      let piece = first..<min(first + step, sources.upperBound)
      let blocks = file.span(
        offset: matrix.blocks + UInt64(piece.lowerBound * matrix.groups * 16),
        byteCount: piece.count * matrix.groups * 16)
      if let error = file.read(blocks, into: pieceBytes) { return "\(error)" }
      for source in piece {
        let place = source - piece.lowerBound
        let first = matrix.row(of: source) * rowByteCount
        let wanted = range.clamped(to: first..<first + rowByteCount)
        guard !wanted.isEmpty else { continue }
        let isWhole = wanted.count == rowByteCount
        let out = target + (wanted.lowerBound - range.lowerBound)
        Kernels.mergeMXFP4(
          blocks: pieceBytes + blocks.lead + place * matrix.groups * 16,
          scales: scratch + scales.lead + (source - sources.lowerBound) * matrix.groups,
          into: isWhole ? out : row, count: matrix.groups)
        if !isWhole {
          out.copyMemory(from: row + (wanted.lowerBound - first), byteCount: wanted.count)
        }
      }
    }
    return nil
  }
}

/// Memory that reads take, each its own, kept for the next ones: there is as much as there are reads at a time.
private final class ScratchPool: Sendable {
  let byteCount: Int
  private let free = Mutex<[Arena]>([])

  init(byteCount: Int) { self.byteCount = byteCount }

  func take() throws(IOError) -> Arena {
    if let arena = free.withLock({ $0.popLast() }) { return arena }
    return try Arena(byteCount: byteCount)
  }

  func put(_ arena: Arena) { free.withLock { $0.append(arena) } }
}

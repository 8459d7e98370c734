internal import Glibc

/// A packed file while it is written: `PATH.partial`, which outlives the process, so that what has been
/// written is not written again.
///
/// Bytes of pieces become valid when `commit` has brought them to disk and then said so in the file's own
/// tensor of checksums: whatever ends the process, or the machine, no more is lost than what came after.
final class PackTarget {
  /// The sums that are valid, from the first on.
  private(set) var sumCount = 0
  private let path: String
  private let partialPath: String
  private let descriptor: Int32
  private let header: [UInt8]
  private var sums: [UInt32]
  private var committed = 0
  private let sumsOffset: Int

  /// Opens or makes the partial file.
  ///
  /// - Parameters:
  ///   - header: everything before the first tensor, which is that of sums.
  ///   - byteCount: those of the whole file.
  ///   - sumCount: all sums.
  /// - Throws: `PackingError.inProgress`, `.otherRemains`, or `.checkpoint` if there is too little space.
  init(path: String, header: [UInt8], byteCount: Int, sumCount: Int) throws(PackingError) {
    let partialPath = path + ".partial"
    let descriptor = Glibc.open(partialPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw .checkpoint(.system(operation: "create it", path: partialPath, errno: errno))
    }
    self.path = path
    self.partialPath = partialPath
    self.descriptor = descriptor
    self.header = header
    sumsOffset = header.count
    sums = Array(repeating: 0, count: sumCount)
    // From here on `deinit` closes the file.
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { throw .inProgress(path: partialPath) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw failure("read the size of") }
    do throws(CheckpointError) {
      let present = min(Int(status.st_blocks) * 512, byteCount)
      try requireSpace(UInt64(byteCount - present), for: path)
    } catch {
      if status.st_size == 0 { unlink(partialPath) }
      throw .checkpoint(error)
    }
    if try holdsNoMoreThanHeader(byteCount: Int(status.st_size)) {
      try write(header, at: 0)
      guard ftruncate(descriptor, off_t(byteCount)) == 0 else { throw failure("set the size of") }
    } else {
      try resume()
    }
  }

  /// Whether the file ends within its header: whoever began it did not get farther.
  private func holdsNoMoreThanHeader(byteCount: Int) throws(PackingError) -> Bool {
    guard byteCount <= header.count else { return false }
    var found = [UInt8](repeating: 0, count: byteCount)
    return try read(&found, at: 0) && found.elementsEqual(header.prefix(byteCount))
  }

  deinit { close(descriptor) }

  /// Finds what an earlier process has written.
  private func resume() throws(PackingError) {
    var found = [UInt8](repeating: 0, count: header.count)
    guard try read(&found, at: 0), found == header else { throw .otherRemains(path: partialPath) }
    var bytes = [UInt8](repeating: 0, count: 4 * sums.count)
    guard try read(&bytes, at: sumsOffset) else { throw .otherRemains(path: partialPath) }
    sums = PackedFormat.sums(bytes)
    // The number of sums is one of them, and is not written without that of the header.
    guard sums[0] <= sums.count, sums[0] != 1 else { throw .otherRemains(path: partialPath) }
    sumCount = Int(sums[0])
    committed = sumCount
  }

  /// Takes note of the sum of bytes that have been written, the one after those there are.
  func append(sum: UInt32) {
    if sumCount == 0 { sumCount = 1 }
    sums[sumCount] = sum
    sumCount += 1
  }

  /// Writes bytes of a piece.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(PackingError) {
    var written = 0
    while written < bytes.count {
      let result = pwrite(
        descriptor, bytes.baseAddress! + written, bytes.count - written,
        off_t(offset) + off_t(written))
      if result < 0 {
        if errno == EINTR { continue }
        throw failure("write")
      }
      written += result
    }
  }

  private func write(_ bytes: [UInt8], at offset: Int) throws(PackingError) {
    var failure: PackingError?
    bytes.withUnsafeBytes { buffer in
      do throws(PackingError) { try write(buffer, at: UInt64(offset)) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  /// Brings what was written to disk, and only then says that it is there.
  func commit() throws(PackingError) {
    guard sumCount > committed else { return }
    try flush()
    try write(
      Self.bytes(sums[max(1, committed)..<sumCount]), at: sumsOffset + 4 * max(1, committed))
    try flush()
    sums[0] = UInt32(sumCount)
    try write(Self.bytes(sums[..<1]), at: sumsOffset)
    committed = sumCount
    // It is not read again soon: the memory is worth more to others.
    _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
  }

  /// Gives the file its name.
  func finish() throws(PackingError) {
    precondition(sumCount == sums.count, "pieces are missing")
    try commit()
    do throws(CheckpointError) {
      try renameDurably(partialPath, to: path, descriptor: descriptor)
    } catch {
      throw .checkpoint(error)
    }
  }

  private func flush() throws(PackingError) {
    guard fdatasync(descriptor) == 0 else { throw failure("flush") }
  }

  private func read(_ bytes: inout [UInt8], at offset: Int) throws(PackingError) -> Bool {
    let count = bytes.count
    let result = bytes.withUnsafeMutableBytes { buffer -> Int in
      var done = 0
      while done < count {
        let result = pread(
          descriptor, buffer.baseAddress! + done, count - done, off_t(offset + done))
        if result < 0, errno == EINTR { continue }
        if result <= 0 { return result < 0 ? -1 : done }
        done += result
      }
      return done
    }
    guard result >= 0 else { throw failure("read") }
    return result == count
  }

  private static func bytes(_ numbers: ArraySlice<UInt32>) -> [UInt8] {
    numbers.flatMap { number in (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) } }
  }

  private func failure(_ operation: String) -> PackingError {
    .checkpoint(.system(operation: "\(operation) it", path: partialPath, errno: errno))
  }
}

internal import CLinux
internal import Glibc

/// Whether reads pass by the page cache.
public enum DirectPolicy: String, Sendable, Codable, CaseIterable {
  /// O_DIRECT where the file system has it, else through the page cache, with a note.
  case auto
  /// O_DIRECT, or an error.
  case on
  /// Through the page cache.
  case off
}

/// An extent of a file, aligned outward to what the file's reads need.
package struct AlignedSpan: Hashable, Sendable {
  /// Where the read begins.
  package let offset: UInt64
  /// Bytes to read; the last block may reach past the end of the file.
  package let byteCount: Int
  /// Where in the read the wanted bytes begin.
  package let lead: Int
  /// Bytes of the read that must exist: up to the last wanted one.
  package let requiredByteCount: Int

  package init(offset: UInt64, byteCount: Int, lead: Int, requiredByteCount: Int) {
    self.offset = offset
    self.byteCount = byteCount
    self.lead = lead
    self.requiredByteCount = requiredByteCount
  }
}

/// A regular file open for reading at any offset, from any thread, or bytes that somebody else provides.
package final class DataFile: Sendable {
  /// Fills memory with the bytes from an offset on, or says why it cannot; called from any thread, from several
  /// at a time.
  package typealias Provider =
    @Sendable (_ offset: UInt64, _ bytes: UnsafeMutableRawBufferPointer) -> String?

  package let path: String
  package let byteCount: Int
  /// Whether reads pass by the page cache.
  package let isDirect: Bool
  /// What offsets, lengths and memory addresses of reads must be multiples of.
  package let alignment: Int
  /// Why O_DIRECT is not used though it was wished for, or why threads read it.
  package let fallbackReason: String?
  /// Memory that a read takes beside where it goes.
  package let scratchByteCount: Int
  /// -1 where the bytes are provided.
  let descriptor: Int32
  private let provider: Provider?

  /// Bytes that `provider` gives.
  ///
  /// - Parameters:
  ///   - name: what errors call them.
  ///   - isDirect: whether they come by reads that pass by the page cache.
  ///   - scratchByteCount: memory that a call of `provider` takes.
  ///   - fallbackReason: what had to be done without, as they are provided.
  package init(
    name: String, byteCount: Int, isDirect: Bool = false, scratchByteCount: Int = 0,
    fallbackReason: String? = nil, provider: @escaping Provider
  ) {
    path = name
    self.byteCount = byteCount
    self.provider = provider
    self.isDirect = isDirect
    self.scratchByteCount = scratchByteCount
    self.fallbackReason = fallbackReason
    alignment = 1
    descriptor = -1
  }

  /// Whether the bytes are provided, so that only threads can read them.
  package var isProvided: Bool { provider != nil }

  /// - Throws: `IOError.open`, `.notRegularFile`, `.directRefused`.
  package init(path: String, direct: DirectPolicy) throws(IOError) {
    var opened = direct == .off ? -EINVAL : clinux_open_read_only(path, 1)
    let isDirect = opened >= 0
    let refusal = opened
    let isRefused = direct != .off && (refusal == -EINVAL || refusal == -EOPNOTSUPP)
    if direct == .off || isRefused { opened = clinux_open_read_only(path, 0) }
    guard opened >= 0 else { throw .open(path: path, errno: -opened) }
    var status = stat()
    guard fstat(opened, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(opened)
      throw .notRegularFile(path: path)
    }
    // Not before: directories and devices refuse O_DIRECT too, but for another reason.
    if isRefused, direct == .on {
      close(opened)
      throw .directRefused(path: path, errno: -refusal)
    }
    self.path = path
    self.isDirect = isDirect
    provider = nil
    scratchByteCount = 0
    descriptor = opened
    byteCount = Int(status.st_size)
    alignment = isDirect ? Self.directAlignment(of: opened) : 1
    fallbackReason =
      isRefused
      ? "'\(path)' is read through the page cache: its file system refuses O_DIRECT" : nil
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Fills `bytes` from `offset` on, if they are provided.
  /// - Returns: why they could not be.
  func provide(_ bytes: UnsafeMutableRawBufferPointer, from offset: UInt64) -> IOError? {
    provider?(offset, bytes).map { .provided(name: path, reason: $0) }
  }

  /// Reads `span` into memory that is aligned as the file asks for, and waits for it.
  package func read(_ span: AlignedSpan, into destination: UnsafeMutableRawPointer) -> IOError? {
    var progress = Progress(
      request: ReadRequest(
        file: 0, span: span, destination: destination, tag: 0, priority: .demand))
    return progress.finish(from: self)
  }

  /// The kernel's word, or a page where it gives none; never less than a disk sector.
  private static func directAlignment(of descriptor: Int32) -> Int {
    var offsets: UInt32 = 0
    var memory: UInt32 = 0
    guard clinux_direct_alignment(descriptor, &offsets, &memory) == 0 else { return 4096 }
    let larger = max(offsets, memory, 512)
    // A slot begins on a page: a device that asks for more than that is read through its pages.
    return larger.nonzeroBitCount == 1 && larger <= 4096 ? Int(larger) : 4096
  }

  /// Asks the page cache to forget what it holds of the file and has been written.
  package func forgetCached() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

  /// The bytes of the largest extent that `byteCount` bytes can need, wherever they begin.
  package func largestSpan(byteCount: Int) -> Int {
    (byteCount + 2 * (alignment - 1)) / alignment * alignment
  }

  /// The extent to read for `byteCount` bytes at `offset`, aligned outward.
  package func span(offset: UInt64, byteCount: Int) -> AlignedSpan {
    let unit = UInt64(alignment)
    let start = offset / unit * unit
    let end = (offset + UInt64(byteCount) + unit - 1) / unit * unit
    let lead = Int(offset - start)
    return AlignedSpan(
      offset: start, byteCount: Int(end - start), lead: lead, requiredByteCount: lead + byteCount)
  }
}

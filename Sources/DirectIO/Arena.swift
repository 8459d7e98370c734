internal import Glibc

/// A block of anonymous memory, given back when the last arena of it goes.
///
/// Memory of at least one huge page begins on one and asks for them: reads and kernels then touch
/// 512 times fewer page-table entries. What is left after the last whole one is in small pages. Whoever takes a pointer from an arena keeps the arena.
package final class Arena: @unchecked Sendable {
  /// The size of a huge page, in bytes.
  package static let hugePageByteCount = 2 << 20

  /// The first byte; page aligned, huge-page aligned where the arena is that large.
  package let base: UnsafeMutableRawPointer
  package let byteCount: Int
  /// Why huge pages were not granted; nil if they were, or if the arena is too small for one.
  package let hugePageRefusal: String?
  private let mapping: Mapping

  /// What was mapped, for as long as an arena has a part of it.
  private final class Mapping {
    let start: UnsafeMutableRawPointer
    let byteCount: Int

    init(start: UnsafeMutableRawPointer, byteCount: Int) {
      (self.start, self.byteCount) = (start, byteCount)
    }

    deinit { munmap(start, byteCount) }
  }

  /// Maps `byteCount` bytes, zeroed when first touched.
  /// - Throws: `IOError.memory`.
  package init(byteCount: Int) throws(IOError) {
    precondition(byteCount >= 0, "negative size")
    let isHuge = byteCount >= Self.hugePageByteCount
    let alignment = isHuge ? Self.hugePageByteCount : 4096
    let (padded, overflow) = max(byteCount, 1).addingReportingOverflow(isHuge ? alignment : 0)
    guard !overflow else { throw .memory(byteCount: byteCount, errno: ENOMEM) }
    let mapped = mmap(
      nil, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let mapped, mapped != MAP_FAILED else {
      throw .memory(byteCount: byteCount, errno: errno)
    }
    mapping = Mapping(start: mapped, byteCount: padded)
    base = mapped.alignedUp(toMultipleOf: alignment)
    self.byteCount = byteCount
    if isHuge, madvise(base, byteCount, MADV_HUGEPAGE) != 0 {
      hugePageRefusal = "huge pages refused: \(text(errno))"
    } else {
      hugePageRefusal = nil
    }
  }

  /// `byteCount` bytes of `whole` from `offset` on, a multiple of a page: an arena of its own, of memory that
  /// stays while either is there.
  package init(partOf whole: Arena, offset: Int, byteCount: Int) {
    precondition(offset % 4096 == 0, "a part that begins within a page")
    base = whole.region(offset: offset, count: byteCount).baseAddress!
    self.byteCount = byteCount
    hugePageRefusal = whole.hugePageRefusal
    mapping = whole.mapping
  }

  /// Gives the memory of the whole pages within `count` bytes from `offset` on back to the system; they are
  /// zero when they are touched again. No engine may have the arena registered.
  package func release(offset: Int, count: Int) {
    let bytes = region(offset: offset, count: count)
    let first = (offset + 4095) / 4096 * 4096
    let end = (offset + bytes.count) / 4096 * 4096
    if end > first { madvise(base + first, end - first, MADV_DONTNEED) }
  }

  /// `count` bytes from `offset` on.
  package func region(offset: Int, count: Int) -> UnsafeMutableRawBufferPointer {
    precondition(
      offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount - offset,
      "region outside the arena")
    return UnsafeMutableRawBufferPointer(start: base + offset, count: count)
  }
}

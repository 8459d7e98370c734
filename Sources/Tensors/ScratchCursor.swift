/// Hands out consecutive pieces of a block of memory, each on its own cache line.
///
/// A set of buffers is described once, by an initialiser that takes its pieces from a cursor. Run
/// over a measuring cursor it tells how many bytes the set needs; run over memory of that size it
/// makes the buffers. The memory belongs to whoever made the cursor.
package struct ScratchCursor {
  private let base: UnsafeMutableRawPointer?
  private let capacity: Int
  /// The bytes handed out so far.
  package private(set) var byteCount = 0

  /// A cursor over `memory`, which must be aligned to 64 bytes.
  package init(_ memory: UnsafeMutableRawBufferPointer) {
    precondition(UInt(bitPattern: memory.baseAddress) % 64 == 0, "scratch memory is not aligned")
    base = memory.baseAddress
    capacity = memory.count
  }

  private init() {
    base = nil
    capacity = .max
  }

  /// The bytes that `body` takes. The pointers it is given must not be followed.
  package static func measure(_ body: (inout ScratchCursor) -> Void) -> Int {
    var cursor = ScratchCursor()
    body(&cursor)
    return cursor.byteCount
  }

  /// The next `count` values of type `Element`.
  package mutating func take<Element: BitwiseCopyable>(
    _ count: Int, of type: Element.Type = Element.self
  ) -> UnsafeMutablePointer<Element> {
    let start = byteCount
    byteCount += (count * MemoryLayout<Element>.stride + 63) & ~63
    precondition(byteCount <= capacity, "scratch memory is too small")
    let address = base.map { $0 + start } ?? UnsafeMutableRawPointer(bitPattern: 64 + start)!
    return address.assumingMemoryBound(to: Element.self)
  }
}

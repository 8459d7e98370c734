/// Reads memory as fast as the processor's threads can, and adds it up so that it must be read.
package final class MemoryRead {
  private static let chunkByteCount = 256 << 10
  private typealias Vector = SIMD4<UInt64>

  private let pool: WorkerPool
  /// The sum of each chunk, so that no two threads share one.
  private let sums: UnsafeMutablePointer<UInt64>
  private let capacity: Int

  /// - Parameter byteCount: The most bytes of one reading.
  package init(pool: WorkerPool, byteCount: Int) {
    self.pool = pool
    capacity = byteCount / Self.chunkByteCount
    sums = .allocate(capacity: capacity)
    sums.initialize(repeating: 0, count: capacity)
  }

  deinit { sums.deallocate() }

  /// Reads the whole chunks of the `byteCount` bytes from `start` on; returns how many bytes
  /// they are.
  package func read(_ start: UnsafeRawPointer, byteCount: Int) -> Int {
    let chunkCount = min(byteCount / Self.chunkByteCount, capacity)
    pool.run(Loop(start: start, sums: sums), chunkCount: chunkCount)
    return chunkCount * Self.chunkByteCount
  }

  private struct Loop: ParallelWork {
    let start: UnsafeRawPointer
    let sums: UnsafeMutablePointer<UInt64>

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in pointer.assumingMemoryBound(to: Loop.self).pointee.perform(chunk) }
    }

    func perform(_ chunk: Int) {
      let bytes = start + chunk * chunkByteCount
      // Four sums at a time: additions to one would wait for each other.
      var a = Vector.zero
      var b = Vector.zero
      var c = Vector.zero
      var d = Vector.zero
      var offset = 0
      while offset < chunkByteCount {
        a &+= bytes.loadUnaligned(fromByteOffset: offset, as: Vector.self)
        b &+= bytes.loadUnaligned(fromByteOffset: offset + 32, as: Vector.self)
        c &+= bytes.loadUnaligned(fromByteOffset: offset + 64, as: Vector.self)
        d &+= bytes.loadUnaligned(fromByteOffset: offset + 96, as: Vector.self)
        offset += 128
      }
      sums[chunk] = (a &+ b &+ c &+ d).wrappedSum()
    }
  }
}

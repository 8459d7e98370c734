internal import Tensors

/// Generates rows of tensors into one buffer, on all threads of a pool.
final class RowGeneration {
  /// Rows of one piece of the parallel loop take about this many bytes.
  private static let pieceByteCount = 256 << 10

  /// Room for the rows generated at once; at least one row of any tensor.
  let buffer: UnsafeMutableRawBufferPointer
  private let scratch: UnsafeMutableBufferPointer<Float>
  private let scratchCount: Int
  private let design: RoutingDesign
  private let streams: RandomStreams
  private let pool: WorkerPool

  /// - Parameter scratchCount: the values of the longest row that is made of floats.
  init(design: RoutingDesign, streams: RandomStreams, scratchCount: Int, pool: WorkerPool) {
    self.design = design
    self.streams = streams
    self.scratchCount = scratchCount
    self.pool = pool
    buffer = .allocate(byteCount: 32 << 20, alignment: 64)
    scratch = .allocate(capacity: scratchCount * pool.threadCount)
    scratch.initialize(repeating: 0)
  }

  deinit {
    buffer.deallocate()
    scratch.deallocate()
  }

  /// Generates rows that fit the buffer.
  /// - Returns: their bytes, valid until the next call.
  func bytes(of tensor: SyntheticTensor, rows: Range<Int>) -> UnsafeRawBufferPointer {
    let byteCount = rows.count * tensor.rowByteCount
    precondition(byteCount <= buffer.count, "too many rows at once")
    let rowsPerPiece = max(1, Self.pieceByteCount / tensor.rowByteCount)
    let work = Piece(
      generation: self, tensor: tensor, rows: rows, rowsPerPiece: rowsPerPiece)
    pool.run(work, chunkCount: (rows.count + rowsPerPiece - 1) / rowsPerPiece)
    return UnsafeRawBufferPointer(rebasing: buffer[..<byteCount])
  }

  /// A parallel loop over pieces of rows; each piece owns its part of the buffer.
  private struct Piece: ParallelWork {
    unowned let generation: RowGeneration
    let tensor: SyntheticTensor
    let rows: Range<Int>
    let rowsPerPiece: Int

    static var body: WorkerPool.Body {
      { pointer, chunk, worker in
        pointer.assumingMemoryBound(to: Piece.self).pointee.perform(chunk, worker: worker)
      }
    }

    private func perform(_ piece: Int, worker: Int) {
      let first = rows.lowerBound + piece * rowsPerPiece
      let scratch = UnsafeMutableBufferPointer(
        rebasing: generation.scratch.dropFirst(worker * generation.scratchCount))
      for row in first..<min(rows.upperBound, first + rowsPerPiece) {
        let offset = (row - rows.lowerBound) * tensor.rowByteCount
        tensor.writeRow(
          row, into: generation.buffer.baseAddress! + offset, scratch: scratch,
          design: generation.design, streams: generation.streams)
      }
    }
  }
}

import COpenBLAS
import DirectIO
import Tensors

/// Products by OpenBLAS's sgemm, each thread of a pool a slice of rows: of float weights as they
/// are, of others after dequantization to a tile of floats.
final class FloatProducts {
  private let pool: WorkerPool
  private let kernels: Kernels
  /// A tile for each thread, [threads, tileRows, columns].
  private let tiles: Arena

  /// Rows of a tile.
  static let tileRows = 128
  private static let tileByteCount = tileRows * 2048 * 4

  init(pool: WorkerPool, kernels: Kernels) throws {
    self.pool = pool
    self.kernels = kernels
    tiles = try Arena(byteCount: pool.threadCount * Self.tileByteCount)
    // Its own threads would share the processors with the pool's.
    openblas_set_num_threads(1)
  }

  /// Multiplies each of `count` matrices that lie one after the other.
  func run(_ first: Matrix, count: Int, operands: Operands, tokens: Int) {
    let isFloat = first.type == .f32
    let sliceRows =
      isFloat ? (first.rows + pool.threadCount - 1) / pool.threadCount : Self.tileRows
    let slices = (first.rows + sliceRows - 1) / sliceRows
    pool.run(
      Loop(
        kernels: kernels, first: first, sliceRows: sliceRows, slices: slices, tokens: tokens,
        activations: operands.floats, outputs: operands.outputs, tiles: isFloat ? nil : tiles.base),
      chunkCount: count * slices)
  }

  private struct Loop: ParallelWork {
    let kernels: Kernels
    let first: Matrix
    let sliceRows: Int
    let slices: Int
    let tokens: Int
    let activations: UnsafePointer<Float>
    let outputs: UnsafePointer<UnsafeMutablePointer<Float>>
    /// nil: the weights are floats.
    let tiles: UnsafeMutableRawPointer?

    static var body: WorkerPool.Body {
      { pointer, chunk, worker in
        pointer.assumingMemoryBound(to: Loop.self).pointee.perform(chunk, worker: worker)
      }
    }

    func perform(_ chunk: Int, worker: Int) {
      let index = chunk / slices
      let firstRow = chunk % slices * sliceRows
      let rows = min(sliceRows, first.rows - firstRow)
      let rowByteCount = first.type.byteCount(valueCount: first.columns)!
      let bytes = first.bytes + (index * first.rows + firstRow) * rowByteCount
      var weights = bytes.assumingMemoryBound(to: Float.self)
      if let tiles {
        let tile = (tiles + worker * tileByteCount).assumingMemoryBound(to: Float.self)
        kernels.dequantize(
          type: first.type, blocks: bytes, count: rows * first.columns, into: tile)
        weights = UnsafePointer(tile)
      }
      // outputs[tokens, rows] = activations[tokens, columns] * weights[rows, columns] transposed.
      cblas_sgemm(
        CblasRowMajor, CblasNoTrans, CblasTrans, blasint(tokens), blasint(rows),
        blasint(first.columns), 1, activations, blasint(first.columns), weights,
        blasint(first.columns), 0, outputs[index * tokens] + firstRow, blasint(first.rows))
    }
  }
}

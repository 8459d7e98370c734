/// Activation vectors of a run of tokens, as floats and, for block-quantised weights, quantised to
/// 8 bits: the right-hand sides of matrix products.
///
/// Vectors are quantised once per layer input and shared by every product that reads them.
package struct ActivationRows {
  /// Values per token.
  package let columns: Int
  /// The floats, [capacity, columns].
  package let floats: UnsafeMutablePointer<Float>
  private let quantized: UnsafeMutablePointer<UInt8>?
  private let quantizedStride: Int
  private let floatRows: UnsafeMutablePointer<UnsafeRawPointer>
  private let quantizedRows: UnsafeMutablePointer<UnsafeRawPointer>

  /// Takes room for `capacity` tokens from `cursor`.
  package init(capacity: Int, columns: Int, kernels: Kernels, cursor: inout ScratchCursor) {
    self.columns = columns
    floats = cursor.take(capacity * columns)
    quantizedStride =
      columns % 32 == 0 ? kernels.activationByteCount(type: .q8_0, columns: columns) : 0
    quantized = quantizedStride > 0 ? cursor.take(capacity * quantizedStride) : nil
    floatRows = cursor.take(capacity)
    quantizedRows = cursor.take(capacity)
  }

  /// Fills the row pointers, once, when the cursor was over real memory.
  package func bind(capacity: Int) {
    for token in 0..<capacity {
      (floatRows + token).initialize(to: UnsafeRawPointer(floats + token * columns))
      let row = quantized.map { UnsafeRawPointer($0 + token * quantizedStride) }
      (quantizedRows + token).initialize(to: row ?? UnsafeRawPointer(floats + token * columns))
    }
  }

  /// The floats of one token.
  package func row(_ token: Int) -> UnsafeMutablePointer<Float> { floats + token * columns }

  /// Row pointers in the form weights of `type` need, [capacity]. For quantised weights, `quantize`
  /// must have run since the floats were written.
  package func rows(for type: ElementType) -> UnsafePointer<UnsafeRawPointer> {
    if !type.wantsQuantizedActivations { return UnsafePointer(floatRows) }
    precondition(quantized != nil, "quantised weights over a row that is no multiple of 32")
    return UnsafePointer(quantizedRows)
  }

  /// Quantises the rows of `tokens`; all at once on `pool` when there are many.
  package func quantize(_ tokens: Range<Int>, kernels: Kernels, pool: WorkerPool) {
    guard quantized != nil else { return }
    if tokens.count * columns < 65_536 {
      for token in tokens { quantizeRow(token, kernels: kernels) }
    } else {
      pool.run(
        QuantizeLoop(rows: self, first: tokens.lowerBound, kernels: kernels),
        chunkCount: tokens.count)
    }
  }

  /// Quantises one token's row.
  package func quantizeRow(_ token: Int, kernels: Kernels) {
    guard let quantized else { return }
    kernels.quantizeActivations(
      row(token), columns: columns, into: quantized + token * quantizedStride)
  }

  private struct QuantizeLoop: ParallelWork {
    let rows: ActivationRows
    let first: Int
    let kernels: Kernels

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in
        let loop = pointer.assumingMemoryBound(to: QuantizeLoop.self)
        loop.pointee.rows.quantizeRow(loop.pointee.first + chunk, kernels: loop.pointee.kernels)
      }
    }
  }
}

internal import CKernels

/// The compute kernels of one instruction set, as thin wrappers over the C calls.
///
/// All pointers may have any alignment unless their type says otherwise. Misuse (a type that is not
/// computable, columns that are not whole blocks) is a bug of the caller and traps.
package struct Kernels: Sendable {
  /// The instruction set in use.
  package let set: KernelSet

  /// - Parameter set: A set that this processor has: `KernelSet.best` or a smaller one.
  package init(set: KernelSet) {
    precondition(set <= .best, "this processor has no \(set.name) kernels")
    self.set = set
  }

  /// Whether there are kernels for weights of `type`.
  package static func supports(_ type: ElementType) -> Bool { ckernels_supports(type.rawValue) }

  /// Traps unless weights of `type` can have rows of `columns` values.
  private func checkColumns(_ columns: Int, type: ElementType) {
    precondition(Self.supports(type), "there are no kernels for \(type.name)")
    precondition(
      columns >= 0 && columns.isMultiple(of: type.blockSize),
      "\(columns) columns are not whole blocks of \(type.name)")
  }

  /// The number of bytes of one activation row for weights of `type`, a multiple of 64.
  package func activationByteCount(type: ElementType, columns: Int) -> Int {
    checkColumns(columns, type: type)
    return ckernels_activation_bytes(type.rawValue, columns)
  }

  /// Quantizes activations for weights of any quantized type: 8-bit blocks of 32.
  ///
  /// Every set gives the same bits. A block with a NaN or an infinity makes all products of the row
  /// NaN.
  ///
  /// - Parameters:
  ///   - values: The activations, [columns].
  ///   - columns: A multiple of 32.
  ///   - row: Room for `activationByteCount(type:columns:)` bytes.
  package func quantizeActivations(
    _ values: UnsafePointer<Float>, columns: Int, into row: UnsafeMutableRawPointer
  ) {
    precondition(
      columns >= 0 && columns.isMultiple(of: 32), "\(columns) columns are not whole blocks of 32")
    ckernels_quantize_activations(set.cValue, values, row, columns)
  }

  /// Writes the activation row that weights of `type` want: quantized, or the floats themselves.
  ///
  /// - Parameters:
  ///   - values: The activations, [columns].
  ///   - row: Room for `activationByteCount(type:columns:)` bytes.
  package func prepareActivations(
    _ values: UnsafePointer<Float>, columns: Int, type: ElementType,
    into row: UnsafeMutableRawPointer
  ) {
    checkColumns(columns, type: type)
    if type.wantsQuantizedActivations {
      quantizeActivations(values, columns: columns, into: row)
    } else {
      row.copyMemory(from: values, byteCount: columns * MemoryLayout<Float>.stride)
    }
  }

  /// Multiplies rows of weights by activations: outputs[t][r] = row r · activations[t].
  ///
  /// The bits of an output depend on its row, its activations and the method alone, not on the
  /// range of rows or, given the method, on the number of tokens.
  ///
  /// - Parameters:
  ///   - type: The type of the weights.
  ///   - weights: Row 0 of the matrix, [rows, columns], contiguous.
  ///   - columns: Whole blocks of `type`.
  ///   - rows: The rows to compute.
  ///   - activations: [tokens] rows made by `prepareActivations`.
  ///   - outputs: [tokens] vectors with room for `rows.upperBound` values; only those of `rows`
  ///     are written.
  ///   - tokens: The number of activation rows.
  ///   - method: How to go about the weights; nil: as is faster for so many tokens.
  ///   - scales: those of a type that has them apart, and of no other.
  package func matmul(
    type: ElementType, weights: UnsafeRawPointer, columns: Int, rows: Range<Int>,
    activations: UnsafePointer<UnsafeRawPointer>,
    outputs: UnsafePointer<UnsafeMutablePointer<Float>>, tokens: Int, method: ProductMethod? = nil,
    scales: BlockScales? = nil
  ) {
    checkColumns(columns, type: type)
    precondition((scales != nil) == type.hasScalesApart, "scales where there are none, or none")
    precondition(rows.lowerBound >= 0 && tokens >= 0, "rows and tokens are counts")
    let method = method ?? self.method(type: type, tokens: tokens)
    guard let scales else {
      return ckernels_matmul(
        set.cValue, method.cValue, type.rawValue, weights, columns, rows.lowerBound,
        rows.upperBound, activations, outputs, tokens, nil)
    }
    precondition(columns.isMultiple(of: 32), "\(columns) columns are not whole steps of 32")
    var own = ckernels_scales(
      values: scales.values, rows: scales.rows, columns: scales.columns, stride: scales.stride)
    ckernels_matmul(
      set.cValue, method.cValue, type.rawValue, weights, columns, rows.lowerBound,
      rows.upperBound, activations, outputs, tokens, &own)
  }

  /// The method `matmul` takes for a product of `tokens` tokens: the faster one, by a table of what
  /// was measured.
  package func method(type: ElementType, tokens: Int) -> ProductMethod {
    ckernels_best_method(set.cValue, type.rawValue, tokens) == .CKernelsPacked ? .packed : .byRows
  }

  /// Expands `count` values (whole blocks) to single precision, with the bits that the reference
  /// (`gguf.quants.dequantize`) gives.
  package func dequantize(
    type: ElementType, blocks: UnsafeRawPointer, count: Int,
    into values: UnsafeMutablePointer<Float>
  ) {
    checkColumns(count, type: type)
    ckernels_dequantize(type.rawValue, blocks, values, count)
  }
}

/// How a matrix product goes about the weights. The portable set has one method under both names.
package enum ProductMethod: CaseIterable, Sendable {
  /// Each row is unpacked for a few tokens at a time, in registers: for decoding.
  case byRows
  /// Rows are unpacked into the cache, interleaved, once for all tokens: for prompts.
  case packed

  fileprivate var cValue: ckernels_method {
    switch self {
    case .byRows: .CKernelsByRows
    case .packed: .CKernelsPacked
    }
  }
}

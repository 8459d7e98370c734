internal import CKernels

/// The formats that float weights can be quantized to.
package enum WeightQuantization: String, CaseIterable, Sendable {
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q8_0, q4_0, q4_K, q6_K

  package var elementType: ElementType {
    switch self {
    case .q8_0: .q8_0
    case .q4_0: .q4_0
    case .q4_K: .q4_K
    case .q6_K: .q6_K
    }
  }
}

extension Kernels {
  /// Makes `count` blocks of MXFP4 of blocks of two neighbouring values a byte, [count, 16] bytes, and their
  /// scales, [count] bytes, which lie apart; `out` is [count, 17] bytes.
  package static func mergeMXFP4(
    blocks: UnsafeRawPointer, scales: UnsafeRawPointer, into out: UnsafeMutableRawPointer,
    count: Int
  ) {
    ckernels_merge_mxfp4(
      blocks.assumingMemoryBound(to: UInt8.self), scales.assumingMemoryBound(to: UInt8.self),
      out.assumingMemoryBound(to: UInt8.self), count)
  }

  /// Quantizes values, with the least squared error of many candidates; every set writes the same bits.
  ///
  /// - Parameters:
  ///   - values: [count].
  ///   - count: whole blocks.
  ///   - blocks: room for as many blocks.
  /// - Returns: false, the blocks being undefined, if a value is not finite or too large for a scale of half
  ///   precision.
  package func quantize(
    _ values: UnsafePointer<Float>, count: Int, to quantization: WeightQuantization,
    into blocks: UnsafeMutableRawPointer
  ) -> Bool {
    let type = quantization.elementType
    precondition(
      count >= 0 && count.isMultiple(of: type.blockSize), "\(count) values are not whole blocks")
    return ckernels_quantize_weights(set.cValue, type.rawValue, values, blocks, count)
  }

  /// The CRC-32C (RFC 3720, appendix B.4) of `bytes`, which follow others of the checksum `previous`.
  package func checksum(_ bytes: UnsafeRawBufferPointer, after previous: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress else { return previous }
    return ckernels_crc32c(set.cValue, previous, base, bytes.count)
  }
}

/// The scales of weights that have them apart, and where some of these weights are in their matrix.
package struct Scaling {
  let scales: BlockScales
  /// Values of a row of the matrix.
  let columns: Int
  /// The first of the weights, counted over the matrix.
  let start: Int

  package init(scales: BlockScales, columns: Int, start: Int) {
    self.scales = scales
    self.columns = columns
    self.start = start
  }

  /// Multiplies `count` values, which begin at `first` of the weights, by their scales.
  func scale(_ values: UnsafeMutablePointer<Float>, from first: Int, count: Int) {
    var done = 0
    while done < count {
      let (row, column) = (start + first + done).quotientAndRemainder(dividingBy: columns)
      let block = column / scales.columns
      let end = min(count, done + min(columns, (block + 1) * scales.columns) - column)
      let factor = scales.values[row / scales.rows * scales.stride + block]
      for index in done..<end { values[index] *= factor }
      done = end
    }
  }
}

/// Turns weights of a float type into quantized ones, on all threads of a pool.
package final class WeightConversion {
  /// Values of one piece of the parallel loop: whole blocks of every type.
  private static let pieceCount = 1 << 15

  private let kernels: Kernels
  private let pool: WorkerPool
  private let capacity: Int
  private let blocks: UnsafeMutableRawBufferPointer
  /// A piece's values, [threads].
  private let scratch: UnsafeMutableBufferPointer<Float>
  /// Whether a piece had a value that cannot be kept, [pieces].
  private let failures: UnsafeMutableBufferPointer<Bool>

  /// - Parameter capacity: the most values at a time.
  package init(capacity: Int, kernels: Kernels, pool: WorkerPool) {
    self.kernels = kernels
    self.pool = pool
    self.capacity = capacity
    // No format takes more than a float does.
    blocks = .allocate(byteCount: capacity * 4, alignment: 64)
    scratch = .allocate(capacity: Self.pieceCount * pool.threadCount)
    scratch.initialize(repeating: 0)
    failures = .allocate(capacity: capacity / Self.pieceCount + 1)
    failures.initialize(repeating: false)
  }

  deinit {
    blocks.deallocate()
    scratch.deallocate()
    failures.deallocate()
  }

  /// Quantizes weights.
  ///
  /// - Parameters:
  ///   - source: whole blocks of `type`.
  ///   - scaling: of a type that has scales apart: these, and where in its matrix the source is.
  /// - Returns: the blocks, valid until the next call; nil if a value is not finite or too large.
  package func convert(
    _ source: UnsafeRawBufferPointer, of type: ElementType, to quantization: WeightQuantization,
    scaling: Scaling? = nil
  ) -> UnsafeRawBufferPointer? {
    precondition((scaling != nil) == type.hasScalesApart, "scales where there are none, or none")
    let count = source.count / type.blockByteCount * type.blockSize
    precondition(count <= capacity, "too many values at once")
    guard let base = source.baseAddress,
      let byteCount = quantization.elementType.byteCount(valueCount: count)
    else { return UnsafeRawBufferPointer(rebasing: blocks[..<0]) }
    let pieces = (count + Self.pieceCount - 1) / Self.pieceCount
    failures.update(repeating: false)
    pool.run(
      Work(
        conversion: self, source: base, type: type, quantization: quantization, count: count,
        scaling: scaling),
      chunkCount: pieces)
    guard !failures[..<pieces].contains(true) else { return nil }
    return UnsafeRawBufferPointer(rebasing: blocks[..<byteCount])
  }

  private struct Work: ParallelWork {
    unowned let conversion: WeightConversion
    let source: UnsafeRawPointer
    let type: ElementType
    let quantization: WeightQuantization
    let count: Int
    let scaling: Scaling?

    static var body: WorkerPool.Body {
      { pointer, chunk, worker in
        pointer.assumingMemoryBound(to: Work.self).pointee.perform(chunk, worker: worker)
      }
    }

    private func perform(_ piece: Int, worker: Int) {
      let first = piece * pieceCount
      let count = min(pieceCount, count - first)
      let values = conversion.scratch.baseAddress! + worker * pieceCount
      let target = quantization.elementType
      conversion.kernels.dequantize(
        type: type, blocks: source + first / type.blockSize * type.blockByteCount, count: count,
        into: values)
      scaling?.scale(values, from: first, count: count)
      conversion.failures[piece] = !conversion.kernels.quantize(
        values, count: count, to: quantization,
        into: conversion.blocks.baseAddress! + first / target.blockSize * target.blockByteCount)
    }
  }
}

internal import Glibc

/// Bytes that are weights of any type: no number among them is an infinity or a NaN.
package final class RandomWeights {
  fileprivate let base: UnsafeMutableRawPointer
  fileprivate let byteCount: Int

  package init(byteCount: Int) {
    self.byteCount = byteCount
    // In huge pages, as the experts of a model are.
    base = .allocate(byteCount: byteCount, alignment: 2 << 20)
    madvise(base, byteCount, MADV_HUGEPAGE)
    var word: UInt64 = 0x1234_5678_9abc_def1
    for offset in stride(from: 0, to: byteCount / 8 * 8, by: 8) {
      word = word &* 0x5851_f42d_4c95_7f2d &+ 0x1405_7b7e_f767_814f
      // Whichever bytes are a number's high ones, it is then neither an infinity nor a NaN, nor one of
      // the smallest, with which some processors are slow.
      let bytes = word & 0x8f8f_8f8f_8f8f_8f8f | 0x3030_3030_3030_3030
      base.storeBytes(of: bytes, toByteOffset: offset, as: UInt64.self)
    }
  }

  deinit { base.deallocate() }
}

/// Products of random matrices of one type with vectors, over as much memory as is wanted: for measuring.
package final class RandomProducts {
  private let batch: ProductBatch
  private let type: ElementType
  private let rows: Int
  private let columns: Int
  private let tokenCapacity: Int
  private let matrixByteCount: Int
  private let matrixCount: Int
  private let weights: RandomWeights
  /// Of a type that has them apart: one for each block of 128 by 128, all alike.
  private let scales: UnsafeMutablePointer<Float>?
  private let operands: UnsafeMutableRawPointer
  private let activations: UnsafeMutablePointer<UnsafeRawPointer>
  private let values: UnsafeMutablePointer<Float>
  private let outputs: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
  private var next = 0

  /// The most products of one batch.
  package static let batchCount = 8

  /// - Parameters:
  ///   - columns: whole blocks of `type`, a multiple of 32.
  ///   - weights: at least one matrix; the matrices are taken from it in turn.
  ///   - tokenCapacity: the most vectors that are multiplied with the same weights.
  package init(
    _ type: ElementType, rows: Int, columns: Int, in weights: RandomWeights, tokenCapacity: Int,
    kernels: Kernels,
    pool: WorkerPool
  ) {
    self.type = type
    self.rows = rows
    self.columns = columns
    self.tokenCapacity = tokenCapacity
    batch = ProductBatch(kernels: kernels, pool: pool, capacity: Self.batchCount)
    matrixByteCount = type.byteCount(valueCount: rows * columns)!
    self.weights = weights
    matrixCount = weights.byteCount / matrixByteCount
    precondition(matrixCount > 0, "no room for a matrix")
    let scaleCount = (rows + 127) / 128 * ((columns + 127) / 128)
    scales = type.hasScalesApart ? .allocate(capacity: scaleCount) : nil
    scales?.initialize(repeating: 1e-2, count: scaleCount)
    let rowByteCount = kernels.activationByteCount(type: type, columns: columns)
    operands = .allocate(byteCount: tokenCapacity * rowByteCount, alignment: 64)
    activations = .allocate(capacity: tokenCapacity)
    let vector = (0..<columns).map { Float($0 % 17) / 8 - 1 }
    for token in 0..<tokenCapacity {
      let row = operands + token * rowByteCount
      vector.withUnsafeBufferPointer {
        kernels.prepareActivations($0.baseAddress!, columns: columns, type: type, into: row)
      }
      (activations + token).initialize(to: UnsafeRawPointer(row))
    }
    let count = Self.batchCount * tokenCapacity
    values = .allocate(capacity: count * rows)
    values.initialize(repeating: 0, count: count * rows)
    outputs = .allocate(capacity: count)
    for index in 0..<count { (outputs + index).initialize(to: values + index * rows) }
  }

  deinit {
    scales?.deallocate()
    operands.deallocate()
    activations.deallocate()
    values.deallocate()
    outputs.deallocate()
  }

  /// Multiplies the next `count` matrices, at most `batchCount`, with `tokens` vectors each, in one parallel
  /// loop.
  /// - Returns: their bytes.
  package func run(_ count: Int, tokens: Int) -> Int {
    precondition(
      count <= Self.batchCount && tokens <= tokenCapacity, "more products than a batch holds")
    for index in 0..<count {
      let matrix = Matrix(
        bytes: weights.base + next * matrixByteCount, type: type, rows: rows, columns: columns,
        scales: scales.map {
          BlockScales(values: $0, rows: 128, columns: 128, stride: (columns + 127) / 128)
        })
      batch.append(
        Product(
          matrix, activations: activations, outputs: outputs + index * tokenCapacity,
          tokenCount: tokens))
      next = (next + 1) % matrixCount
    }
    batch.run()
    return count * matrixByteCount
  }
}

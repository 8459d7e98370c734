/// The scales of a matrix of 8-bit floats, one for each block of `rows` by `columns` weights: those of a row of
/// blocks follow each other, `stride` from one row to the next. The memory belongs to whoever made the value
/// and must outlive it.
package struct BlockScales: @unchecked Sendable {
  package let values: UnsafePointer<Float>
  package let rows: Int
  /// A multiple of 32.
  package let columns: Int
  package let stride: Int

  package init(values: UnsafePointer<Float>, rows: Int, columns: Int, stride: Int) {
    precondition(rows > 0 && columns > 0 && columns.isMultiple(of: 32), "blocks of no size")
    self.values = values
    self.rows = rows
    self.columns = columns
    self.stride = stride
  }
}

/// A weight matrix in memory: `rows` rows of `columns` values, row after row, at any alignment.
/// The memory belongs to whoever made the value and must outlive it.
package struct Matrix: @unchecked Sendable {
  package let bytes: UnsafeRawPointer
  package let type: ElementType
  package let rows: Int
  package let columns: Int
  /// Those of a type that has them apart.
  package var scales: BlockScales?

  package init(
    bytes: UnsafeRawPointer, type: ElementType, rows: Int, columns: Int,
    scales: BlockScales? = nil
  ) {
    self.scales = scales
    self.bytes = bytes
    self.type = type
    self.rows = rows
    self.columns = columns
  }
}

/// One matrix product to compute: outputs[t][r] = matrix[r] . activations[t] for a run of tokens.
///
/// In the same pass follow the addition of `bias` and, with `gates`, the activation of gate and product.
package struct Product {
  let matrix: Matrix
  let activations: UnsafePointer<UnsafeRawPointer>
  let outputs: UnsafePointer<UnsafeMutablePointer<Float>>
  let gates: UnsafePointer<UnsafeMutablePointer<Float>>?
  let activation: GatedActivation
  let bias: UnsafePointer<Float>?
  let tokenCount: Int
  let method: ProductMethod?
  var firstChunk = 0
  var chunkRows = 0

  /// - Parameters:
  ///   - activations: rows as `Kernels.quantizeActivations` left them (or plain floats for float
  ///     weights), [tokens].
  ///   - outputs: rows of `matrix.rows` floats, [tokens].
  ///   - bias: [matrix.rows], added to every product.
  ///   - gates: rows of gate products, [tokens], of which and of this product `activation` makes the outputs.
  ///   - method: how to go about the weights; nil: as is faster for so many tokens.
  package init(
    _ matrix: Matrix, activations: UnsafePointer<UnsafeRawPointer>,
    outputs: UnsafePointer<UnsafeMutablePointer<Float>>,
    bias: UnsafePointer<Float>? = nil,
    gates: UnsafePointer<UnsafeMutablePointer<Float>>? = nil, activation: GatedActivation = .silu,
    tokenCount: Int,
    method: ProductMethod? = nil
  ) {
    self.matrix = matrix
    self.activations = activations
    self.outputs = outputs
    self.bias = bias
    self.gates = gates
    self.activation = activation
    self.tokenCount = tokenCount
    self.method = method
  }
}

/// A list of products computed together in one parallel loop, split by rows.
///
/// The list is allocated once, for `capacity` products. Every (row, token) is one dot product in an
/// order that its product's method fixes, so the split changes no bit of the result.
package final class ProductBatch {
  private let kernels: Kernels
  package let pool: WorkerPool
  private let capacity: Int
  private let products: UnsafeMutablePointer<Product>
  private var count = 0
  private var chunkCount = 0

  package init(kernels: Kernels, pool: WorkerPool, capacity: Int) {
    self.kernels = kernels
    self.pool = pool
    self.capacity = capacity
    products = .allocate(capacity: capacity)
  }

  deinit { products.deallocate() }

  /// Adds a product to the list.
  package func append(_ product: Product) {
    precondition(count < capacity, "product batch is full")
    var product = product
    product.firstChunk = chunkCount
    product.chunkRows = chunkRows(product)
    chunkCount += (product.matrix.rows + product.chunkRows - 1) / product.chunkRows
    (products + count).initialize(to: product)
    count += 1
  }

  /// Rows handed out at a time.
  ///
  /// Few tokens are a matter of reading memory, which is faster in long runs; but the more threads
  /// there are, the shorter the run that one of them may be left with. Many tokens are a matter of
  /// arithmetic, on a few rows of unpacked weights at a time.
  private func chunkRows(_ product: Product) -> Int {
    guard product.tokenCount < 8 else { return 32 }
    let runByteCount = max(32 << 10, (256 << 10) / pool.threadCount)
    let rowByteCount = product.matrix.type.byteCount(valueCount: product.matrix.columns) ?? 0
    return max(16, runByteCount / max(1, rowByteCount) / 16 * 16)
  }

  /// Computes every product on the list and empties it.
  package func run() {
    guard count > 0 else { return }
    pool.run(
      Loop(kernels: kernels, products: products, count: count), chunkCount: chunkCount)
    count = 0
    chunkCount = 0
  }

  private struct Loop: ParallelWork {
    let kernels: Kernels
    let products: UnsafePointer<Product>
    let count: Int

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in pointer.assumingMemoryBound(to: Loop.self).pointee.perform(chunk) }
    }

    func perform(_ chunk: Int) {
      var index = count - 1
      while products[index].firstChunk > chunk { index -= 1 }
      let product = products[index]
      let first = (chunk - product.firstChunk) * product.chunkRows
      let last = min(first + product.chunkRows, product.matrix.rows)
      kernels.matmul(
        type: product.matrix.type, weights: product.matrix.bytes,
        columns: product.matrix.columns, rows: first..<last, activations: product.activations,
        outputs: product.outputs, tokens: product.tokenCount, method: product.method,
        scales: product.matrix.scales)
      for token in 0..<product.tokenCount {
        let output = product.outputs[token] + first
        if let bias = product.bias { kernels.add(bias + first, to: output, count: last - first) }
        guard let gates = product.gates else { continue }
        kernels.activate(
          product.activation, gate: gates[token] + first, up: output, into: output,
          count: last - first)
      }
    }
  }
}

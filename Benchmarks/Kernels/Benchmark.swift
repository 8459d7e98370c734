import DirectIO
import Tensors

/// Measures the kernels of one type after the other.
final class Benchmark {
  /// Weights of one type: more than the caches of most processors hold.
  private static let weightByteCount = 256 << 20
  /// Matrices of one parallel loop at decode: the experts of one token in OLMoE-1B-7B.
  private static let decodeMatrices = 8
  /// Matrices of one parallel loop at prefill.
  private static let prefillMatrices = 2
  /// Rows, columns and tokens of the large square product.
  private static let squareSize = 2048

  private let sets: [KernelSet]
  private let effort: Effort
  /// One thread, and all of them where there are more.
  private let pools: [WorkerPool]
  private let allThreads: WorkerPool
  private let memory: Arena
  private let floatWeights: Weights
  private let floatProducts: FloatProducts
  private(set) var report: Report

  init(sets: [KernelSet], threadCount: Int, effort: Effort) throws {
    self.sets = sets
    self.effort = effort
    allThreads = try WorkerPool(threadCount: threadCount)
    pools = threadCount == 1 ? [allThreads] : [try WorkerPool(threadCount: 1), allThreads]
    memory = try Arena(byteCount: Self.weightByteCount)
    floatWeights = Weights(.f32, in: try Arena(byteCount: Self.weightByteCount))
    floatProducts = try FloatProducts(pool: allThreads, kernels: Kernels(set: .best))
    report = Report(threads: threadCount, sets: sets, effort: effort)
  }

  /// Measures the large square product, for a figure of what the processor can do.
  func measureSquare() throws {
    let size = Self.squareSize
    let shape = MatrixShape(rows: size, columns: size)
    let weights = floatWeights.matrix(0, shape: shape)
    let operands = try Operands(
      .f32, shape: shape, tokens: size, matrices: 1, kernels: Kernels(set: .best))
    let rates = effort.rates([
      { [floatProducts] in
        floatProducts.run(weights, count: 1, operands: operands, tokens: size)
        return 2 * Double(size * size * size)
      }
    ])
    report.addSquare(rows: size, columns: size, tokens: size, rates[0])
  }

  /// Measures decode and prefill with weights of `type`.
  func measure(_ type: ElementType) throws {
    let weights = Weights(type, in: memory)
    try measureDecode(weights)
    for tokens in effort.tokenCounts { try measurePrefill(weights, tokens: tokens) }
  }

  // MARK: - Decode

  private func measureDecode(_ weights: Weights) throws {
    let byteCount = Double(Self.decodeMatrices * weights.matrixByteCount)
    var bodies: [() -> Double] = []
    for pool in pools {
      let reader = MemoryRead(pool: pool, byteCount: Self.weightByteCount)
      bodies.append {
        let first = weights.take(Self.decodeMatrices).first
        return Double(reader.read(weights.bytes(of: first), byteCount: Int(byteCount)))
      }
      for set in sets {
        let multiply = try products(
          weights, set: set, pool: pool, matrices: Self.decodeMatrices, tokens: 1)
        bodies.append {
          multiply()
          return byteCount
        }
      }
    }
    var rates = effort.rates(bodies)[...]
    for pool in pools {
      let read = rates.removeFirst()
      report.addRead(threads: pool.threadCount, type: weights.type, read)
      for set in sets {
        report.addDecode(
          type: weights.type, set: set, threads: pool.threadCount, rates.removeFirst(),
          of: read)
      }
    }
  }

  // MARK: - Prefill

  private func measurePrefill(_ weights: Weights, tokens: Int) throws {
    let matrices = Self.prefillMatrices
    let operations = 2 * Double(matrices * MatrixShape.valueCount * tokens)
    var names = ["sgemm"]
    var bodies = [try floatBody(floatWeights, tokens: tokens)]
    if weights.type != .f32 {
      names.append("dequantize + sgemm")
      bodies.append(try floatBody(weights, tokens: tokens))
    }
    for set in sets {
      // The portable set has one method under both names.
      for method in set == .portable ? [.byRows] : ProductMethod.allCases {
        names.append(set == .portable ? set.name : "\(set.name) \(method.name)")
        bodies.append(
          try products(
            weights, set: set, pool: allThreads, matrices: matrices, tokens: tokens,
            method: method))
      }
    }
    let rates = effort.rates(
      bodies.map { body in
        {
          body()
          return operations
        }
      })
    for (name, rate) in zip(names, rates) {
      report.addPrefill(type: weights.type, kernels: name, tokens: tokens, rate)
    }
  }

  /// A function that multiplies the next few matrices as the engine does.
  private func products(
    _ weights: Weights, set: KernelSet, pool: WorkerPool, matrices: Int, tokens: Int,
    method: ProductMethod? = nil
  ) throws -> () -> Void {
    let kernels = Kernels(set: set)
    let batch = ProductBatch(kernels: kernels, pool: pool, capacity: matrices)
    let operands = try MatrixShape.all.map {
      try Operands(weights.type, shape: $0, tokens: tokens, matrices: matrices, kernels: kernels)
    }
    return {
      let (first, shapeIndex) = weights.take(matrices)
      let operands = operands[shapeIndex]
      for index in 0..<matrices {
        batch.append(
          Product(
            weights.matrix(first + index, shape: MatrixShape.all[shapeIndex]),
            activations: operands.activations, outputs: operands.outputs + index * tokens,
            tokenCount: tokens, method: method))
      }
      batch.run()
    }
  }

  /// A function that multiplies the next few matrices with sgemm.
  private func floatBody(_ weights: Weights, tokens: Int) throws -> () -> Void {
    let matrices = Self.prefillMatrices
    let operands = try MatrixShape.all.map {
      try Operands(
        .f32, shape: $0, tokens: tokens, matrices: matrices, kernels: Kernels(set: .best))
    }
    return { [floatProducts] in
      let (first, shapeIndex) = weights.take(matrices)
      floatProducts.run(
        weights.matrix(first, shape: MatrixShape.all[shapeIndex]), count: matrices,
        operands: operands[shapeIndex], tokens: tokens)
    }
  }
}

extension ProductMethod {
  /// As the tables name it.
  fileprivate var name: String {
    switch self {
    case .byRows: "by rows"
    case .packed: "packed"
    }
  }
}

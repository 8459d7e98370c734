internal import DirectIO
internal import Placement
internal import Tensors

extension Calibration {
  /// Units of work per second of `body`, which does some and says how much.
  func rate(_ body: () -> Int) -> Double {
    workPerSecond(for: effort.nanoseconds) { Double(body()) }
  }

  /// Bytes per second of plain reading, by number of threads.
  func memoryRates() throws -> [(threads: Int, rate: Double)] {
    let byteCount = farMemory.byteCount
    return try Self.threadCounts(upTo: pool.threadCount).map { threads in
      let pool = threads == self.pool.threadCount ? self.pool : try WorkerPool(threadCount: threads)
      let reader = MemoryRead(pool: pool, byteCount: byteCount)
      return (threads, rate { reader.read(farMemory.base, byteCount: byteCount) })
    }
  }

  /// One, all, and the powers of two between.
  static func threadCounts(upTo all: Int) -> [Int] {
    Array(sequence(first: 1) { 2 * $0 }.prefix { $0 < all }) + [all]
  }

  /// The types that most files have, which are measured with every number of tokens.
  private static let commonTypes: Set<ElementType> = [
    .f32, .f16, .bf16, .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q4_K, .q5_K, .q6_K,
  ]

  /// Bytes of weights per second with matrices of the size of experts', out of memory and out of the cache.
  func productRates(_ type: ElementType) -> [(ProductCell, Double)] {
    var result: [(ProductCell, Double)] = []
    let isCommon = Self.commonTypes.contains(type)
    // Of the others few numbers of tokens, in half the time: between them the model interpolates.
    let tokenCounts = isCommon ? effort.tokenCounts : [1, 16, effort.tokenCounts.last! / 2]
    let nanoseconds = isCommon ? effort.nanoseconds : effort.nanoseconds / 2
    for isCached in [false, true] {
      let products = RandomProducts(
        type, rows: isCached ? 256 : 1024, columns: isCached ? 256 : 2048,
        in: isCached ? weights.near : weights.far,
        tokenCapacity: tokenCounts.last!, kernels: kernels, pool: pool)
      // The first products find nothing in any cache.
      _ = products.run(RandomProducts.batchCount, tokens: 1)
      for tokens in tokenCounts {
        let count = tokens > 16 && !isCached ? 1 : RandomProducts.batchCount
        let rate = workPerSecond(for: nanoseconds) { Double(products.run(count, tokens: tokens)) }
        let cell = ProductCell(
          type: type.name, kernels: kernels.set.name, tokens: tokens, isCached: isCached)
        result.append((cell, rate))
      }
    }
    return result
  }

  /// The same of the kernel sets that this processor has beside: out of memory, with one token and with some.
  func otherProductRates(_ type: ElementType) -> [(ProductCell, Double)] {
    KernelSet.allCases.filter { $0 != kernels.set && $0 <= .best }.flatMap { set in
      let products = RandomProducts(
        type, rows: 1024, columns: 2048, in: weights.far, tokenCapacity: 16,
        kernels: Kernels(set: set), pool: pool)
      return [1, 16].map { tokens in
        let rate = workPerSecond(for: effort.nanoseconds / 4) {
          Double(products.run(2, tokens: tokens))
        }
        let cell = ProductCell(type: type.name, kernels: set.name, tokens: tokens, isCached: false)
        return (cell, rate)
      }
    }
  }

  /// The shares that reading and products with so many tokens keep of their rates when both go on at once,
  /// as they do while a layer multiplies what is there and reads what it misses.
  func contention(with file: CalibrationFile, tokens: Int) throws -> (read: Double, compute: Double)
  {
    let products = RandomProducts(
      .q4_0, rows: 1024, columns: 2048, in: weights.far, tokenCapacity: tokens,
      kernels: kernels, pool: pool)
    var reader = try file.reader(
      .init(kind: file.mainKind, blockByteCount: 1 << 20, depth: 8),
      into: farMemory)
    // In turn, and the medians of them: a machine that others use too is now faster, now slower.
    var shares: (reads: [Double], computes: [Double]) = ([], [])
    for _ in 0..<effort.turns {
      let computeAlone = rate { products.run(2, tokens: tokens) }
      let readAlone = try reader.steadyRate(nanoseconds: effort.diskNanoseconds)
      var computed = 0
      let start = monotonicNanoseconds()
      let readTogether = try reader.steadyRate(nanoseconds: effort.diskNanoseconds) {
        computed += products.run(2, tokens: tokens)
      }
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      shares.reads.append(min(1, readTogether / readAlone))
      shares.computes.append(min(1, Double(computed) / seconds / computeAlone))
    }
    return (Figure(rounds: shares.reads).value, Figure(rounds: shares.computes).value)
  }
}

import Glibc
import TestSupport
import Testing

@testable import Tensors

@Suite struct ProductsTests {
  /// Matrices that share one batch: several types, row counts around the 32 rows of a chunk.
  private struct Layer {
    struct Part {
      let weights: WeightSample
      let isGated: Bool
      let tokens: Int
      /// Vectors to multiply with, [tokens][columns].
      let activations: [[Float]]
      /// [tokens][rows].
      let gates: [[Float]]
    }

    let parts: [Part]

    init() throws {
      let shapes: [(ElementType, rows: Int, columns: Int, tokens: Int, isGated: Bool)] = [
        (.q4_K, 100, 256, 1, true), (.f32, 1, 48, 3, true), (.q4_0, 32, 64, 2, false),
        (.f16, 0, 32, 1, false), (.q8_0, 33, 96, 5, true), (.q6_K, 64, 512, 9, true),
        (.bf16, 31, 37, 1, false), (.f32, 200, 20, 1, false), (.q5_1, 0, 32, 1, true),
      ]
      parts = try shapes.enumerated().map { index, shape in
        var generator = SeededGenerator(seed: UInt64(index))
        func vectors(_ count: Int, _ range: ClosedRange<Float>) -> [[Float]] {
          (0..<shape.tokens).map { _ in
            (0..<count).map { _ in .random(in: range, using: &generator) }
          }
        }
        return Part(
          weights: try WeightSample(shape.0, rows: shape.rows, columns: shape.columns),
          isGated: shape.isGated, tokens: shape.tokens,
          activations: vectors(shape.columns, -3...3), gates: vectors(shape.rows, -8...8))
      }
    }

    /// The outputs, [parts][tokens][rows], of one batch run `times` times.
    func outputs(_ kernels: Kernels, threadCount: Int, times: Int = 1) throws -> [[[Float]]] {
      let pool = try WorkerPool(threadCount: threadCount)
      let batch = ProductBatch(kernels: kernels, pool: pool, capacity: parts.count)
      var outputs: [[[Float]]] = []
      for _ in 0..<times {
        let memories = parts.map { PartMemory($0, kernels: kernels) }
        for memory in memories { batch.append(memory.product) }
        batch.run()
        outputs = memories.map(\.outputs)
      }
      return outputs
    }
  }

  /// The pointers of one product and what they point to.
  private final class PartMemory {
    private let part: Layer.Part
    private let bytes: UnsafeMutableRawPointer
    private let rows: [UnsafeRawPointer]
    private let outputRows: [UnsafeMutablePointer<Float>]
    private let gateRows: [UnsafeMutablePointer<Float>]
    private let rowList: UnsafeMutablePointer<UnsafeRawPointer>
    private let outputList: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
    private let gateList: UnsafeMutablePointer<UnsafeMutablePointer<Float>>

    init(_ part: Layer.Part, kernels: Kernels) {
      self.part = part
      let weights = part.weights
      bytes = Self.copy(weights.bytes)
      rows = part.activations.map {
        UnsafeRawPointer(Self.copy(kernels.activationRow($0, type: weights.type)))
      }
      // One value more than there are rows: it must stay.
      outputRows = part.activations.map { _ in
        Self.copy([Float](repeating: Kernels.untouched, count: weights.rows + 1))
          .assumingMemoryBound(to: Float.self)
      }
      gateRows = part.gates.map { Self.copy($0).assumingMemoryBound(to: Float.self) }
      rowList = Self.list(rows)
      outputList = Self.list(outputRows)
      gateList = Self.list(gateRows)
    }

    deinit {
      bytes.deallocate()
      for row in rows { row.deallocate() }
      for row in outputRows + gateRows { row.deallocate() }
      rowList.deallocate()
      outputList.deallocate()
      gateList.deallocate()
    }

    private static func copy<Element: BitwiseCopyable>(
      _ values: [Element]
    ) -> UnsafeMutableRawPointer {
      values.withUnsafeBytes {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: max($0.count, 1), alignment: 64)
        if let base = $0.baseAddress { memory.copyMemory(from: base, byteCount: $0.count) }
        return memory
      }
    }

    private static func list<Element>(_ values: [Element]) -> UnsafeMutablePointer<Element> {
      let list = UnsafeMutablePointer<Element>.allocate(capacity: values.count)
      for (index, value) in values.enumerated() { (list + index).initialize(to: value) }
      return list
    }

    var product: Product {
      Product(
        Matrix(
          bytes: bytes, type: part.weights.type, rows: part.weights.rows,
          columns: part.weights.columns),
        activations: rowList, outputs: outputList, gates: part.isGated ? gateList : nil,
        tokenCount: part.tokens)
    }

    var outputs: [[Float]] {
      outputRows.map {
        #expect($0[part.weights.rows] == Kernels.untouched)
        return Array(UnsafeBufferPointer(start: $0, count: part.weights.rows))
      }
    }
  }

  /// A part's exact outputs, and |weight| |activation| |silu| of each, [tokens][rows].
  private func exact(
    _ part: Layer.Part, _ kernels: Kernels
  ) -> [[(value: Double, magnitude: Double)]] {
    let weights = part.weights
    let (values, magnitudes) = (weights.values, weights.magnitudes)
    return (0..<part.tokens).map { t in
      let x =
        weights.type.wantsQuantizedActivations
        ? QuantizedRow(
          kernels.activationRow(part.activations[t], type: weights.type), columns: weights.columns
        ).values : part.activations[t].map(Double.init)
      return (0..<weights.rows).map { r in
        var (value, magnitude) = (0.0, 0.0)
        for c in 0..<weights.columns {
          value += Double(values[r * weights.columns + c]) * x[c]
          magnitude += Double(magnitudes[r * weights.columns + c]) * abs(x[c])
        }
        let gate = Double(part.gates[t][r])
        let factor = part.isGated ? gate / (1 + exp(-gate)) : 1
        return (value * factor, magnitude * abs(factor))
      }
    }
  }

  @Test(arguments: MatmulTests.available)
  func aBatchAgreesWithDoublePrecision(_ set: KernelSet) throws {
    let layer = try Layer()
    let kernels = Kernels(set: set)
    let outputs = try layer.outputs(kernels, threadCount: 3, times: 2)
    for (part, result) in zip(layer.parts, outputs) {
      for (token, row) in exact(part, kernels).enumerated() {
        try #require(result[token].count == row.count)
        for (r, expected) in row.enumerated() {
          // The product's own bound and that of silu.
          let error = abs(Double(result[token][r]) - expected.value)
          try #require(
            error <= 3e-6 * expected.magnitude,
            "\(part.weights.type), row \(r): \(result[token][r]), not \(expected.value)")
        }
      }
    }
  }

  @Test(arguments: MatmulTests.available)
  func threadCountChangesNoBit(_ set: KernelSet) throws {
    let layer = try Layer()
    let kernels = Kernels(set: set)
    func bits(_ threadCount: Int) throws -> [[[UInt32]]] {
      try layer.outputs(kernels, threadCount: threadCount, times: 5)
        .map { $0.map { $0.map(\.bitPattern) } }
    }
    let alone = try bits(1)
    for threadCount in [2, 3, 8] { #expect(try bits(threadCount) == alone) }
  }

  @Test func anEmptyBatchDoesNothing() throws {
    let pool = try WorkerPool(threadCount: 2)
    let batch = ProductBatch(kernels: Kernels(set: .best), pool: pool, capacity: 1)
    batch.run()
    batch.run()
    #expect(pool.nanoseconds == 0)
  }

  @Test func moreProductsThanTheCapacityTrap() async {
    await #expect(processExitsWith: .failure) {
      let part = try #require(try Layer().parts.first)
      let kernels = Kernels(set: .portable)
      let memory = PartMemory(part, kernels: kernels)
      let pool = try WorkerPool(threadCount: 1)
      let batch = ProductBatch(kernels: kernels, pool: pool, capacity: 1)
      batch.append(memory.product)
      batch.append(memory.product)
    }
  }
}

import TestSupport
import Testing

@testable import Tensors

/// Products of 8-bit floats with scales apart, against sums in double precision.
@Suite struct Float8Tests {
  static let sets = KernelSet.allCases.filter { $0 <= .best }

  /// The value of a byte of E4M3 (arXiv 2209.05433): 4 bits of exponent, 3 of mantissa, no infinity.
  private static func value(_ bits: UInt8) -> Double {
    let (exponent, mantissa) = (Int(bits >> 3 & 15), Double(bits & 7))
    guard bits & 0x7f != 0x7f else { return .nan }
    var magnitude = exponent == 0 ? mantissa / 8 : 1 + mantissa / 8
    for _ in 0..<abs(max(1, exponent) - 7) { magnitude *= exponent > 7 ? 2 : 0.5 }
    return bits & 0x80 == 0 ? magnitude : -magnitude
  }

  /// A matrix, its scales and some vectors.
  private struct Sample {
    let rows: Int
    let columns: Int
    let block: (rows: Int, columns: Int)
    var weights: [UInt8]
    let scales: [Float]
    let vectors: [[Float]]

    var stride: Int { (columns + block.columns - 1) / block.columns }

    init(rows: Int, columns: Int, block: (rows: Int, columns: Int), tokens: Int) {
      var random = SeededGenerator(seed: UInt64(rows * columns + tokens))
      self.rows = rows
      self.columns = columns
      self.block = block
      weights = (0..<rows * columns).map { _ in
        let bits = UInt8(truncatingIfNeeded: random.next())
        return bits & 0x7f == 0x7f ? 0 : bits
      }
      let count =
        (rows + block.rows - 1) / block.rows * ((columns + block.columns - 1) / block.columns)
      scales = (0..<count).map { _ in .random(in: 1e-4...1e-2, using: &random) }
      vectors = (0..<tokens).map { _ in
        (0..<columns).map { _ in .random(in: -1...1, using: &random) }
      }
    }

    /// The product of a row, and the sum of its terms' magnitudes.
    func exact(_ row: Int, _ token: Int) -> (product: Double, magnitude: Double) {
      var (product, magnitude) = (0.0, 0.0)
      for column in 0..<columns {
        let scale = scales[row / block.rows * stride + column / block.columns]
        let term =
          Float8Tests.value(weights[row * columns + column]) * Double(scale)
          * Double(vectors[token][column])
        product += term
        magnitude += abs(term)
      }
      return (product, magnitude)
    }

    func products(
      _ set: KernelSet, _ method: ProductMethod, rows range: Range<Int>? = nil, tokens: Int? = nil
    ) -> [[Float]] {
      let count = tokens ?? vectors.count
      let inputs = Array(vectors.prefix(count).joined())
      var outputs = [Float](repeating: .nan, count: count * rows)
      weights.withUnsafeBytes { bytes in
        scales.withUnsafeBufferPointer { values in
          inputs.withUnsafeBufferPointer { inputs in
            outputs.withUnsafeMutableBufferPointer { outputs in
              Kernels(set: set).matmul(
                type: .f8_E4M3, weights: bytes.baseAddress!, columns: columns,
                rows: range ?? 0..<rows,
                activations: (0..<count).map {
                  UnsafeRawPointer(inputs.baseAddress! + $0 * columns)
                }, outputs: (0..<count).map { outputs.baseAddress! + $0 * rows }, tokens: count,
                method: method,
                scales: BlockScales(
                  values: values.baseAddress!, rows: block.rows, columns: block.columns,
                  stride: stride))
            }
          }
        }
      }
      return (0..<count).map { Array(outputs[$0 * rows..<($0 + 1) * rows]) }
    }
  }

  @Test(arguments: sets, ProductMethod.allCases)
  func productsAreThoseOfTheirDefinition(_ set: KernelSet, _ method: ProductMethod) {
    for (rows, columns, block, tokens) in [
      (1, 32, (128, 128), 1), (37, 96, (24, 32), 3), (64, 640, (128, 128), 7),
      (130, 1056, (128, 128), 9), (20, 544, (1, 544), 70),
    ] {
      let sample = Sample(rows: rows, columns: columns, block: block, tokens: tokens)
      let found = sample.products(set, method)
      for token in 0..<tokens {
        for row in 0..<rows {
          let (product, magnitude) = sample.exact(row, token)
          #expect(abs(Double(found[token][row]) - product) <= 2e-6 * magnitude + 1e-12)
        }
      }
    }
  }

  @Test(arguments: sets, ProductMethod.allCases)
  func bitsDoNotDependOnTheSplit(_ set: KernelSet, _ method: ProductMethod) {
    let sample = Sample(rows: 50, columns: 1056, block: (24, 96), tokens: 67)
    let whole = sample.products(set, method)
    for range in [3..<50, 17..<18, 0..<33] {
      for tokens in [1, 2, 5, 64, 67] {
        let part = sample.products(set, method, rows: range, tokens: tokens)
        for token in 0..<tokens {
          #expect(part[token][range].map(\.bitPattern) == whole[token][range].map(\.bitPattern))
        }
      }
    }
  }

  @Test(arguments: sets) func everyByteHasItsValue(_ set: KernelSet) {
    var sample = Sample(rows: 256, columns: 32, block: (256, 32), tokens: 1)
    for row in 0..<256 {
      for column in 0..<32 { sample.weights[row * 32 + column] = column == 5 ? UInt8(row) : 0 }
    }
    for method in ProductMethod.allCases {
      let found = sample.products(set, method)[0]
      for row in 0..<256 {
        let expected = sample.exact(row, 0).product
        if expected.isNaN {
          #expect(found[row].isNaN)
        } else {
          #expect(abs(Double(found[row]) - expected) <= 1e-6 * abs(expected))
        }
      }
    }
  }
}

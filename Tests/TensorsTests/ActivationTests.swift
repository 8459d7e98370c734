import TestSupport
import Testing

@testable import Tensors

@Suite struct ActivationTests {
  static let columnCounts = [32, 64, 96, 256, 288, 2048]

  /// Values whose blocks are ordinary, tiny, huge, subnormal, halfway between integers, or poisoned.
  private func values(columns: Int) -> [Float] {
    var generator = SeededGenerator(seed: UInt64(columns))
    return (0..<columns).map { i in
      let value = Float.random(in: -1...1, using: &generator)
      switch (i / 32 + columns / 32) % 9 {
      case 0: return value
      case 1: return value * 1e-30
      case 2: return value * .greatestFiniteMagnitude
      case 3: return value * .leastNormalMagnitude
      case 4: return value * 1e-37
      case 5: return i % 32 == 0 ? 127 : Float(i % 32) - 15.5
      case 6: return i % 32 == 31 ? .nan : value
      case 7: return i % 32 == 16 ? -.infinity : value
      default: return i.isMultiple(of: 2) ? 0 : -0.0
      }
    }
  }

  @Test(arguments: columnCounts)
  func everySetQuantizesToTheSameBits(_ columns: Int) {
    let expected = Kernels(set: .portable).activationRow(values(columns: columns), type: .q4_0)
    for set in MatmulTests.available {
      #expect(Kernels(set: set).activationRow(values(columns: columns), type: .q4_0) == expected)
    }
  }

  @Test(arguments: columnCounts)
  func quantizedValuesAreWithinHalfAStep(_ columns: Int) {
    let x = values(columns: columns)
    let row = QuantizedRow(
      Kernels(set: .portable).activationRow(x, type: .q8_0), columns: columns)
    for block in 0..<columns / 32 {
      let range = 32 * block..<32 * block + 32
      let scale = row.scales[block]
      guard x[range].allSatisfy({ $0.isFinite }) else {
        #expect(scale.isNaN && row.q[range].allSatisfy { $0 == 0 })
        continue
      }
      let largest = x[range].map(abs).max()!
      #expect(scale == largest / 127 || scale == 0 && largest / 127 < .leastNormalMagnitude)
      let step = scale == 0 ? 2 * Double(largest) : Double(scale)
      for i in range {
        #expect(row.q[i] > -128)
        #expect(abs(row.values[i] - Double(x[i])) <= step * 0.50001)
      }
    }
  }

  @Test(arguments: columnCounts)
  func sumsAreThoseOfTheQuants(_ columns: Int) {
    let row = QuantizedRow(
      Kernels(set: .best).activationRow(values(columns: columns), type: .q5_1),
      columns: columns)
    for i in row.sums.indices {
      #expect(Int(row.sums[i]) == row.q[16 * i..<16 * i + 16].reduce(0) { $0 + Int($1) })
    }
  }

  @Test func roundsHalfToEven() {
    var x = [Float](repeating: 0, count: 32)
    x.replaceSubrange(0..<7, with: [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    for set in MatmulTests.available {
      let row = QuantizedRow(Kernels(set: set).activationRow(x, type: .q4_0), columns: 32)
      #expect(row.q[..<7] == [127, 0, 2, 2, 0, -2, -2])
    }
  }

  @Test func rowSizesAreMultiplesOf64() {
    let kernels = Kernels(set: .best)
    for type in ElementType.computable {
      for columns in type.testColumns {
        let byteCount = kernels.activationByteCount(type: type, columns: columns)
        let needed = type.blockSize == 1 ? 4 * columns : columns * 5 / 4
        #expect(byteCount.isMultiple(of: 64) && needed..<needed + 64 ~= byteCount)
      }
    }
  }

  @Test func floatWeightsTakeTheFloatsThemselves() {
    let x = values(columns: 96)
    let row = Kernels(set: .best).activationRow(x, type: .bf16)
    let back = row.withUnsafeBytes { raw in
      (0..<96).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self) }
    }
    #expect(back == x.map(\.bitPattern))
  }
}

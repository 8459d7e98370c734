import Glibc
import TestSupport
import Testing

@testable import Tensors

/// Layer norms, gates, the short convolution and the gated delta rule, against double precision.
@Suite struct RecurrentTests {
  static let available = KernelSet.allCases.filter { $0 <= .best }
  static let counts = [1, 3, 15, 16, 17, 48, 63, 64, 65, 80, 128, 130]

  private func floats(
    _ count: Int, in range: ClosedRange<Float>, using generator: inout SeededGenerator
  ) -> [Float] {
    (0..<count).map { _ in .random(in: range, using: &generator) }
  }

  /// `count` results between guards, which must stay as they are.
  private func guarded(_ count: Int, _ body: (UnsafeMutablePointer<Float>) -> Void) -> [Float] {
    var values = [Float](repeating: -12345.5, count: count + 6)
    values.withUnsafeMutableBufferPointer { body($0.baseAddress! + 3) }
    #expect((values.prefix(3) + values.suffix(3)).allSatisfy { $0 == -12345.5 })
    return Array(values.dropFirst(3).prefix(count))
  }

  private func expectClose(
    _ found: [Float], _ exact: [Double], _ bound: (Int) -> Double
  ) throws {
    try #require(found.count == exact.count)
    for index in exact.indices {
      try #require(
        abs(Double(found[index]) - exact[index]) <= bound(index),
        "\(index): \(found[index]), not \(exact[index])")
    }
  }

  @Test(arguments: available, counts)
  func layerNormAgreesWithDoublePrecision(_ set: KernelSet, _ count: Int) throws {
    var generator = SeededGenerator(seed: UInt64(count))
    // Far from zero too, where the mean is most of every value.
    for offset in [0, 20] as [Float] {
      let x = floats(count, in: offset - 1...offset + 1, using: &generator)
      let weight = floats(count, in: -2...2, using: &generator)
      let bias = floats(count, in: -2...2, using: &generator)
      let epsilon: Float = 1e-5
      let mean = x.reduce(0) { $0 + Double($1) } / Double(count)
      let variance =
        x.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(count)
      let scale = 1 / (variance + Double(epsilon)).squareRoot()
      let exact = x.indices.map {
        (Double(x[$0]) - mean) * scale * Double(weight[$0]) + Double(bias[$0])
      }
      let found = guarded(count) {
        Kernels(set: set).layerNorm(
          x, weight: weight, bias: bias, into: $0, count: count, epsilon: epsilon)
      }
      // The mean is rounded at the size of the values.
      try expectClose(found, exact) { _ in 1e-5 + 4e-6 * Double(offset) * min(scale, 1 / 1e-2) }
      let inPlace = guarded(count) { out in
        out.update(from: x, count: count)
        Kernels(set: set).layerNorm(
          out, weight: weight, bias: bias, into: out, count: count, epsilon: epsilon)
      }
      #expect(inPlace == found)
    }
  }

  @Test(arguments: available, counts)
  func gatesAgreeWithDoublePrecision(_ set: KernelSet, _ count: Int) throws {
    var generator = SeededGenerator(seed: UInt64(count))
    let gate = floats(count, in: -80...80, using: &generator)
    let up = floats(count, in: -3...3, using: &generator)
    let found = guarded(count) {
      Kernels(set: set).sigmoidMultiply(gate: gate, up: up, into: $0, count: count)
    }
    let exact = gate.indices.map { Double(up[$0]) / (1 + exp(-Double(gate[$0]))) }
    try expectClose(found, exact) { 6e-7 * abs(exact[$0]) + 1e-36 }
  }

  @Test(arguments: available, counts)
  func convolutionAgreesWithDoublePrecision(_ set: KernelSet, _ count: Int) throws {
    for width in [1, 2, 4, 5] {
      var generator = SeededGenerator(seed: UInt64(count * 8 + width))
      let taps = floats(count * width, in: -1...1, using: &generator)
      let rows = (0..<width).map { _ in floats(count, in: -3...3, using: &generator) }
      let exact = (0..<count).map { channel in
        let sum = (0..<width).reduce(0.0) {
          $0 + Double(taps[channel * width + $1]) * Double(rows[$1][channel])
        }
        return sum / (1 + exp(-sum))
      }
      let all = rows.flatMap { $0 }
      let found = all.withUnsafeBufferPointer { buffer in
        let pointers = (0..<width).map { buffer.baseAddress! + $0 * count }
        return guarded(count) {
          Kernels(set: set).convolve(pointers, taps: taps, width: width, into: $0, count: count)
        }
      }
      try expectClose(found, exact) { 4e-6 * (1 + abs(exact[$0])) }
    }
  }

  /// Three tokens, the first from one state into another, the others in place.
  @Test(arguments: available, counts)
  func deltaRuleAgreesWithDoublePrecision(_ set: KernelSet, _ dimension: Int) throws {
    var generator = SeededGenerator(seed: UInt64(dimension))
    let initial = floats(dimension * dimension, in: -1...1, using: &generator)
    var state = initial.map(Double.init)
    var after = [Float](repeating: .nan, count: initial.count)
    let unit = 1 / Float(dimension).squareRoot()
    for token in 0..<3 {
      let key = floats(dimension, in: -unit...unit, using: &generator)
      let query = floats(dimension, in: -unit...unit, using: &generator)
      let value = floats(dimension, in: -2...2, using: &generator)
      let (decay, rate) = (
        Float.random(in: 0...1, using: &generator), Float.random(in: 0...1, using: &generator)
      )
      for index in state.indices { state[index] *= Double(decay) }
      var exact = [Double](repeating: 0, count: dimension)
      for column in 0..<dimension {
        let held = (0..<dimension).reduce(0.0) {
          $0 + state[$1 * dimension + column] * Double(key[$1])
        }
        let change = (Double(value[column]) - held) * Double(rate)
        for row in 0..<dimension {
          state[row * dimension + column] += Double(key[row]) * change
          exact[column] += state[row * dimension + column] * Double(query[row])
        }
      }
      let found = guarded(dimension) { out in
        after.withUnsafeMutableBufferPointer { target in
          initial.withUnsafeBufferPointer { source in
            let own = target.baseAddress!
            Kernels(set: set).delta(
              dimension: dimension,
              before: token == 0 ? source.baseAddress! : UnsafePointer(own), after: own, key: key,
              query: query, value: value, decay: decay, rate: rate, into: out)
          }
        }
      }
      try expectClose(found, exact) { _ in 2e-5 }
      try expectClose(after, state) { _ in 1e-5 }
    }
  }
}

import Glibc
import TestSupport
import Testing

@testable import Tensors

/// Largest errors of the float kernels against double precision.
private enum ErrorBound {
  /// Relative: at most 16 partial sums of a sum of squares, a root, a quotient and two products.
  static let rmsNorm = 1e-6
  /// Relative, where e^-gate does not overflow: an exponential of about 2 ulp and three roundings.
  static let siluMultiply = 6e-7
  /// Absolute and per unit of `up`: beyond -87 the exponential is clamped instead of growing.
  static let siluMultiplyFloor = 1e-36
  /// Relative to each probability, for arguments near zero; the difference from the maximum is
  /// itself rounded, which costs half an ulp of that difference more.
  static let softmax = 1e-6
  /// Absolute: e^-87, which stands for all smaller ones.
  static let softmaxFloor = 2e-38
  /// Relative to |a| + |b| of the pair: three roundings.
  static let rope = 1.5 * 0x1p-23
}

@Suite struct ElementwiseTests {
  static let available = KernelSet.allCases.filter { $0 <= .best }

  private func floats(
    _ count: Int, in range: ClosedRange<Float>, using generator: inout SeededGenerator
  ) -> [Float] {
    (0..<count).map { _ in .random(in: range, using: &generator) }
  }

  /// `count` results that `body` writes between two guards, which must stay as they are.
  private func guarded(
    _ initial: [Float], _ body: (UnsafeMutablePointer<Float>) -> Void
  ) -> [Float] {
    let border: [Float] = [-12345.5, -12345.5, -12345.5]
    var values = border + initial + border
    values.withUnsafeMutableBufferPointer { body($0.baseAddress! + border.count) }
    #expect(Array(values.prefix(3)) == border && Array(values.suffix(3)) == border)
    return Array(values[3..<3 + initial.count])
  }

  private func zeros(_ count: Int) -> [Float] { Array(repeating: 0, count: count) }

  // MARK: - RMS norm

  @Test(arguments: available, [1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 255, 2048, 2049])
  func rmsNormAgreesWithDoublePrecision(_ set: KernelSet, _ count: Int) throws {
    var generator = SeededGenerator(seed: UInt64(count))
    for scale in [1, 1e-6, 1e6] as [Float] {
      let x = floats(count, in: -scale...scale, using: &generator)
      let weight = floats(count, in: -2...2, using: &generator)
      let epsilon: Float = 1e-5
      let mean = x.reduce(0) { $0 + Double($1) * Double($1) } / Double(count)
      let factor = 1 / (mean + Double(epsilon)).squareRoot()
      let result = guarded(zeros(count)) {
        Kernels(set: set).rmsNorm(x, weight: weight, into: $0, count: count, epsilon: epsilon)
      }
      for i in 0..<count {
        let exact = Double(x[i]) * factor * Double(weight[i])
        try #require(abs(Double(result[i]) - exact) <= ErrorBound.rmsNorm * abs(exact))
      }
      let inPlace = guarded(x) {
        Kernels(set: set).rmsNorm($0, weight: weight, into: $0, count: count, epsilon: epsilon)
      }
      #expect(inPlace == result)
    }
  }

  @Test(arguments: available)
  func rmsNormOfZerosIsZero(_ set: KernelSet) {
    let weight = [Float](repeating: 3, count: 40)
    let result = guarded(zeros(40)) {
      Kernels(set: set).rmsNorm(zeros(40), weight: weight, into: $0, count: 40, epsilon: 1e-6)
    }
    #expect(result == zeros(40))
  }

  // MARK: - SwiGLU

  private func expectSilu(_ set: KernelSet, gate: [Float], up: [Float]) throws {
    let count = gate.count
    let result = guarded(zeros(count)) {
      Kernels(set: set).siluMultiply(gate: gate, up: up, into: $0, count: count)
    }
    for i in 0..<count {
      let (g, u) = (Double(gate[i]), Double(up[i]))
      let exact = g / (1 + exp(-g)) * u
      let bound = ErrorBound.siluMultiply * abs(exact) + ErrorBound.siluMultiplyFloor * abs(u)
      try #require(
        abs(Double(result[i]) - exact) <= bound, "silu(\(g)) * \(u): \(result[i]), not \(exact)")
    }
    let overGate = guarded(gate) {
      Kernels(set: set).siluMultiply(gate: $0, up: up, into: $0, count: count)
    }
    let overUp = guarded(up) {
      Kernels(set: set).siluMultiply(gate: gate, up: $0, into: $0, count: count)
    }
    #expect(overGate == result && overUp == result)
  }

  @Test(arguments: available)
  func siluMultiplyAgreesWithDoublePrecisionAtEveryLength(_ set: KernelSet) throws {
    for count in 0...70 {
      var generator = SeededGenerator(seed: UInt64(count))
      try expectSilu(
        set, gate: floats(count, in: -90...90, using: &generator),
        up: floats(count, in: -3...3, using: &generator))
    }
  }

  @Test(arguments: available)
  func siluMultiplyAgreesWithDoublePrecisionOverItsRange(_ set: KernelSet) throws {
    let gate = stride(from: Float(-90), through: 90, by: 0.0625).map { $0 }
    try expectSilu(set, gate: gate, up: gate.indices.map { Float($0 % 7) - 3 })
    let small = (0..<64).map { Float(($0 % 2) * 2 - 1) * exp2(-Float($0)) }
    try expectSilu(set, gate: small, up: Array(repeating: 1, count: 64))
  }

  /// The split into chunks of a product must change no bit.
  @Test(arguments: available)
  func siluMultiplyGivesTheSameBitsWhereverAChunkStarts(_ set: KernelSet) {
    var generator = SeededGenerator(seed: 3)
    let gate = floats(70, in: -20...20, using: &generator)
    let up = floats(70, in: -3...3, using: &generator)
    func result(_ range: Range<Int>) -> [UInt32] {
      guarded(zeros(range.count)) {
        Kernels(set: set).siluMultiply(
          gate: Array(gate[range]), up: Array(up[range]), into: $0, count: range.count)
      }.map(\.bitPattern)
    }
    let whole = result(0..<70)
    for start in 0..<70 { #expect(result(start..<70) == Array(whole[start...])) }
    for i in 0..<70 { #expect(result(i..<i + 1) == [whole[i]]) }
  }

  // MARK: - Softmax

  private func expectSoftmax(_ set: KernelSet, _ x: [Float]) throws {
    let result = guarded(x) { Kernels(set: set).softmax($0, count: x.count) }
    let maximum = Double(x.max() ?? 0)
    let exponentials = x.map { exp(Double($0) - maximum) }
    let sum = exponentials.reduce(0, +)
    for i in x.indices {
      let exact = exponentials[i] / sum
      let spread = maximum - Double(x[i])
      let bound =
        (ErrorBound.softmax + spread * 0x1p-24) * exact + ErrorBound.softmaxFloor
      try #require(
        abs(Double(result[i]) - exact) <= bound, "\(i) of \(x.count): \(result[i]), not \(exact)")
    }
    guard !x.isEmpty else { return }
    #expect(abs(result.reduce(0) { $0 + Double($1) } - 1) <= ErrorBound.softmax)
  }

  @Test(arguments: available)
  func softmaxAgreesWithDoublePrecisionAtEveryLength(_ set: KernelSet) throws {
    for count in 0...100 {
      var generator = SeededGenerator(seed: UInt64(count))
      for (offset, width) in [(0, 3), (0, 60), (1000, 5), (-1e6, 8), (3e38, 0), (-3e38, 0)] {
        let x = floats(count, in: Float(-width)...Float(width), using: &generator)
        try expectSoftmax(set, x.map { $0 + Float(offset) })
      }
    }
  }

  @Test(arguments: available)
  func softmaxOfFarApartValuesIsOneAtTheLargest(_ set: KernelSet) throws {
    for count in [2, 16, 17, 33] {
      for largest in [0, count / 2, count - 1] {
        var x = [Float](repeating: -200, count: count)
        x[largest] = 100
        try expectSoftmax(set, x)
        x = Array(repeating: -.greatestFiniteMagnitude, count: count)
        x[largest] = .greatestFiniteMagnitude
        try expectSoftmax(set, x)
      }
    }
  }

  // MARK: - Rotation

  @Test(arguments: [2, 8, 30, 64, 96, 128])
  func ropeRotatesThePairsOfTheTwoHalves(_ dimension: Int) throws {
    var generator = SeededGenerator(seed: UInt64(dimension))
    let half = dimension / 2
    let head = floats(dimension, in: -4...4, using: &generator)
    let angles = floats(half, in: -3...3, using: &generator).map(Double.init)
    let cosines = angles.map { Float(cos($0)) }
    let sines = angles.map { Float(sin($0)) }
    for set in Self.available {
      let result = guarded(head) {
        Kernels(set: set).rope($0, cosines: cosines, sines: sines, dimension: dimension)
      }
      for i in 0..<half {
        let (a, b) = (Double(head[i]), Double(head[i + half]))
        let (c, s) = (Double(cosines[i]), Double(sines[i]))
        let bound = ErrorBound.rope * (abs(a) + abs(b))
        try #require(abs(Double(result[i]) - (a * c - b * s)) <= bound)
        try #require(abs(Double(result[i + half]) - (b * c + a * s)) <= bound)
      }
    }
  }

  // MARK: - Half precision

  private func halves(_ x: [Float]) -> [UInt16] {
    var result = [UInt16](repeating: 0xdead, count: x.count + 1)
    Kernels(set: .best).storeHalf(x, into: &result, count: x.count)
    #expect(result.last == 0xdead)
    return result.dropLast()
  }

  @Test func everyHalfSurvivesTheRoundTrip() {
    let all = (0...UInt16.max).map(Float16.init(bitPattern:))
    let result = halves(all.map(Float.init))
    let wrong = zip(all, result).filter { before, after in
      before.isNaN ? !Float16(bitPattern: after).isNaN : before.bitPattern != after
    }
    #expect(wrong.isEmpty)
  }

  @Test func roundsFloatsToTheNearestEvenHalf() {
    var generator = SeededGenerator(seed: 17)
    // Any bits at all; then the middle between two halves and its neighbours.
    var x = (0..<100_000).map { _ in
      Float(bitPattern: .random(in: 0...UInt32.max, using: &generator))
    }
    for bits in 0..<0x7c00 as Range<UInt16> {
      let low = Float(Float16(bitPattern: bits))
      let high = bits == 0x7bff ? 65536 : Float(Float16(bitPattern: bits + 1))
      let middle = (low + high) / 2
      x += [middle, middle.nextUp, middle.nextDown, -middle, -middle.nextUp, -middle.nextDown]
    }
    x += [65504, 65519.996, 65520, 1e30, .infinity, -.infinity, .leastNonzeroMagnitude, -0.0]
    let wrong = zip(x, halves(x)).filter { before, after in
      before.isNaN ? !Float16(bitPattern: after).isNaN : Float16(before).bitPattern != after
    }
    #expect(wrong.isEmpty)
  }

  // MARK: - Sums and limits

  @Test(arguments: [0, 1, 3, 15, 16, 17, 100])
  func addsAndScalesWithOneRounding(_ count: Int) {
    var generator = SeededGenerator(seed: UInt64(count))
    let x = floats(count, in: -3...3, using: &generator)
    let y = floats(count, in: -3...3, using: &generator)
    for set in Self.available {
      let kernels = Kernels(set: set)
      #expect(guarded(y) { kernels.add(x, to: $0, count: count) } == zip(x, y).map { $0 + $1 })
      let scale: Float = 0.3
      #expect(
        guarded(y) { kernels.add(x, scaledBy: scale, to: $0, count: count) }
          == zip(x, y).map { $1.addingProduct($0, scale) })
    }
  }

  @Test func clampsToTheLimitAndKeepsWhatIsWithin() {
    let x: [Float] = [-9, -2.0001, -2, -1.5, -0.0, 0, 1, 2, 2.0001, 1e30, .infinity, -.infinity]
    for set in Self.available {
      let result = guarded(x) { Kernels(set: set).clamp($0, limit: 2, count: x.count) }
      #expect(
        result.map(\.bitPattern)
          == ([-2, -2, -2, -1.5, -0.0, 0, 1, 2, 2, 2, 2, -2] as [Float]).map(\.bitPattern))
    }
  }

  // MARK: - NaN

  /// A NaN is contagious; it must not turn into a number on the way through a layer.
  @Test(arguments: available, [1, 16, 37])
  func aNaNStaysVisible(_ set: KernelSet, _ count: Int) {
    let kernels = Kernels(set: set)
    let ones = [Float](repeating: 1, count: count)
    for place in Set([0, count / 2, count - 1]) {
      var poisoned = ones
      poisoned[place] = .nan
      let only = (0..<count).map { $0 == place }
      #expect(
        guarded(zeros(count)) {
          kernels.rmsNorm(poisoned, weight: ones, into: $0, count: count, epsilon: 1e-5)
        }.allSatisfy { $0.isNaN })
      #expect(
        guarded(zeros(count)) {
          kernels.siluMultiply(gate: poisoned, up: ones, into: $0, count: count)
        }.map(\.isNaN) == only)
      #expect(
        guarded(zeros(count)) {
          kernels.siluMultiply(gate: ones, up: poisoned, into: $0, count: count)
        }.map(\.isNaN) == only)
      #expect(
        guarded(poisoned) { kernels.softmax($0, count: count) }.allSatisfy { $0.isNaN },
        "softmax of \(count) values with a NaN at \(place)")
      #expect(guarded(ones) { kernels.add(poisoned, to: $0, count: count) }.map(\.isNaN) == only)
      #expect(
        guarded(poisoned) { kernels.clamp($0, limit: 0.5, count: count) }.map(\.isNaN) == only)
    }
  }
}

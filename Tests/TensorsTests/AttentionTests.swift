import Glibc
import TestSupport
import Testing

@testable import Tensors

@Suite struct AttentionTests {
  static let available = KernelSet.allCases.filter { $0 <= .best }
  static let dimensions = [8, 24, 32, 64, 80, 96, 128]

  /// Relative to the weighted mean of |value|: the rounding of a score of at most a few units,
  /// which the exponential turns into a relative error, then the sum over positions.
  static let errorBound = 4e-6

  /// One head with its caches, [positions, dimension], as the kernels get them.
  struct Head {
    var query: [Float]
    var keys: [Float]
    var values: [Float]
    let dimension: Int
    /// The first values of a row of `values`, which is as long as a key.
    var valueDimension: Int
    let scale: Float
    var window: Int?
    var sink: Float?

    init(positions: Int, dimension: Int, half: Bool, magnitude: Float = 1) {
      var generator = SeededGenerator(seed: UInt64(positions << 8 | dimension))
      func floats(_ count: Int) -> [Float] {
        (0..<count).map { _ in .random(in: -magnitude...magnitude, using: &generator) }
      }
      query = floats(dimension)
      let (keys, values) = (floats(positions * dimension), floats(positions * dimension))
      self.keys = half ? keys.map { Float(Float16($0)) } : keys
      self.values = half ? values.map { Float(Float16($0)) } : values
      self.dimension = dimension
      valueDimension = dimension
      scale = 1 / Float(dimension).squareRoot()
    }

    func attended(_ set: KernelSet, half: Bool, positions: Int) -> [Float] {
      let untouched: Float = -12345.5
      var scores = [Float](repeating: untouched, count: positions + 2)
      var out = [Float](repeating: untouched, count: valueDimension + 1)
      func run(_ keys: UnsafeRawPointer, _ values: UnsafeRawPointer) {
        Kernels(set: set).attention(
          self.head(keys, values, half: half), query: query, positions: positions,
          scores: &scores, into: &out)
      }
      if half {
        run(keys.map { Float16($0).bitPattern }, values.map { Float16($0).bitPattern })
      } else {
        run(keys, values)
      }
      #expect(scores.last == untouched && out.last == untouched)
      return out.dropLast()
    }

    func head(
      _ keys: UnsafeRawPointer, _ values: UnsafeRawPointer, half: Bool
    ) -> AttentionHead {
      var head = AttentionHead(
        keys: keys, values: values, isHalf: half, dimension: dimension, scale: scale)
      head.valueDimension = valueDimension
      (head.window, head.sink) = (window, sink)
      return head
    }

    /// The output in double precision, and the same weights over |value|.
    func exact(positions: Int) -> (out: [Double], magnitude: [Double]) {
      let scores = (0..<positions).map { p in
        (0..<dimension).reduce(0.0) {
          $0 + Double(query[$1]) * Double(keys[p * dimension + $1])
        } * Double(scale)
      }
      let maximum = scores.max()!
      let first = max(0, positions - (window ?? positions))
      let weights = scores.enumerated().map { $0 < first ? 0 : exp($1 - maximum) }
      let sum = weights.reduce(0, +) + (sink.map { exp(Double($0) - maximum) } ?? 0)
      func mean(_ d: Int, _ value: (Double) -> Double) -> Double {
        (0..<positions).reduce(0) {
          $0 + weights[$1] / sum * value(Double(values[$1 * dimension + d]))
        }
      }
      return (
        (0..<valueDimension).map { mean($0) { $0 } },
        (0..<valueDimension).map { mean($0, abs) }
      )
    }
  }

  @Test(arguments: available, dimensions)
  func agreesWithDoublePrecision(_ set: KernelSet, _ dimension: Int) throws {
    for half in [false, true] {
      let head = Head(positions: 70, dimension: dimension, half: half)
      for positions in [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 64, 65, 70] {
        let result = head.attended(set, half: half, positions: positions)
        let exact = head.exact(positions: positions)
        for d in 0..<dimension {
          let error = abs(Double(result[d]) - exact.out[d])
          try #require(
            error <= Self.errorBound * exact.magnitude[d],
            "half \(half), \(positions) positions, \(d): \(result[d]), not \(exact.out[d])")
        }
      }
    }
  }

  /// A window, a sink, and values that are narrower than their rows.
  @Test(arguments: available, [true, false])
  func windowsSinksAndNarrowValuesAgreeToo(_ set: KernelSet, _ half: Bool) throws {
    for (window, sink, narrow) in [
      (1, nil, 0), (9, nil, 0), (70, nil, 0), (nil, 0.5, 0), (nil, 90, 8), (16, -2, 40),
      (nil, nil, 16),
    ] as [(Int?, Float?, Int)] {
      var head = Head(positions: 70, dimension: 88, half: half)
      (head.window, head.sink, head.valueDimension) = (window, sink, 88 - narrow)
      for positions in [1, 2, 16, 17, 64, 70] {
        let result = head.attended(set, half: half, positions: positions)
        let exact = head.exact(positions: positions)
        for d in 0..<head.valueDimension {
          let error = abs(Double(result[d]) - exact.out[d])
          try #require(error <= Self.errorBound * max(exact.magnitude[d], 1e-30))
        }
      }
    }
  }

  @Test(arguments: available, [true, false])
  func onePositionGivesItsValue(_ set: KernelSet, _ half: Bool) {
    for dimension in Self.dimensions {
      let head = Head(positions: 1, dimension: dimension, half: half)
      #expect(head.attended(set, half: half, positions: 1) == head.values)
    }
  }

  @Test(arguments: available, [true, false])
  func positionsAfterTheLastAreNotLookedAt(_ set: KernelSet, _ half: Bool) {
    for dimension in [24, 64, 80] {
      let head = Head(positions: 40, dimension: dimension, half: half)
      var other = head
      for i in 19 * dimension..<40 * dimension {
        other.keys[i] = 1
        other.values[i] = -1
      }
      #expect(
        head.attended(set, half: half, positions: 19)
          == other.attended(set, half: half, positions: 19))
      #expect(
        head.attended(set, half: half, positions: 20)
          != other.attended(set, half: half, positions: 20))
    }
  }

  /// Scores of hundreds: one position takes all the weight, and nothing overflows.
  @Test(arguments: available, [true, false])
  func steepScoresSelectOnePosition(_ set: KernelSet, _ half: Bool) throws {
    for dimension in Self.dimensions {
      let head = Head(positions: 33, dimension: dimension, half: half, magnitude: 60)
      let result = head.attended(set, half: half, positions: 33)
      let exact = head.exact(positions: 33).out
      for d in 0..<dimension { try #require(abs(Double(result[d]) - exact[d]) <= 0.06) }
    }
  }

  @Test(arguments: available, [true, false])
  func aNaNStaysVisible(_ set: KernelSet, _ half: Bool) {
    for dimension in [8, 64, 80] {
      for place in [0, 20, 39] {
        var head = Head(positions: 40, dimension: dimension, half: half)
        head.keys[place * dimension + dimension / 2] = .nan
        let result = head.attended(set, half: half, positions: 40)
        #expect(result.allSatisfy { $0.isNaN }, "key \(place), dimension \(dimension)")
      }
    }
  }
}

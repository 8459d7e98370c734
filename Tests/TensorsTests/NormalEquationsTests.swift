import TestSupport
import Testing

@testable import Tensors

/// Least squares with a ridge.
@Suite struct NormalEquationsTests {
  private static func samples(
    _ count: Int, noise: Float, seed: UInt64
  ) -> (x: [Float], y: [Float], weights: [Float]) {
    var generator = SeededGenerator(seed: seed)
    func random() -> Float { Float.random(in: -1...1, using: &generator) }
    let weights = (0..<12).map { _ in random() }
    var (x, y): ([Float], [Float]) = ([], [])
    for _ in 0..<count {
      let row = (0..<4).map { _ in random() }
      x += row
      for output in 0..<3 {
        y.append((0..<4).reduce(noise * random()) { $0 + row[$1] * weights[$1 * 3 + output] })
      }
    }
    return (x, y, weights)
  }

  @Test func exactRowsGiveTheirWeights() throws {
    let (x, y, weights) = Self.samples(40, noise: 0, seed: 1)
    var sums = NormalEquations(inputs: 4, outputs: 3)
    sums.add(x: Array(x[..<80]), y: Array(y[..<60]))
    var rest = NormalEquations(inputs: 4, outputs: 3)
    rest.add(x: Array(x[80...]), y: Array(y[60...]))
    let all = sums.merged(rest)
    #expect(all.rowCount == 40)
    let solved = try #require(all.solve(ridge: 0, prior: Array(repeating: 0.5, count: 12)))
    for (a, b) in zip(solved, weights) { #expect(abs(a - b) < 1e-4) }
    #expect(all.meanSquaredError(of: weights) < 1e-6)
  }

  /// The solution has no slope: no other weights nearby cost less.
  @Test func theRidgeIsMinimal() throws {
    let (x, y, _) = Self.samples(30, noise: 1, seed: 2)
    var sums = NormalEquations(inputs: 4, outputs: 3)
    sums.add(x: x, y: y)
    let prior = (0..<12).map { Float($0) / 12 }
    let square = zip(x, x).reduce(0) { $0 + Double($1.0 * $1.1) } / 4 / 30
    func cost(_ weights: [Float], _ ridge: Double) -> Double {
      3 * sums.meanSquaredError(of: weights)
        + ridge * square
        * zip(weights, prior).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
    }
    for ridge in [0.0, 0.1, 1] {
      let best = try #require(sums.solve(ridge: ridge, prior: prior))
      for index in best.indices {
        for step in [Float(0.02), -0.02] {
          var other = best
          other[index] += step
          #expect(cost(other, ridge) > cost(best, ridge))
        }
      }
    }
    // A wall of a ridge leaves the prior.
    let held = try #require(sums.solve(ridge: 1e9, prior: prior))
    for (a, b) in zip(held, prior) { #expect(abs(a - b) < 1e-4) }
  }

  @Test func theErrorIsThatOfTheRows() {
    let (x, y, weights) = Self.samples(25, noise: 1, seed: 3)
    var sums = NormalEquations(inputs: 4, outputs: 3)
    sums.add(x: x, y: y)
    var error = 0.0
    for row in 0..<25 {
      for output in 0..<3 {
        let value = (0..<4).reduce(Float(0)) { $0 + x[row * 4 + $1] * weights[$1 * 3 + output] }
        error += Double((y[row * 3 + output] - value) * (y[row * 3 + output] - value))
      }
    }
    #expect(abs(sums.meanSquaredError(of: weights) - error / 75) < 1e-4)
  }
}

import FoundationEssentials
import Testing

@testable import Checkpoints
@testable import Models

/// Rotary position embedding against transformers (Tests/Fixtures/make_rope_fixture.py).
@Suite struct RotaryEmbeddingTests {
  struct Case: Decodable, Sendable {
    let headDim: Int
    let ropeTheta: Float
    let ropeType: String
    let factor: Float
    let originalMaxPositionEmbeddings: Int?
    let frequencies: [Float]
    let magnitude: Float

    var scaling: RopeScaling {
      guard ropeType == "yarn" else { return .linear(factor: factor) }
      return .yarn(
        YarnScaling(
          factor: factor, originalContext: originalMaxPositionEmbeddings ?? 0,
          extrapolationFactor: 1, attentionFactor: 1, betaFast: 32, betaSlow: 1))
    }
  }

  private func cases() throws -> [Case] {
    let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Fixtures/rope.json")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode([Case].self, from: Data(contentsOf: path))
  }

  @Test func anglesAreThoseOfTransformers() throws {
    for rope in try cases() {
      let embedding = RotaryEmbedding(
        dimension: rope.headDim, base: rope.ropeTheta, scaling: rope.scaling)
      for position in [0, 1, 17, 1000, 30_000] {
        var cosines = [Float](repeating: .nan, count: rope.headDim / 2)
        var sines = cosines
        embedding.fill(cosines: &cosines, sines: &sines, position: position)
        for (index, frequency) in rope.frequencies.enumerated() {
          // An angle has the rounding of a float of its size.
          let angle = Double(position) * Double(frequency)
          let bound = 1e-6 + angle * 4e-7
          let magnitude = Double(rope.magnitude)
          #expect(abs(Double(cosines[index]) - cosine(angle) * magnitude) < bound)
          #expect(abs(Double(sines[index]) - cosine(angle - .pi / 2) * magnitude) < bound)
        }
      }
    }
  }

  /// cos by its series after reduction, in double precision: an oracle apart from the C library.
  private func cosine(_ angle: Double) -> Double {
    let reduced = angle.remainder(dividingBy: 2 * .pi)
    var term = 1.0
    var sum = 1.0
    for n in 1...20 {
      term *= -reduced * reduced / Double((2 * n - 1) * (2 * n))
      sum += term
    }
    return sum
  }
}

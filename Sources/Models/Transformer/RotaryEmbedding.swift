package import Checkpoints
internal import Glibc

/// The angles of rotary position embedding (arXiv 2104.09864), with what makes them last for long contexts.
package struct RotaryEmbedding: Sendable {
  /// Radians per position of each pair, [dimension / 2].
  private let frequencies: [Float]
  /// The factor on cosines and sines: 1 but for YaRN and LongRoPE.
  private let magnitude: Float

  /// - Parameters:
  ///   - dimension: the values of a head that are rotated.
  ///   - context: the tokens that the model is opened for.
  ///   - vector: the values of a tensor, for factors that are in one.
  package init(
    dimension: Int, base: Float, scaling: RopeScaling, context: Int,
    vector: (String) -> UnsafePointer<Float>
  ) {
    let half = dimension / 2
    let plain = (0..<half).map { 1 / pow(base, Float(2 * $0) / Float(dimension)) }
    switch scaling {
    case .none:
      frequencies = plain
      magnitude = 1
    case .linear(let factor):
      frequencies = plain.map { $0 / factor }
      magnitude = 1
    case .yarn(let yarn):
      // arXiv 2309.00071, section 3.2: pairs that turn often keep their frequency, pairs that turn
      // less than once over the original context are interpolated, with a ramp between.
      func pair(turning turns: Float) -> Float {
        let context = Float(yarn.originalContext)
        return Float(dimension) * log(context / (turns * 2 * .pi)) / (2 * log(base))
      }
      let (first, last) = (pair(turning: yarn.betaFast), pair(turning: yarn.betaSlow))
      let low = max(yarn.roundsRamp ? first.rounded(.down) : first, 0)
      let high = min(yarn.roundsRamp ? last.rounded(.up) : last, Float(dimension - 1))
      let width = max(high - low, 0.001)
      frequencies = plain.enumerated().map { index, frequency in
        let ramp = min(max((Float(index) - low) / width, 0), 1)
        let interpolated = 1 - (1 - ramp) * yarn.extrapolationFactor
        return frequency / yarn.factor * interpolated + frequency * (1 - interpolated)
      }
      magnitude = yarn.magnitude
    case .factors(let factors):
      let set = factors.set(context: context)
      let divisors =
        switch set.factors {
        case .values(let values): values
        case .tensor(let name): Array(UnsafeBufferPointer(start: vector(name), count: half))
        }
      frequencies = zip(plain, divisors).map { $0 / $1 }
      magnitude = set.magnitude
    }
  }

  /// Writes the cosines and sines of `position`, [head dimension / 2] each.
  package func fill(
    cosines: UnsafeMutablePointer<Float>, sines: UnsafeMutablePointer<Float>, position: Int
  ) {
    for (index, frequency) in frequencies.enumerated() {
      let angle = Float(position) * frequency
      cosines[index] = cos(angle) * magnitude
      sines[index] = sin(angle) * magnitude
    }
  }
}

/// How often a predicted expert that was not resident was then needed, by how clearly it was predicted.
///
/// A score says little by itself: routers differ in scale from layer to layer, and non-residents are
/// predicted wrongly more often than residents, because they are the rarer ones. So probabilities are
/// counted, on non-residents only, by lookahead distance and by the score's margin over the boundary
/// between chosen and not chosen, in standard deviations of the layer's scores.
struct PrefetchCalibration: Sendable {
  /// Margins from -1 to 2 in steps of an eighth.
  private static let binCount = 24
  /// What the prior counts.
  private static let priorCount: Float = 4
  /// Observations of a bin after which the older half of them begins to be forgotten.
  private static let memory: Float = 512

  private struct Bin {
    var tried: Float
    var needed: Float
  }

  private var bins: [Bin] = []

  /// - Parameter distanceCount: lookahead distances, from 0 on.
  init(distanceCount: Int) {
    for _ in 0..<distanceCount {
      for bin in 0..<Self.binCount {
        // A straight line from never at the lowest margin to nearly always at the highest.
        let prior = min(0.95, Float(bin) / Float(Self.binCount - 1))
        bins.append(Bin(tried: Self.priorCount, needed: Self.priorCount * prior))
      }
    }
  }

  /// The bin of a margin at a distance.
  static func bin(margin: Float, distance: Int) -> Int {
    let step = max(0, min(Float(binCount - 1), ((margin + 1) * 8).rounded(.down)))
    return distance * binCount + (step.isNaN ? 0 : Int(step))
  }

  /// The share of a bin's predictions that came true.
  func probability(of bin: Int) -> Float { bins[bin].needed / bins[bin].tried }

  /// Takes note of what became of a prediction.
  mutating func note(_ bin: Int, needed: Bool) {
    bins[bin].tried += 1
    if needed { bins[bin].needed += 1 }
    guard bins[bin].tried > Self.memory else { return }
    bins[bin].tried /= 2
    bins[bin].needed /= 2
  }
}

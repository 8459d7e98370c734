import Tensors

/// What many repetitions of one measurement gave; larger is better.
struct Spread: Encodable {
  let median: Double
  let best: Double

  init(_ samples: [Double]) {
    let sorted = samples.sorted()
    let middle = sorted.count / 2
    median =
      sorted.count.isMultiple(of: 2) ? (sorted[middle - 1] + sorted[middle]) / 2 : sorted[middle]
    best = sorted[sorted.count - 1]
  }
}

/// How long and how often to measure.
struct Effort {
  /// Repetitions of each measurement.
  let rounds: Int
  /// The shortest repetition.
  let nanoseconds: UInt64
  /// Tokens multiplied together.
  let tokenCounts: [Int]

  static let whole = Effort(
    rounds: 11, nanoseconds: 5_000_000, tokenCounts: [1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 128])
  static let quick = Effort(rounds: 3, nanoseconds: 1_000_000, tokenCounts: [1, 16, 128])

  /// The units of work per second of each body, which does a piece of it and returns how much.
  ///
  /// The bodies take turns, so that what else the machine does meets all of them.
  func rates(_ bodies: [() -> Double]) -> [Spread] {
    var samples = Array(repeating: [Double](), count: bodies.count)
    // The first round warms up what is computed only once.
    for round in 0...rounds {
      for (index, body) in bodies.enumerated() {
        let rate = workPerSecond(for: nanoseconds, body)
        if round > 0 { samples[index].append(rate) }
      }
    }
    return samples.map(Spread.init)
  }
}

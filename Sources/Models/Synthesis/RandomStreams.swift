internal import Routing

/// Independent sequences of random bits, each for one row of one tensor, so that rows can be made
/// in any order and by any number of threads.
struct RandomStreams: Sendable {
  /// What a sequence is for.
  enum Purpose: Hashable, Sendable {
    case sharedDirection
    case popularity
    case topic
    /// The tensor of that index in the file.
    case tensor(Int)

    fileprivate var number: UInt64 {
      switch self {
      case .sharedDirection: 0
      case .popularity: 1
      case .topic: 2
      case .tensor(let index): 16 + UInt64(index)
      }
    }
  }

  let seed: UInt64

  /// The sequence of a row; a negative number is as good as any.
  func generator(_ purpose: Purpose, row: Int) -> Xoshiro256 {
    var first = SplitMix64(state: seed)
    var second = SplitMix64(state: first.next() ^ purpose.number)
    var third = SplitMix64(state: second.next() ^ UInt64(bitPattern: Int64(row)))
    return Xoshiro256(seed: third.next())
  }
}

/// Noise of mean 0 and deviation 1 that is nearly normal: sums of four 4-bit numbers, which take a
/// sixteenth of the random bits and none of the logarithms of an exact method.
struct NormalNoise {
  private(set) var random: Xoshiro256
  private var bits: UInt64 = 0
  private var bitCount = 0

  init(_ random: Xoshiro256) { self.random = random }

  /// The next value; the largest is 3.25.
  mutating func next() -> Float {
    if bitCount == 0 {
      bits = random.next()
      bitCount = 64
    }
    let sum = (bits & 15) + (bits >> 4 & 15) + (bits >> 8 & 15) + (bits >> 12 & 15)
    bits >>= 16
    bitCount -= 16
    // The variance is 4 * (16 * 16 - 1) / 12 = 85.
    return (Float(sum) - 30) * 0.108_465_23
  }
}

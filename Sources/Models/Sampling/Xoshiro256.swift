internal import Routing

/// The generator xoshiro256** 1.0 of Blackman and Vigna, seeded by their SplitMix64.
///
/// Our own, so that a seed means the same tokens in every release and on every platform.
/// Source: https://prng.di.unimi.it
struct Xoshiro256: RandomNumberGenerator, Sendable {
  private var state: (UInt64, UInt64, UInt64, UInt64)

  /// Starts the sequence that belongs to `seed`.
  init(seed: UInt64) {
    var seeder = SplitMix64(state: seed)
    state = (seeder.next(), seeder.next(), seeder.next(), seeder.next())
  }

  /// The next 64 random bits.
  mutating func next() -> UInt64 {
    let result = rotated(state.1 &* 5, by: 7) &* 9
    let shifted = state.1 << 17
    state.2 ^= state.0
    state.3 ^= state.1
    state.1 ^= state.2
    state.0 ^= state.3
    state.2 ^= shifted
    state.3 = rotated(state.3, by: 45)
    return result
  }

  /// The next number, evenly spread over [0, 1) in steps of 2^-53.
  mutating func nextUnit() -> Double {
    Double(next() >> 11) * 0x1p-53
  }
}

private func rotated(_ value: UInt64, by count: UInt64) -> UInt64 {
  value << count | value >> (64 - count)
}

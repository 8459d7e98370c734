/// Whether prefetching has paid lately.
///
/// It weighs the waiting that was saved against the time that predictions took; what was read for nothing
/// shows in the waiting. While the balance is below zero nothing is read ahead; what would have been is
/// still judged now and then, so that prefetching begins again by itself when it would pay.
struct PrefetchGovernor: Sendable {
  /// What a pass over the layers leaves of the past: a window of some 32 tokens.
  private static let retention: Float = 31.0 / 32
  /// The share of the time that must be won for prefetching to begin again, so that it does not flutter.
  private static let hysteresis: Float = 0.02
  /// Passes before the balance counts, the first time and later: at first it is not known yet which
  /// predictions come true.
  private static let firstPasses = 24
  private static let trialPasses = 8

  private var balance: Float = 0
  private var elapsed: Float = 0
  private var passes = 0
  private var neededPasses = firstPasses
  /// Whether anything is to be read ahead.
  private(set) var isOpen = true

  /// Takes note of a layer; all in seconds.
  mutating func note(saved: Float, spent: Float, elapsed: Float) {
    balance += saved - spent
    self.elapsed += elapsed
  }

  /// A pass over the layers has ended.
  mutating func endPass() {
    balance *= Self.retention
    elapsed *= Self.retention
    passes += 1
    guard passes > neededPasses else { return }
    let wasOpen = isOpen
    isOpen = balance > (isOpen ? 0 : Self.hysteresis * elapsed)
    guard isOpen != wasOpen else { return }
    // What was, and what would have been, are not added up.
    balance = 0
    elapsed = 0
    passes = 0
    neededPasses = Self.trialPasses
  }
}

internal import Residency

/// Hit rates of so many decoded tokens at a time, in their order: how residency follows a workload that
/// changes.
package struct HitRateCurve: Hashable, Sendable {
  private let window: Int
  private var pass = -1
  private var tokens = 0
  private var accesses = 0
  private var hits = 0
  private var finished: [Double] = []

  /// The hit rate of each whole window.
  package var rates: [Double] { tokens == window ? finished + [rate] : finished }

  private var rate: Double { Double(hits) / Double(max(1, accesses)) }

  init(window: Int) { self.window = window }

  mutating func add(_ served: ServedEvent, pass: Int) {
    if pass != self.pass {
      self.pass = pass
      if tokens == window {
        finished.append(rate)
        (tokens, accesses, hits) = (0, 0, 0)
      }
      tokens += 1
    }
    accesses += served.hits + served.misses
    hits += served.hits
  }
}

/// What a replay counted.
package struct ReplayCounts: Hashable, Sendable {
  /// Routed experts, each token's counted.
  package var logicalAccesses = 0
  /// Needed experts, each counted once per event.
  package var accesses = 0
  /// Those of `accesses` that were resident.
  package var hits = 0
  /// Bytes of the others.
  package var byteCount = 0
  /// Tokens, counted at each layer.
  package var tokenLayers = 0
  package var events = 0
  /// Events whose experts alone exceed the capacity.
  package var oversizedEvents = 0
  /// Sum over the events of the bytes of the event's experts over the capacity.
  package var unionShareSum = 0.0

  package init() {}

  package var misses: Int { accesses - hits }
  package var hitRate: Double { accesses == 0 ? 0 : Double(hits) / Double(accesses) }

  mutating func add(_ served: ServedEvent, union: borrowing EventBuilder, share: Double) {
    logicalAccesses += union.logicalCount
    accesses += served.hits + served.misses
    hits += served.hits
    byteCount += served.missedByteCount
    tokenLayers += union.event.tokenCount
    events += 1
    unionShareSum += share
    if share > 1 { oversizedEvents += 1 }
  }
}

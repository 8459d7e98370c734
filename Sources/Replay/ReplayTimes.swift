internal import Foundation
package import Placement
internal import Residency

/// When the tokens of a replay come out, on a machine.
package struct ReplayTimes: Sendable {
  private let profile: HardwareProfile
  private var timeline: LayerTimeline
  private let expertByteCounts: [Int]
  /// The pass that the token under way is.
  private var pass = -1
  /// Seconds of the token under way, and of those before it: TPOT.
  private var tokenSeconds = 0.0
  private var finished = TimeHistogram()
  /// Of all tokens' seconds, those in which the processor waited for the disk.
  package var stallSeconds: Double { stalls.total }
  /// The same by what was waited for.
  package private(set) var stalls = Stalls()
  /// Those in which the disk was reading.
  package private(set) var readSeconds = 0.0

  init(_ profile: HardwareProfile, expertByteCounts: [Int]) {
    self.profile = profile
    timeline = LayerTimeline(profile)
    self.expertByteCounts = expertByteCounts
  }

  /// Adds a decoded token's event at one layer.
  ///
  /// - Parameters:
  ///   - firstUses: of the missed experts, those that nothing has needed before.
  ///   - ahead: of the missed experts, the seconds that are left of reading those read ahead.
  /// - Returns: what the layer's experts took.
  @discardableResult
  mutating func add(
    _ served: ServedEvent, firstUses: Int, layer: Int, pass: Int, ahead: [Double] = []
  ) -> LayerTime {
    if pass != self.pass {
      if self.pass >= 0 { finished.add(tokenSeconds) }
      self.pass = pass
      tokenSeconds = profile.tokenSeconds
    }
    let layerTime = timeline.run(
      hits: served.hits, misses: served.misses - ahead.count, ahead: ahead,
      byteCount: expertByteCounts[layer])
    tokenSeconds += profile.layerSeconds + layerTime.seconds
    stalls.add(layerTime, firstUses: Double(firstUses) / Double(max(1, served.misses)))
    readSeconds += layerTime.readSeconds
    return layerTime
  }

  /// The token under way takes so many seconds longer.
  mutating func delay(by seconds: Double) { tokenSeconds += seconds }

  private var all: TimeHistogram {
    var all = finished
    if pass >= 0 { all.add(tokenSeconds) }
    return all
  }

  /// The distribution of the tokens' times; nil without tokens.
  package var tokens: TokenTimes? { TokenTimes(all) }

  /// The seconds of all tokens.
  package var seconds: Double { all.seconds }
}

/// Times counted in bins that are each 0.4 % wide: memory does not grow with their number.
package struct TimeHistogram: Hashable, Sendable {
  private var counts: [Int: Int] = [:]
  package private(set) var count = 0
  package private(set) var seconds = 0.0

  private static let binsPerE = 256.0

  package init(_ seconds: [Double] = []) { for time in seconds { add(time) } }

  package mutating func add(_ seconds: Double) {
    counts[Int((log(max(seconds, 1e-9)) * Self.binsPerE).rounded()), default: 0] += 1
    count += 1
    self.seconds += seconds
  }

  /// The time that `share` of the times do not exceed, by the nearest rank; within 0.2 %.
  package func percentile(_ share: Double) -> Double {
    var left = max(1, Int((share * Double(count)).rounded(.up)))
    for (bin, count) in counts.sorted(by: { $0.key < $1.key }) {
      left -= count
      if left <= 0 { return exp(Double(bin) / Self.binsPerE) }
    }
    return 0
  }
}

/// The distribution of some tokens' times.
package struct TokenTimes: Encodable, Hashable, Sendable {
  package var tokens: Int
  package var tokensPerSecond: Double
  package var tpotMeanSeconds: Double
  package var tpotP50Seconds: Double
  package var tpotP95Seconds: Double
  package var tpotP99Seconds: Double

  /// - Returns: nil without tokens.
  package init?(_ times: TimeHistogram) {
    guard times.count > 0 else { return nil }
    tokens = times.count
    tpotMeanSeconds = times.seconds / Double(times.count)
    tokensPerSecond = 1 / tpotMeanSeconds
    tpotP50Seconds = times.percentile(0.5)
    tpotP95Seconds = times.percentile(0.95)
    tpotP99Seconds = times.percentile(0.99)
  }
}

internal import Placement
internal import Residency

/// When the tokens of a replay come out, on a machine.
package struct ReplayTimes: Sendable {
  private let profile: HardwareProfile
  private var timeline: LayerTimeline
  private let expertByteCounts: [Int]
  /// The pass that the token under way is.
  private var pass = -1
  /// Seconds of each decoded token: TPOT.
  package private(set) var tokenSeconds: [Double] = []
  /// Of all tokens' seconds, those in which the processor waited for the disk.
  package private(set) var stallSeconds = 0.0
  /// Those in which the disk was reading.
  package private(set) var readSeconds = 0.0

  init(_ profile: HardwareProfile, expertByteCounts: [Int]) {
    self.profile = profile
    timeline = LayerTimeline(profile)
    self.expertByteCounts = expertByteCounts
  }

  /// Adds a decoded token's event at one layer.
  ///
  /// - Parameter ahead: of the missed experts, the seconds that are left of reading those read ahead.
  /// - Returns: what the layer's experts took.
  @discardableResult
  mutating func add(
    _ served: ServedEvent, layer: Int, pass: Int, ahead: [Double] = []
  ) -> LayerTime {
    if pass != self.pass {
      self.pass = pass
      tokenSeconds.append(profile.tokenSeconds)
    }
    let layerTime = timeline.run(
      hits: served.hits, misses: served.misses - ahead.count, ahead: ahead,
      byteCount: expertByteCounts[layer])
    tokenSeconds[tokenSeconds.count - 1] += profile.layerSeconds + layerTime.seconds
    stallSeconds += layerTime.stallSeconds
    readSeconds += layerTime.readSeconds
    return layerTime
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
  package init?(_ seconds: [Double]) {
    guard !seconds.isEmpty else { return nil }
    let sorted = seconds.sorted()
    func percentile(_ share: Double) -> Double {
      sorted[max(0, Int((share * Double(sorted.count)).rounded(.up)) - 1)]
    }
    tokens = seconds.count
    tpotMeanSeconds = seconds.reduce(0, +) / Double(seconds.count)
    tokensPerSecond = 1 / tpotMeanSeconds
    tpotP50Seconds = percentile(0.5)
    tpotP95Seconds = percentile(0.95)
    tpotP99Seconds = percentile(0.99)
  }
}

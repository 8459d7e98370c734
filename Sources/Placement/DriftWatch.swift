/// Notices when a run departs from its plan: when another process takes the drive or the processor, or the
/// workload becomes another.
///
/// Tokens are looked at in windows. A rate that differs from what is expected by more than a third in two
/// windows in a row, to the same side, is a drift; from then on it is what is expected.
public struct DriftWatch: Sendable {
  /// What some tokens took, counted from the beginning of the run.
  public struct Observation: Hashable, Sendable {
    public var seconds: Double
    public var stallSeconds: Double
    /// Bytes read, and seconds in which reads were under way.
    public var readBytes: Double
    public var readSeconds: Double
    public var hits: Int
    public var accesses: Int

    public init(
      seconds: Double, stallSeconds: Double, readBytes: Double, readSeconds: Double, hits: Int,
      accesses: Int
    ) {
      self.seconds = seconds
      self.stallSeconds = stallSeconds
      self.readBytes = readBytes
      self.readSeconds = readSeconds
      self.hits = hits
      self.accesses = accesses
    }
  }

  /// What has changed: rates over those expected, 1 where they are as expected, and the hit rate.
  public struct Drift: Hashable, Sendable {
    public var disk = 1.0
    public var compute = 1.0
    /// The hit rate seen, and the one expected; nil while it is as expected.
    public var hits: (seen: Double, expected: Double)? {
      seenHits.map { ($0, expectedHits) }
    }
    var seenHits: Double?
    var expectedHits = 0.0
  }

  /// Tokens and seconds that a window has at least: a moment in which the system did something else is no
  /// drift.
  public static let window = 16
  private static let windowSeconds = 0.1
  /// The factor from which on a rate differs.
  private static let factor = 4.0 / 3
  /// The difference from which on a hit rate does.
  private static let hitDifference = 0.1

  private var diskRate: Double
  private var computeSeconds: Double
  /// The hit rate expected; nil until two windows have shown what it is once slots are full.
  private var hitRate: Double?
  private var last: Observation?
  private var tokens = 0
  private var windows = 0
  /// The differences of the window before: the logarithm's sign of each, 0 for none.
  private var before = (disk: 0, compute: 0, hits: 0)

  /// - Parameter prediction: what the run is expected to be like.
  public init(_ prediction: Prediction) {
    diskRate =
      prediction.readSeconds > 0 ? prediction.bytesPerToken / prediction.readSeconds : 0
    computeSeconds = prediction.tpotMean - prediction.stallSeconds
  }

  /// Takes note of a decoded token.
  ///
  /// - Parameter total: everything since the beginning of decoding.
  /// - Returns: what has changed since what was expected last; nil if nothing has.
  public mutating func note(_ total: Observation) -> Drift? {
    guard let last else {
      self.last = total
      return nil
    }
    tokens += 1
    let seconds = total.seconds - last.seconds
    guard tokens >= Self.window, seconds >= Self.windowSeconds else { return nil }
    defer {
      tokens = 0
      windows += 1
      self.last = total
    }
    let stall = total.stallSeconds - last.stallSeconds
    let bytes = total.readBytes - last.readBytes
    let reading = total.readSeconds - last.readSeconds
    let accesses = total.accesses - last.accesses
    var drift = Drift()
    var isDrift = false
    if diskRate > 0, reading > 0.1 * seconds {
      let ratio = bytes / reading / diskRate
      if Self.isSame(ratio, &before.disk) {
        drift.disk = ratio
        diskRate *= ratio
        isDrift = true
      }
    }
    let ratio = computeSeconds / max(1e-9, (seconds - stall) / Double(tokens))
    if Self.isSame(ratio, &before.compute) {
      drift.compute = ratio
      computeSeconds /= ratio
      isDrift = true
    }
    if accesses > 0 {
      let seen = Double(total.hits - last.hits) / Double(accesses)
      if let expected = hitRate {
        let side = abs(seen - expected) < Self.hitDifference ? 0 : seen < expected ? -1 : 1
        if side != 0, side == before.hits {
          drift.seenHits = seen
          drift.expectedHits = expected
          hitRate = seen
          isDrift = true
          before.hits = 0
        } else {
          before.hits = side
          // What changes slowly is followed.
          if side == 0 { hitRate = 0.75 * expected + 0.25 * seen }
        }
      } else if windows >= 2 {
        hitRate = seen
      }
    }
    return isDrift ? drift : nil
  }

  /// Whether `ratio` differs to the same side as the one before, which it becomes.
  private static func isSame(_ ratio: Double, _ before: inout Int) -> Bool {
    let side = ratio > factor ? 1 : ratio < 1 / factor ? -1 : 0
    defer { before = side }
    guard side != 0, side == before else { return false }
    return true
  }
}

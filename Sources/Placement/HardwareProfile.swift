/// What a machine takes for the parts of a decoded token, for one model: what simulated time is made
/// of.
///
/// As JSON it has the names of its properties in snake case, and is read by people too.
public struct HardwareProfile: Hashable, Sendable, Codable {
  /// The version of this form.
  public static let currentVersion = 1

  public var version = Self.currentVersion
  /// The machine, the drive and the model, in words.
  public var name: String
  /// Bytes per second of many reads of experts at a time.
  public var readBytesPerSecond: Double
  /// Seconds that a lone expert's reads take beyond its bytes at that rate.
  public var readLatencySeconds: Double
  /// Bytes of experts that all threads multiply per second, with one token.
  public var computeBytesPerSecond: Double
  /// Seconds of a layer beside the products of its experts: attention, norms, router, bookkeeping.
  public var layerSeconds: Double
  /// Seconds of a token beside its layers: embedding, output head.
  public var tokenSeconds: Double
  /// Whether reading keeps the processor, as copying out of the page cache does; nil: it does not.
  public var readsOccupyProcessor: Bool?
  /// The reads of an expert: 1 where its three matrices come together, 2 where gate and up do; nil: 3.
  public var readsPerExpert: Int?
  /// The shares of `computeBytesPerSecond` that is left while something is read, and of `readBytesPerSecond`
  /// while something is computed; nil: all of it.
  public var computeShareWhileReading: Double?
  public var readShareWhileComputing: Double?

  /// Seconds for which the processor is kept by handing in reads, once and for each read, and by a prediction;
  /// nil: none.
  public var handInSeconds: Double?
  public var readHandInSeconds: Double?
  public var predictionSeconds: Double?

  /// Makes a profile.
  public init(
    name: String, readBytesPerSecond: Double, readLatencySeconds: Double,
    computeBytesPerSecond: Double, layerSeconds: Double, tokenSeconds: Double
  ) {
    self.name = name
    self.readBytesPerSecond = readBytesPerSecond
    self.readLatencySeconds = readLatencySeconds
    self.computeBytesPerSecond = computeBytesPerSecond
    self.layerSeconds = layerSeconds
    self.tokenSeconds = tokenSeconds
  }

  /// What computing and reading leave each other.
  package var contention: Contention {
    Contention(
      readShare: Figure(readShareWhileComputing ?? 1),
      computeShare: Figure(computeShareWhileReading ?? 1))
  }

  /// Seconds for which handing in the reads of so many experts keeps the processor.
  package func handInSeconds(experts: Int) -> Double {
    guard experts > 0 else { return 0 }
    return (handInSeconds ?? 0)
      + Double(experts * (readsPerExpert ?? 3)) * (readHandInSeconds ?? 0)
  }

  /// What is not possible in the profile, in words; nil if all is.
  public var fault: String? {
    guard version == Self.currentVersion else {
      return "version \(version), expected \(Self.currentVersion)"
    }
    let rates = [
      ("read_bytes_per_second", readBytesPerSecond),
      ("compute_bytes_per_second", computeBytesPerSecond),
    ]
    for (key, rate) in rates where !(rate > 0 && rate.isFinite) {
      return "\(key) is \(rate), expected a number above 0"
    }
    let times = [
      ("read_latency_seconds", readLatencySeconds), ("layer_seconds", layerSeconds),
      ("token_seconds", tokenSeconds), ("hand_in_seconds", handInSeconds ?? 0),
      ("read_hand_in_seconds", readHandInSeconds ?? 0),
      ("prediction_seconds", predictionSeconds ?? 0),
    ]
    for (key, seconds) in times where !(seconds >= 0 && seconds.isFinite) {
      return "\(key) is \(seconds), expected a number from 0 on"
    }
    if let reads = readsPerExpert, !(1...3).contains(reads) {
      return "reads_per_expert is \(reads), expected 1 to 3"
    }
    let shares = [
      ("compute_share_while_reading", computeShareWhileReading),
      ("read_share_while_computing", readShareWhileComputing),
    ]
    for case (let key, let share?) in shares where !(share > 0 && share <= 1) {
      return "\(key) is \(share), expected a number above 0 and up to 1"
    }
    return nil
  }
}

public import ExpertRuntime
internal import Models
internal import Tensors

/// The account of one generation.
public struct RunStatistics: Sendable, Codable {
  public internal(set) var promptTokens = 0
  public internal(set) var generatedTokens = 0
  /// From the call to the first token after the prompt.
  public internal(set) var timeToFirstToken: Double?
  /// Seconds of each decoded token after the first.
  public internal(set) var decodeSeconds: [Double] = []
  /// What the experts cost.
  public internal(set) var experts = RuntimeStatistics()
  /// Wall time, and its parts: parallel loops, waiting for the disk, and the rest (routing,
  /// sampling, bookkeeping, output).
  public internal(set) var totalSeconds = 0.0
  public internal(set) var computeSeconds = 0.0
  public internal(set) var diskWaitSeconds = 0.0
  public var otherSeconds: Double { max(0, totalSeconds - computeSeconds - diskWaitSeconds) }
  public internal(set) var configuration: RunConfiguration
  public internal(set) var memory: [MemoryLedger.Entry]
  public internal(set) var memoryBudget: Int
  /// The most resident memory the process has had so far.
  public internal(set) var peakResidentByteCount = 0
  /// Whether the run ended before it was done.
  public internal(set) var cancelled = false

  /// Mean seconds of a decoded token: TPOT.
  public var meanDecodeSeconds: Double? {
    decodeSeconds.isEmpty ? nil : decodeSeconds.reduce(0, +) / Double(decodeSeconds.count)
  }

  /// Decoded tokens per second.
  public var tokensPerSecond: Double? { meanDecodeSeconds.map { 1 / $0 } }

  /// The decode time that `fraction` of tokens did not exceed.
  public func decodeSeconds(atPercentile fraction: Double) -> Double? {
    guard !decodeSeconds.isEmpty else { return nil }
    let rank = Int((fraction * Double(decodeSeconds.count)).rounded(.up)) - 1
    return decodeSeconds.sorted()[min(max(rank, 0), decodeSeconds.count - 1)]
  }

  /// Bytes read per decoded token: demanded, read ahead, and to fill free slots.
  public var readBytesPerToken: Double? {
    let byteCount =
      experts.decode.demandedByteCount + experts.totalPrefetch.issued.byteCount
      + experts.filled.byteCount
    return decodeSeconds.isEmpty ? nil : Double(byteCount) / Double(decodeSeconds.count)
  }
}

/// Measures one generation against the counters of its model.
struct RunMeter {
  private let model: MoEModel
  private let start = monotonicNanoseconds()
  private let computeBefore: UInt64
  private let expertsBefore: RuntimeStatistics
  private(set) var statistics: RunStatistics

  /// - Parameter steps: The most tokens that will be decoded; noting them then allocates nothing.
  init(_ model: MoEModel, steps: Int) {
    self.model = model
    computeBefore = model.pool.nanoseconds
    expertsBefore = model.transformer.runtime.statistics
    statistics = RunStatistics(
      configuration: model.configuration, memory: model.ledger.entries,
      memoryBudget: model.ledger.budget)
    statistics.decodeSeconds.reserveCapacity(steps)
  }

  /// Notes the first token after `promptTokens` of prompt.
  mutating func markFirstToken(promptTokens: Int) {
    statistics.promptTokens = promptTokens
    statistics.timeToFirstToken = seconds(since: start)
  }

  mutating func add(decodeNanoseconds: UInt64) {
    statistics.decodeSeconds.append(Double(decodeNanoseconds) / 1e9)
  }

  /// The account up to now.
  func finish(generatedTokens: Int, cancelled: Bool) -> RunStatistics {
    var result = statistics
    result.generatedTokens = generatedTokens
    // The budget may have been changed meanwhile.
    result.configuration = model.configuration
    result.memory = model.ledger.entries
    result.memoryBudget = model.ledger.budget
    result.cancelled = cancelled
    result.experts = model.transformer.runtime.statistics.subtracting(expertsBefore)
    // Experts are read ahead when the model is made, before any generation is measured.
    result.experts.preloadedByteCount = expertsBefore.preloadedByteCount
    result.totalSeconds = seconds(since: start)
    result.computeSeconds = Double(model.pool.nanoseconds - computeBefore) / 1e9
    result.diskWaitSeconds = Double(result.experts.diskWaitNanoseconds) / 1e9
    result.peakResidentByteCount = Machine.peakResidentByteCount
    return result
  }

  private func seconds(since start: UInt64) -> Double {
    Double(monotonicNanoseconds() - start) / 1e9
  }
}

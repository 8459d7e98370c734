import ExpertRuntime
import Logging
import Models
import Stoker

/// One model of a pair, and what its timed tokens took.
final class Cell {
  private static let blockTokens = 16

  private let model: MoEModel
  private let logger: Logger
  private var before: RuntimeStatistics?
  private var times: [Double] = []

  init(_ file: ModelFile, _ options: ModelOptions, _ logger: Logger) throws {
    self.logger = logger
    model = try MoEModel(file, options: options, logger: logger)
  }

  func decode(_ token: Int32, at position: Int, isTimed: Bool) throws {
    if isTimed, before == nil { before = model.transformer.runtime.statistics }
    let seconds = try model.timedToken(token, at: position, logits: .last)
    if isTimed { times.append(seconds) }
  }

  /// Seconds of each whole block of tokens.
  var blocks: [Double] {
    stride(from: 0, to: times.count - Self.blockTokens + 1, by: Self.blockTokens).map {
      times[$0..<$0 + Self.blockTokens].reduce(0, +)
    }
  }

  var seconds: Double { times.reduce(0, +) }
  var tokensPerSecond: Double { Double(times.count) / seconds }

  /// What the experts of the timed tokens cost.
  var experts: RuntimeStatistics {
    let now = model.transformer.runtime.statistics
    return before.map { now.subtracting($0) } ?? now
  }

  /// The speed reached as a share of 1 / max(demanded and prefetched bytes / bandwidth, time spent
  /// without waiting).
  var shareOfBound: Double {
    let spent = experts
    let waiting = Double(spent.diskWaitNanoseconds) / 1e9
    let reading = Double(spent.diskBusyNanoseconds) / 1e9
    return max(reading, seconds - waiting) / seconds
  }
}

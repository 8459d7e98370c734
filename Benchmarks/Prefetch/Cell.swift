import ExpertRuntime
import Logging
import Models
import Stoker

/// One model of a pair, and what its timed tokens took.
final class Cell {
  /// Tokens that one model decodes before the other does.
  static let blockTokens = 16

  private let model: MoEModel
  private let logger: Logger
  private var before: RuntimeStatistics?
  private var times: [Double] = []
  /// The experts that the tokens of the latest block were routed to, [tokens][layers].
  private var routed: [[[Int32]]] = []
  private var position = 0

  init(_ file: ModelFile, _ options: ModelOptions, _ logger: Logger) throws {
    self.logger = logger
    model = try MoEModel(file, options: options, logger: logger)
  }

  func decode(_ token: Int32, at position: Int, isTimed: Bool) throws {
    self.position = position
    if isTimed, before == nil { before = model.transformer.runtime.statistics }
    let seconds = try model.timedToken(token, at: position, logits: .last)
    if isTimed { times.append(seconds) }
  }

  /// Reads ahead what `other` was routed to, which decodes each block first.
  ///
  /// - Parameter recall: the share of it that is named; in place of the rest others are, by chance.
  func predict(by other: Cell, recall: Double) {
    let runtime = model.transformer.runtime
    let experts = runtime.expertCount
    other.routed = Array(
      repeating: Array(repeating: [], count: runtime.layerCount), count: Self.blockTokens)
    other.model.transformer.onRouting = { [unowned other] layer, _, _, routing, _ in
      other.routed[other.position % Self.blockTokens][layer] = routing.experts
    }
    model.transformer.forcePrediction = { [unowned self] layer, _ in
      var scores = Array(repeating: Float(0), count: experts)
      for expert in other.routed[position % Self.blockTokens][layer] {
        let isNamed = recall >= 1 || Double.random(in: 0..<1) < recall
        scores[isNamed ? Int(expert) : Int.random(in: 0..<experts)] = 1
      }
      return scores
    }
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

public import Routing

/// Decides which experts to read before the router asks for them.
///
/// A prediction scores the experts of a layer to come. Those it would choose, and a few that it nearly
/// would, are candidates if they are not resident. One is worth reading if
///
///     p * saved - (1 - p) * utilisation * saved > 0
///
/// where p is how often such a prediction has come true, and both the stall saved and the disk time
/// wasted are the time of its bytes; a wasted read costs only what the disk would else have done in that
/// time. Staging evicts nothing, so that there is no victim to weigh. What the disk has not begun to
/// read when the router decides is demanded or forgotten then: no more is read ahead than the idle time
/// of the disk carries.
///
/// No clock, no I/O: the caller tells what the disk is like and carries out what is decided.
public struct PrefetchPlanner: Sendable {
  /// What is tuned.
  public struct Parameters: Hashable, Sendable {
    /// The least probability at which an expert is read ahead, however idle the disk: above what the
    /// value asks for, so that nine tenths of what is read are needed.
    public var minimumProbability: Float = 0.75
    /// Candidates beyond a token's experts, as a share of these.
    public var extra = 0.5
    /// The most experts of a layer that are read ahead.
    public var depth = 8
    /// Whether prefetching may switch itself off.
    public var isGoverned = true

    public init() {}
  }

  /// The largest lookahead distance, in layers; 0 is before the attention of the layer itself.
  public static let farthest = 2

  private struct Candidate {
    var expert: Int32
    var bin: Int
    var isWanted = false
  }

  /// The experts that are worth reading for the layer planned last, likeliest first.
  public private(set) var wanted: [Int32] = []
  /// Whether prefetching has paid lately; else `wanted` stays empty.
  public var isOpen: Bool { governor.isOpen || !parameters.isGoverned }

  /// Whether predictions for the pass that begins are of use: while nothing is read ahead, those for one
  /// pass in some are enough to see whether it would pay again.
  public var wantsPredictions: Bool { isOpen || passesUntilTrial == 0 }

  /// Passes without predictions between two with them, while nothing is read ahead: at first, and when that
  /// has not changed for long.
  private static let trialPeriods = 3...63
  private var trialPeriod = trialPeriods.lowerBound
  private var trialCount = 0
  private var passesUntilTrial = 0

  private let geometry: RoutingGeometry
  private let parameters: Parameters
  private let candidateCount: Int
  private var calibration = PrefetchCalibration(distanceCount: farthest + 1)
  private var governor = PrefetchGovernor()
  /// The latest prediction at each distance, and the layer it is of, or -1.
  private var predictions: [[Candidate]]
  private var layers: [Int]
  private var top: [(score: Float, expert: Int)] = []

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry, parameters: Parameters = Parameters()) {
    self.geometry = geometry
    self.parameters = parameters
    let extra = Int((parameters.extra * Double(geometry.topK)).rounded(.up))
    candidateCount = min(geometry.expertCount, geometry.topK + max(1, extra))
    predictions = Array(repeating: [], count: Self.farthest + 1)
    layers = Array(repeating: -1, count: Self.farthest + 1)
    top.reserveCapacity(candidateCount + 1)
    wanted.reserveCapacity(candidateCount)
    for distance in predictions.indices { predictions[distance].reserveCapacity(candidateCount) }
  }

  /// Takes note of a prediction and sets `wanted`.
  ///
  /// - Parameters:
  ///   - layer: the layer predicted, counted over the MoE layers.
  ///   - distance: how many layers ahead, at most `farthest`.
  ///   - scores: the router's scores as predicted, [experts of a layer], in any unit.
  ///   - utilisation: the share of time in which the disk is busy with demand reads, 0 to 1.
  public mutating func predict(
    layer: Int, distance: Int, scores: Span<Float>,
    residents: borrowing ResidentTable, utilisation: Float
  ) {
    selectTop(scores)
    let boundary = (top[geometry.topK - 1].score + top[min(geometry.topK, top.count - 1)].score) / 2
    let scale = 1 / max(deviation(of: scores), .leastNormalMagnitude)
    let first = Int32(layer * geometry.expertCount)
    let threshold = max(parameters.minimumProbability, utilisation / (1 + utilisation))
    layers[distance] = layer
    predictions[distance].removeAll(keepingCapacity: true)
    wanted.removeAll(keepingCapacity: true)
    for (score, expert) in top where !residents.contains(first + Int32(expert)) {
      let margin = (score - boundary) * scale
      var candidate = Candidate(
        expert: first + Int32(expert),
        bin: PrefetchCalibration.bin(margin: margin, distance: distance))
      candidate.isWanted =
        wanted.count < parameters.depth && calibration.probability(of: candidate.bin) >= threshold
      predictions[distance].append(candidate)
      if candidate.isWanted { wanted.append(candidate.expert) }
    }
    if !isOpen { wanted.removeAll(keepingCapacity: true) }
  }

  /// Judges the predictions of the layer of `event` by what it needs.
  /// - Returns: the experts that were worth reading by the nearest prediction: those that are needed, and
  ///   those that are not.
  @discardableResult
  public mutating func settle(_ event: borrowing RoutingEvent) -> (right: Int, wrong: Int) {
    var outcome = (right: 0, wrong: 0)
    for distance in predictions.indices where layers[distance] == event.layer {
      // The nearest prediction is what was gone by in the end.
      let isNearest = !layers[..<distance].contains(event.layer)
      for candidate in predictions[distance] {
        let needed = event.experts.contains(candidate.expert)
        calibration.note(candidate.bin, needed: needed)
        guard isNearest, candidate.isWanted else { continue }
        if needed { outcome.right += 1 } else { outcome.wrong += 1 }
      }
    }
    for distance in layers.indices where layers[distance] == event.layer { layers[distance] = -1 }
    return outcome
  }

  /// Takes note of what prefetching came to at a layer; see `PrefetchGovernor`.
  ///
  /// - Parameters:
  ///   - layer: the layer that has been executed.
  ///   - saved: seconds of waiting that prefetching saved there, or would have.
  ///   - spent: seconds of work on predictions.
  public mutating func note(layer: Int, saved: Float, spent: Float, elapsed: Float) {
    if wantsPredictions { governor.note(saved: saved, spent: spent, elapsed: elapsed) }
    guard layer == geometry.layerCount - 1 else { return }
    if wantsPredictions {
      governor.endPass()
      planTrial()
    } else {
      passesUntilTrial -= 1
    }
  }

  /// Decides when predictions are wanted again, if nothing is read ahead.
  private mutating func planTrial() {
    guard !isOpen else {
      (trialCount, trialPeriod) = (0, Self.trialPeriods.lowerBound)
      return
    }
    trialCount += 1
    if trialCount % 8 == 0 {
      trialPeriod = min(2 * trialPeriod + 1, Self.trialPeriods.upperBound)
    }
    passesUntilTrial = trialPeriod
  }

  /// Sets `top` to the highest scores, highest first, the lower expert first among equals.
  private mutating func selectTop(_ scores: Span<Float>) {
    top.removeAll(keepingCapacity: true)
    for expert in 0..<geometry.expertCount {
      let score = scores[expert]
      if top.count == candidateCount {
        if !(score > top[candidateCount - 1].score) { continue }
        top.removeLast()
      }
      var place = top.count
      while place > 0, score > top[place - 1].score { place -= 1 }
      top.insert((score, expert), at: place)
    }
  }

  private func deviation(of scores: Span<Float>) -> Float {
    var sum: Float = 0
    var squares: Float = 0
    for expert in scores.indices {
      sum += scores[expert]
      squares += scores[expert] * scores[expert]
    }
    let mean = sum / Float(scores.count)
    return max(0, squares / Float(scores.count) - mean * mean).squareRoot()
  }
}

package import Residency
package import Routing

/// What predicts the routing in a replay.
package enum ReplayPredictor: Hashable, Sendable {
  /// The predictions that the trace was recorded with.
  case recorded
  /// The trace itself: what would be won if every prediction came true.
  case control
  /// A predictor over the history of routing.
  case history(HistoryPredictorName)

  /// What `--predictor` takes.
  package init?(name: String) {
    switch name {
    case "recorded": self = .recorded
    case "control": self = .control
    default:
      guard let history = HistoryPredictorName(rawValue: name) else { return nil }
      self = .history(history)
    }
  }

  package static let names =
    ["recorded", "control"] + HistoryPredictorName.allCases.map(\.rawValue)
}

/// The predictions of a trace's routing that a replay, simulated or live, reads ahead by.
package struct TracePredictions {
  private let predictor: ReplayPredictor
  private let header: TraceHeader
  private var history: HistoryPredictor?
  private var sequence: Int32 = -1

  package init(_ predictor: ReplayPredictor, header: TraceHeader) {
    self.predictor = predictor
    self.header = header
    if case .history(let name) = predictor {
      history = HistoryPredictor(name, geometry: header.geometry, farthest: 1)
    }
  }

  /// Takes note of the experts that `layer` has used, numbered in the layer, and of the sequence that is
  /// next to use any.
  package mutating func observe(layer: Int, experts: some Sequence<Int>, next sequence: Int32) {
    guard history != nil else { return }
    history?.observe(layer: layer, experts: Array(experts))
    if sequence != self.sequence {
      self.sequence = sequence
      history?.beginSequence()
    }
  }

  /// The scores predicted of the experts of event `index`, [experts], in any unit that ascends with
  /// likelihood; nil if none are.
  ///
  /// - Parameter distance: from how many layers before; 0 is before the attention of its own.
  package func scores(of index: Int, in trace: RoutingTrace, distance: Int) -> [Float]? {
    let count = header.geometry.expertCount
    let layer = trace.layer(of: index)
    guard distance <= layer else { return nil }
    switch predictor {
    case .history:
      return distance == 1 ? history?.scores(layer: layer, distance: 1) : nil
    case .control:
      var scores = Array(repeating: Float(0), count: count)
      for expert in trace.experts(of: index) { scores[Int(expert)] = 1 }
      return scores
    case .recorded:
      let codes = trace.predictions(of: index)
      guard let place = header.predictionDistances.firstIndex(of: distance), !codes.isEmpty else {
        return nil
      }
      let row = codes.dropFirst(place * count).prefix(count)
      return row.contains { $0 != .max } ? row.map { -Float($0) } : nil
    }
  }
}

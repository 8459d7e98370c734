internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Models
public import Residency
public import Routing
internal import Tensors

/// How one predictor fared at one lookahead distance.
public struct PredictorResult: Sendable, Codable {
  /// The predictor, or "control": the router itself, on its true input.
  public let predictor: String
  /// Layers from where the prediction is made; 0 is before the attention of the layer itself.
  public let distance: Int
  /// By layer; those that are too near the first have counts of 0.
  public internal(set) var layers: [PredictionTally]

  /// Over all layers.
  public var total: PredictionTally {
    layers.reduce(into: PredictionTally()) { $0.add($1) }
  }
}

/// What predictors are judged by.
public struct PredictorTrial: Sendable {
  /// Candidates beyond k that recall is also given for.
  public var more: Int
  /// The share of the experts' bytes that are resident, under `nextUse`: who is missed.
  public var residentShare: Double
  /// The farthest distance.
  public var farthest: Int

  public init(more: Int = 2, residentShare: Double = 0.5, farthest: Int = 4) {
    self.more = more
    self.residentShare = residentShare
    self.farthest = farthest
  }
}

/// Results that fill while tokens go by, layer after layer.
final class PredictorScoreboard {
  private let trial: PredictorTrial
  private let geometry: RoutingGeometry
  private var results: [String: [PredictorResult]] = [:]
  private var order: [String] = []
  private var history: [HistoryPredictor]
  private var residents: ResidentSet
  private var events: EventBuilder
  private var missed: [Int32] = []
  /// What has been predicted of the layers to come.
  private var pending: [(predictor: String, layer: Int, distance: Int, scores: [Float])] = []

  init(_ geometry: RoutingGeometry, trial: PredictorTrial) {
    self.geometry = geometry
    self.trial = trial
    history = HistoryPredictorName.allCases.map {
      HistoryPredictor($0, geometry: geometry, farthest: trial.farthest)
    }
    let capacity = Int(Double(geometry.totalByteCount) * trial.residentShare)
    residents = ResidentSet(
      geometry: geometry, capacity: capacity,
      policy: PolicyName.nextUse.make(geometry: geometry, capacity: capacity))
    events = EventBuilder(geometry: geometry, hasWeights: true)
  }

  func beginSequence() {
    for index in history.indices { history[index].beginSequence() }
    pending.removeAll()
  }

  /// Takes note of a prediction.
  func predict(_ predictor: String, layer: Int, distance: Int, scores: [Float]) {
    pending.append((predictor, layer, distance, scores))
  }

  /// `layer` is next: what is predicted of it from routing alone.
  func begin(layer: Int) {
    for predictor in history {
      for distance in 0...trial.farthest where distance <= layer {
        // Only co-activation knows anything else a layer later.
        guard distance == 1 || predictor.name == .coactivation && distance > 0 else { continue }
        predict(
          predictor.name.rawValue, layer: layer, distance: distance,
          scores: predictor.scores(layer: layer, distance: distance))
      }
    }
  }

  /// Judges what was predicted of `layer` for one token.
  func settle(layer: Int, routing: borrowing Routing) {
    let experts = routing.experts.map(Int.init)
    let first = Int32(layer * geometry.expertCount)
    for prediction in pending where prediction.layer == layer {
      note(prediction.predictor, layer, prediction.distance, prediction.scores, experts) {
        residents.table.contains(first + Int32($0))
      }
    }
    pending.removeAll { $0.layer == layer }
    events.form(layer: layer, phase: .decode, routing: routing)
    _ = residents.serve(events.event, missed: &missed)
    for index in history.indices { history[index].observe(layer: layer, experts: experts) }
  }

  private func note(
    _ predictor: String, _ layer: Int, _ distance: Int, _ scores: [Float], _ experts: [Int],
    isResident: (Int) -> Bool
  ) {
    if results[predictor] == nil {
      order.append(predictor)
      results[predictor] = (0...trial.farthest).map {
        PredictorResult(
          predictor: predictor, distance: $0,
          layers: Array(repeating: PredictionTally(), count: geometry.layerCount))
      }
    }
    results[predictor]![distance].layers[layer].note(
      scores: scores, experts: experts, more: trial.more, isResident: isResident)
  }

  /// What there is, predictor by predictor.
  var all: [PredictorResult] {
    order.flatMap { results[$0]! }.filter { $0.total.chosen > 0 }
  }
}

extension MoEModel {
  /// Judges every predictor of the routing of `tokens`, decoded one after the other in windows that each
  /// begin anew.
  ///
  /// - Parameters:
  ///   - isCancelled: asked before every token.
  ///   - progress: called with the tokens done and all.
  /// - Throws: an error that names the file of fitted heads, if they are not the model's.
  public func evaluatePredictors(
    on tokens: [Int32], trial: PredictorTrial = PredictorTrial(),
    isCancelled: () -> Bool = { false }, progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) throws -> [PredictorResult] {
    guard (0...RouterPredictor.farthest).contains(trial.farthest) else {
      throw StokerError.option(
        name: "the distance", found: "\(trial.farthest)",
        expected: "0 to \(RouterPredictor.farthest)")
    }
    guard tokens.count >= 2 else { throw StokerError.tooShort(tokens: tokens.count, needed: 2) }
    try checkVocabulary(of: tokens)
    let shape = try file.shape(ModelOptions(context: transformer.cache.capacity))
    var kinds: [PredictorKind] = [.gateReuse, .corrected]
    if shape.heads != nil { kinds.append(.fitted) }
    let study = PredictorStudy(
      try kinds.map { try predictor($0, shape, ledger: MemoryLedger(budget: .max)) },
      control: try predictor(.gateReuse, shape, ledger: MemoryLedger(budget: .max)),
      transformer: transformer,
      board: PredictorScoreboard(file.routingGeometry, trial: trial),
      farthest: trial.farthest)
    let (old, oldState) = (transformer.onRouting, transformer.onState)
    let live = transformer.predictor
    transformer.predictor = nil
    defer {
      (transformer.onRouting, transformer.onState, transformer.predictor) = (old, oldState, live)
    }
    transformer.onState = { study.take($0, layer: $1, row: $2) }
    transformer.onRouting = { layer, _, _, routing, _ in
      study.board.settle(layer: layer, routing: routing)
    }
    let window = min(Self.fitWindow, transformer.cache.capacity)
    for (index, token) in tokens.enumerated() {
      if isCancelled() { break }
      if index % window == 0 { study.beginSequence() }
      let one: InlineArray<1, Int32> = [token]
      try transformer.forward(one.span, at: index % window, phase: .decode, logits: .none) { _, _ in
      }
      progress(index + 1, tokens.count)
    }
    return study.board.all
  }
}

/// Lets predictors see what a model does.
private final class PredictorStudy {
  let board: PredictorScoreboard
  private let predictors: [RouterPredictor]
  private let control: RouterPredictor
  private unowned let transformer: MoETransformer
  private let farthest: Int

  init(
    _ predictors: [RouterPredictor], control: RouterPredictor, transformer: MoETransformer,
    board: PredictorScoreboard, farthest: Int
  ) {
    self.predictors = predictors
    self.control = control
    self.transformer = transformer
    self.board = board
    self.farthest = farthest
  }

  func beginSequence() {
    board.beginSequence()
    for predictor in predictors { predictor.beginSequence() }
  }

  func take(
    _ point: MoETransformer.StatePoint, layer: Int, row: UnsafeBufferPointer<Float>
  ) {
    let values = row.baseAddress!
    if point == .beforeAttention { board.begin(layer: layer) }
    for predictor in predictors {
      transformer.follow(predictor, point, layer: layer, row: values, farthest: farthest) {
        board.predict(predictor.kind.rawValue, layer: $0, distance: $1, scores: $2)
      }
    }
    guard point == .atRouter else { return }
    control.note(beforeAttentionOf: layer, state: values)
    board.predict(
      "control", layer: layer, distance: 0,
      scores: transformer.predictedScores(of: layer, distance: 0, by: control))
  }
}

extension RoutingTrace {
  /// Judges the predictors that need routing alone on the decoded tokens of the trace.
  /// - Parameter progress: called with the events done and all.
  public func evaluatePredictors(
    trial: PredictorTrial = PredictorTrial(),
    progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) -> [PredictorResult] {
    let board = PredictorScoreboard(header.geometry, trial: trial)
    var sequence: Int32?
    for event in 0..<eventCount where phase(of: event) == .decode {
      if self.sequence(of: event) != sequence {
        sequence = self.sequence(of: event)
        board.beginSequence()
      }
      let layer = layer(of: event)
      var routing = Routing(topK: header.geometry.topK)
      MoEModel.append(self, event: event, to: &routing)
      board.begin(layer: layer)
      board.settle(layer: layer, routing: routing)
      if event % 4096 == 0 { progress(event, eventCount) }
    }
    return board.all
  }
}

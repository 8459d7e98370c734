internal import Checkpoints
internal import Models
internal import Residency
public import Routing
internal import Tensors

/// Records which experts a model routes to, as a .moetrace file.
///
/// The file grows while the model runs: what a program that dies has recorded, but for the last 64 KiB,
/// is there. Each generation is a sequence of its own.
public final class RoutingRecorder {
  private let writer: TraceWriter
  private var event = TraceEvent()
  private var sequence: Int32
  private var failure: TraceError?
  private let expertCount: Int
  private let hasScores: Bool
  /// Predicts what is recorded, if predictions are.
  private(set) var predictor: RouterPredictor?
  /// The latest predictions, [layers][distances * experts].
  private var predictions: [[UInt8]] = []
  /// What had been read ahead by the latest event of each layer.
  private var ledgers: [PrefetchLedger]

  /// Records runs of `model` into the trace at `path`, which is gone on with if it exists.
  ///
  /// - Parameters:
  ///   - workload: what is processed, in words.
  ///   - scores: whether the router's scores of all experts are recorded too, a byte each.
  ///   - predictions: whether what they are predicted to be is, for decoded tokens and at every distance
  ///     that prefetch makes use of, by the fitted heads where there are any, else corrected.
  /// - Throws: `TraceError`; `.mismatch` if the trace there is of another model; an error that names the
  ///   file of the fitted heads.
  public init(
    path: String, model: MoEModel, workload: String = "", scores: Bool = false,
    predictions: Bool = false
  ) throws {
    var header = model.traceHeader(workload: workload)
    if predictions {
      predictor = try model.makePredictor()
      header.predictionDistances = Array(0...PrefetchPlanner.farthest)
    }
    header.hasScores = scores
    hasScores = scores
    expertCount = header.geometry.expertCount
    let unknown = [UInt8](repeating: .max, count: header.predictionDistances.count * expertCount)
    self.predictions = Array(repeating: unknown, count: header.geometry.layerCount)
    ledgers = model.transformer.runtime.statistics.prefetch
    writer = try TraceWriter(appendingTo: path, header: header)
    sequence = writer.lastSequence
  }

  /// Bytes of a damaged end, which a recording leaves that was cut short, that were cut off the trace
  /// that is gone on with.
  public var cutByteCount: Int { writer.cutByteCount }

  /// A generation begins: its tokens are of the next sequence.
  func beginSequence() { sequence += 1 }

  /// Takes note of the routing of tokens from `position` on, and of what was read ahead for `layer` since
  /// the model was made. An error is kept for `finish`, so that it
  /// ends the recording and not the run.
  func record(
    layer: Int, position: Int, phase: Phase, routing: borrowing Routing,
    prefetch: PrefetchLedger, score: (_ token: Int, _ expert: Int) -> Float
  ) {
    guard failure == nil else { return }
    event.removeAll()
    event.prefetch = prefetch
    event.prefetch.subtract(ledgers[layer])
    ledgers[layer] = prefetch
    event.sequence = sequence
    event.phase = phase
    event.step = Int32(position)
    event.layer = layer
    for expert in routing.experts { event.experts.append(UInt16(expert)) }
    event.weights += routing.weights
    if hasScores {
      for token in 0..<routing.tokenCount {
        for expert in 0..<expertCount {
          event.scores.append(TraceScore.code(of: score(token, expert)))
        }
      }
    }
    if predictor != nil, phase == .decode, routing.tokenCount == 1 {
      event.predictions += predictions[layer]
    }
    do throws(TraceError) {
      try writer.append(event)
    } catch {
      failure = error
    }
  }

  /// Takes note of what `layer` is predicted to score.
  func predict(layer: Int, distance: Int, scores: [Float]) {
    for (expert, score) in scores.enumerated() {
      predictions[layer][distance * expertCount + expert] = TraceScore.code(of: score)
    }
  }

  /// Writes what is left.
  /// - Throws: the first error that the recording met.
  public func finish() throws(TraceError) {
    if let failure { throw failure }
    try writer.finish()
  }
}

extension RoutingRecorder {
  /// Takes note of what a model that decodes one token tells at a point of a layer, and predicts by it.
  func take(
    _ point: MoETransformer.StatePoint, layer: Int, rows: UnsafeBufferPointer<Float>,
    of transformer: MoETransformer
  ) {
    guard let predictor, let row = rows.baseAddress else { return }
    let width = point == .scores ? expertCount : transformer.description.hiddenSize
    // Of a prompt, only the last token's scores: what decoding begins after.
    guard rows.count == width || point == .scores else { return }
    transformer.follow(
      predictor, point, layer: layer, row: row + rows.count - width,
      farthest: PrefetchPlanner.farthest
    ) { predict(layer: $0, distance: $1, scores: $2) }
  }
}

extension MoEModel {
  private var fileName: String {
    file.path.split(separator: "/").last.map(String.init) ?? file.path
  }

  /// What traces call this model.
  var traceName: String { file.description.name.isEmpty ? fileName : file.description.name }

  /// What a trace of this model says of itself.
  func traceHeader(workload: String) -> TraceHeader {
    let layout = file.layout
    return TraceHeader(
      model: traceName, geometry: file.routingGeometry,
      elementTypes: layout.shapes.map {
        "\($0.gateType.name)/\($0.upType.name)/\($0.downType.name)"
      },
      slotByteCounts: transformer.runtime.geometry.slotByteCounts, workload: workload,
      provenance: "recorded by stoker run from \(fileName)",
      hasWeights: true)
  }
}

package import Checkpoints
internal import DirectIO
package import ExpertRuntime
package import Tensors

/// How a layer's router scores are predicted from the hidden state of an earlier point of the pass.
///
/// The state is the residual stream: before the layer's own attention (distance 0), or where an earlier
/// layer's router sees it (distance 1 and more).
public enum PredictorKind: String, Sendable, Codable, CaseIterable {
  /// The layer's own norm and router, on the earlier state (HOBBIT, arXiv 2411.01433; BigMoeOnEdge).
  /// At distance 0 it is the pre-attention predictor (arXiv 2511.10676, without its training).
  case gateReuse = "gate-reuse"
  /// Gate reuse, after the mean of what the layers in between add has been added to the state: a
  /// running mean over the tokens decoded so far (the residual correction of DALI, arXiv 2602.03495).
  case corrected
  /// Linear heads fitted by `stoker fit-predictor`, on the state and on the router's scores of the same
  /// layer for the token before.
  case fitted
}

/// Predicts the router scores of layers to come, for a model that decodes one token at a time.
package final class RouterPredictor {
  /// The farthest distance predicted at, in layers.
  package static let farthest = 4
  /// Tokens that the running means of `corrected` go back over.
  private static let window = 256

  package let kind: PredictorKind
  private let heads: PredictorHeads?
  private let model: ModelDescription
  private let kernels: Kernels
  private let batch: ProductBatch
  private let buffers: Buffers
  private let memory: Arena
  /// Tokens decoded.
  private var tokenCount = 0

  /// The bytes of its working memory.
  package static func byteCount(
    _ kind: PredictorKind, _ model: ModelDescription, kernels: Kernels
  ) -> Int {
    ScratchCursor.measure { _ = Buffers(kind, model, kernels: kernels, cursor: &$0) }
  }

  /// - Parameters:
  ///   - heads: for `fitted`.
  ///   - pool: threads that compute.
  package init(
    _ kind: PredictorKind, heads: PredictorHeads?, model: ModelDescription, kernels: Kernels,
    pool: WorkerPool, ledger: MemoryLedger
  ) throws(RuntimeError) {
    self.kind = kind
    self.heads = heads
    self.model = model
    self.kernels = kernels
    batch = ProductBatch(kernels: kernels, pool: pool, capacity: 1)
    memory = try ledger.allocate(
      "predictor", byteCount: Self.byteCount(kind, model, kernels: kernels))
    var cursor = ScratchCursor(memory.region(offset: 0, count: memory.byteCount))
    buffers = Buffers(kind, model, kernels: kernels, cursor: &cursor)
    buffers.input.bind(capacity: 1)
    buffers.features.bind(capacity: 1)
    buffers.scoreRows.initialize(to: buffers.scores)
    buffers.ones.initialize(repeating: 1, count: model.hiddenSize)
  }

  /// Whether the scores of `layer` can be predicted at `distance`.
  package func predicts(layer: Int, distance: Int) -> Bool {
    guard layer < model.expertLayerCount, layer - distance >= 0 else { return false }
    return kind != .fitted || heads?.distances.contains(distance) == true
  }

  /// The router scores of `layer`, [experts], from the state that `note` was told of last at that
  /// distance. They are valid, and the caller's to change, until the next call.
  package func predict(
    layer: Int, distance: Int, norm: Norm, router: Matrix
  ) -> UnsafeMutableBufferPointer<Float> {
    let hidden = model.hiddenSize
    let state = buffers.state(layer: layer - distance, distance: distance)
    let input: ActivationRows
    let matrix: Matrix
    if kind == .fitted, let heads {
      input = buffers.features
      matrix = heads.matrix(layer: layer, distance: distance)
      kernels.rmsNorm(
        state, weight: buffers.ones, into: input.floats, count: hidden, epsilon: model.rmsEpsilon)
      (input.floats + hidden).update(
        from: buffers.latest + layer * model.expertCount, count: model.expertCount)
      if matrix.type.wantsQuantizedActivations {
        input.quantize(0..<1, kernels: kernels, pool: batch.pool)
      }
    } else {
      input = buffers.input
      matrix = router
      input.floats.update(from: state, count: hidden)
      if kind == .corrected {
        kernels.add(
          buffers.correction(layer: layer, distance: distance), to: input.floats, count: hidden)
      }
      norm.apply(
        input.floats, into: input.floats, count: hidden, epsilon: model.rmsEpsilon,
        kernels: kernels)
      input.quantize(0..<1, kernels: kernels, pool: batch.pool)
    }
    batch.append(
      Product(
        matrix, activations: input.rows(for: matrix.type),
        outputs: UnsafePointer(buffers.scoreRows),
        tokenCount: 1))
    batch.run()
    if kind == .fitted, let heads {
      kernels.add(
        heads.bias(layer: layer, distance: distance), to: buffers.scores, count: model.expertCount)
    }
    return UnsafeMutableBufferPointer(start: buffers.scores, count: model.expertCount)
  }

  // MARK: - What is learned of

  /// Takes note of the state before the attention of `layer`.
  package func note(beforeAttentionOf layer: Int, state: UnsafePointer<Float>) {
    if layer == 0 { tokenCount += 1 }
    buffers.state(layer: layer, distance: 0).update(from: state, count: model.hiddenSize)
  }

  /// Takes note of the state that the router of `layer` sees, before its norm.
  package func note(atRouterOf layer: Int, state: UnsafePointer<Float>) {
    if kind == .corrected {
      let rate = 1 / Float(min(tokenCount, Self.window))
      for distance in 0...Self.farthest where layer >= distance {
        let source = buffers.state(layer: layer - distance, distance: distance)
        let correction = buffers.correction(layer: layer, distance: distance)
        for index in 0..<model.hiddenSize {
          correction[index] += rate * (state[index] - source[index] - correction[index])
        }
      }
    }
    buffers.state(layer: layer, distance: 1).update(from: state, count: model.hiddenSize)
  }

  /// Takes note of the scores that the router of `layer` gives the latest token, before their softmax.
  package func note(scoresOf layer: Int, _ scores: UnsafePointer<Float>) {
    guard kind == .fitted else { return }
    (buffers.latest + layer * model.expertCount).update(from: scores, count: model.expertCount)
  }

  /// A sequence begins: there is no token before its first.
  package func beginSequence() {
    buffers.latest.update(repeating: 0, count: model.expertLayerCount * model.expertCount)
  }

  private struct Buffers {
    private let model: ModelDescription
    /// A normalised state, [hidden].
    let input: ActivationRows
    /// A normalised state and the latest scores, [hidden + experts].
    let features: ActivationRows
    let scores: UnsafeMutablePointer<Float>
    let scoreRows: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
    /// The router's scores of the token before, [layers, experts].
    let latest: UnsafeMutablePointer<Float>
    /// A norm that weighs nothing, [hidden].
    let ones: UnsafeMutablePointer<Float>
    /// Before the attention of the latest layer, then at the routers of the latest ones, by layer,
    /// [1 + farthest, hidden].
    private let states: UnsafeMutablePointer<Float>
    /// What is added to a state, [1 + farthest, layers, hidden]; nothing but for `corrected`.
    private let corrections: UnsafeMutablePointer<Float>

    init(
      _ kind: PredictorKind, _ model: ModelDescription, kernels: Kernels,
      cursor: inout ScratchCursor
    ) {
      self.model = model
      input = ActivationRows(
        capacity: 1, columns: model.hiddenSize, kernels: kernels, cursor: &cursor)
      features = ActivationRows(
        capacity: 1, columns: model.hiddenSize + model.expertCount, kernels: kernels,
        cursor: &cursor)
      scores = cursor.take(model.expertCount)
      scoreRows = cursor.take(1)
      latest = cursor.take(model.expertLayerCount * model.expertCount)
      ones = cursor.take(model.hiddenSize)
      states = cursor.take((1 + farthest) * model.hiddenSize)
      let corrected = kind == .corrected ? model.expertLayerCount : 0
      corrections = cursor.take((1 + farthest) * corrected * model.hiddenSize)
    }

    /// The state at `layer` that predictions over `distance` layers begin with.
    func state(layer: Int, distance: Int) -> UnsafeMutablePointer<Float> {
      states + (distance == 0 ? 0 : 1 + layer % farthest) * model.hiddenSize
    }

    /// What is added to that state for the router of `layer`.
    func correction(layer: Int, distance: Int) -> UnsafeMutablePointer<Float> {
      corrections + (distance * model.expertLayerCount + layer) * model.hiddenSize
    }
  }
}

extension MoETransformer {
  /// Lets `predictor` see a token's `row` at a point of a layer, as `onState` tells of it, and calls
  /// `body` with every prediction that can be made from there, at most `farthest` layers ahead.
  package func follow(
    _ predictor: RouterPredictor, _ point: StatePoint, layer: Int, row: UnsafePointer<Float>,
    farthest: Int, _ body: (_ layer: Int, _ distance: Int, _ scores: [Float]) -> Void
  ) {
    func predict(_ target: Int, _ distance: Int) {
      guard predictor.predicts(layer: target, distance: distance) else { return }
      body(target, distance, predictedScores(of: target, distance: distance, by: predictor))
    }
    switch point {
    case .beforeAttention:
      predictor.note(beforeAttentionOf: layer, state: row)
      predict(layer, 0)
    case .atRouter:
      predictor.note(atRouterOf: layer, state: row)
      for distance in 1...max(1, farthest) where distance <= farthest {
        predict(layer + distance, distance)
      }
    case .scores:
      predictor.note(scoresOf: layer, row)
    }
  }
}

internal import Checkpoints
internal import Tensors

/// The weights of a layer that every token uses; those of the experts are the runtime's.
struct TransformerLayer {
  let attentionNorm: Norm
  let attention: Attention
  let output: Matrix
  /// Added to what `output` gives.
  let outputBias: UnsafePointer<Float>?
  /// The score of each head that has no value, [heads].
  let sinks: UnsafePointer<Float>?
  /// Before what follows attention.
  let feedForwardNorm: Norm
  let feedForward: FeedForward

  /// What makes queries, keys and values.
  enum Attention {
    case grouped(Projections)
    case latent(LatentProjections)
    /// No attention: a recurrent state.
    case linear(LinearProjections)
  }

  struct Projections {
    let query: Matrix
    let key: Matrix
    let value: Matrix
    /// Added to queries, keys and values.
    let biases:
      (query: UnsafePointer<Float>, key: UnsafePointer<Float>, value: UnsafePointer<Float>)?
    let norms: (query: UnsafePointer<Float>, key: UnsafePointer<Float>)?
  }

  /// What follows attention.
  enum FeedForward {
    /// One network for all tokens.
    case dense(FeedForwardNetwork)
    case experts(Mixture)
  }

  /// What chooses experts, and the expert that every token is sent to besides.
  struct Mixture {
    let router: Matrix
    /// Added to the router's scores, [experts].
    let routerBias: UnsafePointer<Float>?
    /// Added to the probabilities for the choice, [experts].
    let correction: UnsafePointer<Float>?
    let shared: FeedForwardNetwork?
    /// The product with the input whose sigmoid weighs the shared expert, [hidden].
    let sharedGate: UnsafePointer<Float>?
  }

  init(_ layer: Int, of model: ModelDescription, weights: DenseWeights) {
    func matrix(_ part: String) -> Matrix { weights.matrix("blk.\(layer).\(part).weight") }
    func vector(_ part: String) -> UnsafePointer<Float> { weights.vector("blk.\(layer).\(part)") }
    attentionNorm = Norm("blk.\(layer).attn_norm", weights: weights)
    let linear = model.linear.flatMap { $0.layers.contains(layer) ? $0 : nil }
    if let linear {
      attention = .linear(LinearProjections(layer, linear, weights: weights))
    } else if let latent = model.latent {
      attention = .latent(LatentProjections(layer, latent, weights: weights))
    } else {
      attention = .grouped(
        Projections(
          query: matrix("attn_q"), key: matrix("attn_k"), value: matrix("attn_v"),
          biases: model.hasProjectionBias
            ? (vector("attn_q.bias"), vector("attn_k.bias"), vector("attn_v.bias")) : nil,
          norms: model.queryKeyNorm == nil
            ? nil : (vector("attn_q_norm.weight"), vector("attn_k_norm.weight"))))
    }
    output = weights.matrix(model.outputTensor(ofLayer: layer))
    outputBias = model.hasOutputBias ? vector("attn_output.bias") : nil
    sinks = model.hasSinks ? vector("attn_sinks.weight") : nil
    feedForwardNorm = Norm("blk.\(layer).\(model.feedForwardNorm)", weights: weights)
    guard layer >= model.denseLayerCount else {
      feedForward = .dense(
        FeedForwardNetwork(
          gate: matrix("ffn_gate"), up: matrix("ffn_up"), down: matrix("ffn_down")))
      return
    }
    feedForward = .experts(
      Mixture(
        router: matrix("ffn_gate_inp"),
        routerBias: model.hasExpertBiases ? vector("ffn_gate_inp.bias") : nil,
        correction: model.router.hasCorrection ? vector("exp_probs_b.bias") : nil,
        shared: model.sharedFeedForwardSize == 0
          ? nil
          : FeedForwardNetwork(
            gate: matrix("ffn_gate_shexp"), up: matrix("ffn_up_shexp"),
            down: matrix("ffn_down_shexp")),
        sharedGate: model.gatesSharedExpert ? vector("ffn_gate_inp_shexp.weight") : nil))
  }

  /// The mixture of a layer with experts.
  var mixture: Mixture {
    guard case .experts(let mixture) = feedForward else {
      preconditionFailure("a layer without experts")
    }
    return mixture
  }
}

/// A gated network, down(silu(gate x) * up x): an expert in form, for all tokens.
struct FeedForwardNetwork {
  let gate: Matrix
  let up: Matrix
  let down: Matrix
}

/// The working memory of such networks of one size.
struct FeedForwardBuffers {
  let gate: UnsafeMutablePointer<Float>
  let gateRows: TransformerBuffers.Rows
  /// silu(gate x) * up x, [tokens, size].
  let inner: ActivationRows
  let innerRows: TransformerBuffers.Rows

  /// - Parameter size: rows of gate and up; with 0 nothing is taken.
  init(capacity: Int, size: Int, kernels: Kernels, cursor: inout ScratchCursor) {
    let count = size == 0 ? 0 : capacity
    gate = cursor.take(count * size)
    gateRows = cursor.take(count)
    inner = ActivationRows(capacity: count, columns: size, kernels: kernels, cursor: &cursor)
    innerRows = cursor.take(count)
  }

  /// Fills the pointers that never change.
  func bind(capacity: Int, size: Int) {
    guard size > 0 else { return }
    for row in 0..<capacity {
      (gateRows + row).initialize(to: gate + row * size)
      (innerRows + row).initialize(to: inner.row(row))
    }
    inner.bind(capacity: capacity)
  }
}

package import Checkpoints
package import ExpertRuntime
package import Routing
package import Tensors

/// The decoder of OLMoE (arXiv 2409.02060) and Qwen3-MoE (arXiv 2505.09388).
///
/// Per layer: RMS norm, attention with normalised queries and keys, residual; RMS norm, router,
/// experts, residual. The two differ in three flags of `ModelDescription`: whether query and key
/// norms run over a head or over the whole projection, whether the weights of the chosen experts
/// are normalised, and whether projections are clamped.
///
/// The bits of a value depend on the tokens and on how the prompt was split into chunks, which the
/// budget and the threads have no say in: few tokens and many take different kernels.
package final class MoETransformer {
  /// Where in a layer `onState` is told of values, one row for every token.
  package enum StatePoint: Sendable {
    /// The residual stream before attention, [tokens, hidden].
    case beforeAttention
    /// The residual stream that the router sees, before its norm, [tokens, hidden].
    case atRouter
    /// The router's scores before their softmax, [tokens, experts].
    case scores
  }

  /// Which tokens' logits a pass is to give.
  package enum Logits: Sendable { case none, last, all }

  struct Layer {
    let attentionNorm: UnsafePointer<Float>
    let query: Matrix
    let key: Matrix
    let value: Matrix
    let output: Matrix
    let queryNorm: UnsafePointer<Float>
    let keyNorm: UnsafePointer<Float>
    let expertNorm: UnsafePointer<Float>
    let router: Matrix
  }

  package let description: ModelDescription
  package let cache: KeyValueCache
  package let runtime: ExpertRuntime
  /// Changes the routing of every layer before its experts are executed, as a live replay does.
  package var forceRouting: ((_ layer: Int, _ routing: inout Routing) -> Void)?
  /// Told of the routing of every layer before its experts are executed, and of how probable the router
  /// found each expert for each of the tokens.
  package var onRouting:
    (
      (
        _ layer: Int, _ position: Int, _ phase: Phase, _ routing: borrowing Routing,
        _ score: (_ token: Int, _ expert: Int) -> Float
      ) -> Void
    )?
  /// Predicts the routing of the layers to come, so that their experts are read ahead; nil: nothing is.
  package var predictor: RouterPredictor?
  /// Told of the states and scores that predictors are fitted to and judged by.
  package var onState:
    ((_ point: StatePoint, _ layer: Int, _ rows: UnsafeBufferPointer<Float>) -> Void)?
  let kernels: Kernels
  let pool: WorkerPool
  let layers: [Layer]
  let buffers: TransformerBuffers
  let rotary: RotaryEmbedding
  private let weights: DenseWeights
  private let embedding: Matrix
  private let head: Matrix
  private let outputNorm: UnsafePointer<Float>
  private let batch: ProductBatch
  private var routing: Routing

  /// - Parameter buffers: scratch for `runtime.tokenCapacity` tokens and `cache.capacity` positions.
  package init(
    description: ModelDescription, weights: DenseWeights, cache: KeyValueCache,
    runtime: ExpertRuntime, buffers: TransformerBuffers, pool: WorkerPool, kernels: Kernels
  ) {
    self.description = description
    self.weights = weights
    self.cache = cache
    self.runtime = runtime
    self.buffers = buffers
    self.pool = pool
    self.kernels = kernels
    layers = (0..<description.layerCount).map { layer in
      func name(_ part: String) -> String { "blk.\(layer).\(part).weight" }
      return Layer(
        attentionNorm: weights.vector(name("attn_norm")), query: weights.matrix(name("attn_q")),
        key: weights.matrix(name("attn_k")), value: weights.matrix(name("attn_v")),
        output: weights.matrix(name("attn_output")), queryNorm: weights.vector(name("attn_q_norm")),
        keyNorm: weights.vector(name("attn_k_norm")), expertNorm: weights.vector(name("ffn_norm")),
        router: weights.matrix(name("ffn_gate_inp")))
    }
    embedding = weights.matrix("token_embd.weight")
    head = description.tiedOutput ? embedding : weights.matrix("output.weight")
    outputNorm = weights.vector("output_norm.weight")
    rotary = RotaryEmbedding(
      dimension: description.headDimension, base: description.ropeBase,
      scaling: description.ropeScaling)
    batch = ProductBatch(kernels: kernels, pool: pool, capacity: 4)
    routing = Routing(
      topK: description.expertsPerToken, tokenCapacity: runtime.tokenCapacity)
  }

  /// Runs `tokens` through the model, from `position` on; keys and values before it are taken from
  /// the cache.
  ///
  /// - Parameters:
  ///   - tokens: at most `runtime.tokenCapacity` ids below the vocabulary size.
  ///   - logits: whose logits to compute.
  ///   - body: called with each of those tokens' index and logits, [vocabulary], in order.
  /// - Throws: `RuntimeError` if an expert cannot be read; the same call may then be made again.
  package func forward(
    _ tokens: Span<Int32>, at position: Int, phase: Phase, logits: Logits,
    _ body: (Int, UnsafeMutableBufferPointer<Float>) -> Void
  ) throws(RuntimeError) {
    let count = tokens.count
    precondition(count > 0 && count <= runtime.tokenCapacity, "token count out of range")
    precondition(position + count <= cache.capacity, "the key-value cache is full")
    let hidden = description.hiddenSize
    if position == 0 { predictor?.beginSequence() }
    for index in 0..<count {
      embed(tokens[index], into: buffers.residual + index * hidden)
      rotary.fill(
        cosines: buffers.cosines + index * (description.headDimension / 2),
        sines: buffers.sines + index * (description.headDimension / 2),
        position: position + index)
    }
    let predictor =
      phase == .decode && count == 1 && forceRouting == nil && runtime.wantsPredictions
      ? predictor : nil
    for layer in 0..<description.layerCount {
      tell(.beforeAttention, layer, buffers.residual, count * hidden)
      predictor?.note(beforeAttentionOf: layer, state: buffers.residual)
      predict(layer: layer, distance: 0, by: predictor)
      attend(layer: layer, position: position, count: count)
      tell(.atRouter, layer, buffers.residual, count * hidden)
      if let predictor {
        let start = monotonicNanoseconds()
        predictor.note(atRouterOf: layer, state: buffers.residual)
        runtime.notePrediction(since: start)
      }
      try routeAndMix(
        layer: layer, position: position, count: count, phase: phase, predictor: predictor)
    }
    switch logits {
    case .none: break
    case .last: project(tokens: (count - 1)..<count, body)
    case .all: project(tokens: 0..<count, body)
    }
  }

  private func embed(_ token: Int32, into row: UnsafeMutablePointer<Float>) {
    precondition((0..<embedding.rows).contains(Int(token)), "token id out of range")
    let rowByteCount = embedding.type.byteCount(valueCount: embedding.columns)!
    kernels.dequantize(
      type: embedding.type, blocks: embedding.bytes + Int(token) * rowByteCount,
      count: embedding.columns, into: row)
  }

  // MARK: - Attention

  private func attend(layer index: Int, position: Int, count: Int) {
    let layer = layers[index]
    let hidden = description.hiddenSize
    let input = buffers.input
    normalize(buffers.residual, weight: layer.attentionNorm, into: input.floats, count: count)
    input.quantize(0..<count, kernels: kernels, pool: pool)
    append(layer.query, of: input, into: buffers.queryRows, count: count)
    append(layer.key, of: input, into: buffers.keyRows, count: count)
    append(layer.value, of: input, into: buffers.valueRows, count: count)
    batch.run()
    runtime.advanceReads()
    let heads = AttentionLoop(
      model: self, layer: index, position: position, tokenCount: count)
    pool.run(heads.storing, chunkCount: count)
    pool.run(heads, chunkCount: heads.chunkCount)
    runtime.advanceReads()
    buffers.mixed.quantize(0..<count, kernels: kernels, pool: pool)
    append(layer.output, of: buffers.mixed, into: buffers.branchRows, count: count)
    batch.run()
    kernels.add(buffers.branch, to: buffers.residual, count: count * hidden)
  }

  /// Puts one product on the batch.
  private func append(
    _ matrix: Matrix, of input: ActivationRows, into rows: TransformerBuffers.Rows, count: Int
  ) {
    batch.append(
      Product(
        matrix, activations: input.rows(for: matrix.type), outputs: UnsafePointer(rows),
        tokenCount: count))
  }

  // MARK: - Prediction

  /// Reads ahead what `layer` is predicted to need, if it is predicted at `distance`.
  private func predict(layer: Int, distance: Int, by predictor: RouterPredictor?) {
    guard let predictor, predictor.predicts(layer: layer, distance: distance) else { return }
    let start = monotonicNanoseconds()
    let scores = predictor.predict(
      layer: layer, distance: distance, norm: layers[layer].expertNorm,
      router: layers[layer].router)
    runtime.predict(layer: layer, distance: distance, scores: scores.span, since: start)
  }

  /// What the router of `layer` is predicted to give each expert, by what `predictor` was told last.
  package func predictedScores(
    of layer: Int, distance: Int, by predictor: RouterPredictor
  ) -> [Float] {
    var scores = Array(
      predictor.predict(
        layer: layer, distance: distance, norm: layers[layer].expertNorm,
        router: layers[layer].router))
    scores.withUnsafeMutableBufferPointer {
      kernels.softmax($0.baseAddress!, count: $0.count)
    }
    return scores
  }

  private func tell(
    _ point: StatePoint, _ layer: Int, _ rows: UnsafePointer<Float>, _ count: Int
  ) {
    onState?(point, layer, UnsafeBufferPointer(start: rows, count: count))
  }

  // MARK: - Experts

  private func routeAndMix(
    layer index: Int, position: Int, count: Int, phase: Phase, predictor: RouterPredictor?
  ) throws(RuntimeError) {
    let layer = layers[index]
    let experts = description.expertCount
    let input = runtime.inputRows
    normalize(buffers.residual, weight: layer.expertNorm, into: input.floats, count: count)
    if layer.router.type.wantsQuantizedActivations {
      input.quantize(0..<count, kernels: kernels, pool: pool)
    }
    append(layer.router, of: input, into: buffers.routerRows, count: count)
    batch.run()
    runtime.advanceReads()
    tell(.scores, index, buffers.router, count * experts)
    self.predictor?.note(scoresOf: index, buffers.routerRows[count - 1])
    routing.removeAll()
    for token in 0..<count {
      let scores = UnsafeMutableBufferPointer(
        start: buffers.routerRows[token], count: experts)
      kernels.softmax(scores.baseAddress!, count: experts)
      routing.appendTopK(
        of: UnsafeBufferPointer(scores), normalized: description.normalizeTopK)
    }
    forceRouting?(index, &routing)
    onRouting?(index, position, phase, routing) { buffers.routerRows[$0][$1] }
    try runtime.executeInput(
      layer: index, routing: routing, into: buffers.branch, phase: phase
    ) {
      predict(layer: index + 1, distance: 1, by: predictor)
      // Farther is less sure: only so that the disk is not idle.
      if runtime.diskIsIdle { predict(layer: index + 2, distance: 2, by: predictor) }
    }
    kernels.add(buffers.branch, to: buffers.residual, count: count * description.hiddenSize)
  }

  private func normalize(
    _ rows: UnsafePointer<Float>, weight: UnsafePointer<Float>,
    into out: UnsafeMutablePointer<Float>, count: Int
  ) {
    let hidden = description.hiddenSize
    for token in 0..<count {
      kernels.rmsNorm(
        rows + token * hidden, weight: weight, into: out + token * hidden, count: hidden,
        epsilon: description.rmsEpsilon)
    }
  }

  // MARK: - Output head

  /// Computes the logits of `tokens` a few at a time, so that their memory does not grow with the
  /// chunk.
  private func project(
    tokens: Range<Int>, _ body: (Int, UnsafeMutableBufferPointer<Float>) -> Void
  ) {
    let input = buffers.input
    var first = tokens.lowerBound
    while first < tokens.upperBound {
      let count = min(TransformerBuffers.logitRowCount, tokens.upperBound - first)
      normalize(
        buffers.residual + first * description.hiddenSize, weight: outputNorm, into: input.floats,
        count: count)
      input.quantize(0..<count, kernels: kernels, pool: pool)
      append(head, of: input, into: buffers.logitRows, count: count)
      batch.run()
      for row in 0..<count {
        body(
          first + row,
          UnsafeMutableBufferPointer(start: buffers.logitRows[row], count: head.rows))
      }
      first += count
    }
  }
}

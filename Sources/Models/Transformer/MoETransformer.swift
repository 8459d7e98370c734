package import Checkpoints
package import ExpertRuntime
package import Routing
package import Tensors

/// The decoder of every `Architecture`.
///
/// Per layer: norm, attention or a recurrent state, residual; norm, router, experts and the shared expert, or in
/// the first layers of some one network, residual. What the architectures differ in is flags and numbers of
/// `ModelDescription`: biases, norms and clamps of projections, which values are rotated together, how
/// scores become a choice of experts, scales.
///
/// Layers with experts have numbers of their own, from 0, in all that has to do with routing.
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

  package let description: ModelDescription
  package let cache: KeyValueCache
  /// What layers without attention keep of the sequence.
  let recurrent: RecurrentState?
  package let runtime: ExpertRuntime
  /// Changes the routing of every layer before its experts are executed, as a live replay does.
  package var forceRouting: ((_ layer: Int, _ routing: inout Routing) -> Void)?
  /// Gives predicted scores in the place of `predictor`'s, [experts]; nil where nothing is predicted. With
  /// forced routing there are no others.
  package var forcePrediction: ((_ layer: Int, _ distance: Int) -> [Float]?)?
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
  let layers: [TransformerLayer]
  let buffers: TransformerBuffers
  let rotary: RotaryEmbedding
  let weights: DenseWeights
  private let embedding: Matrix
  private let head: Matrix
  private let headBias: UnsafePointer<Float>?
  private let outputNorm: Norm
  let batch: ProductBatch
  var routing: Routing

  /// - Parameter buffers: scratch for `runtime.tokenCapacity` tokens and `cache.capacity` positions.
  package init(
    description: ModelDescription, weights: DenseWeights, cache: KeyValueCache,
    recurrent: RecurrentState?, runtime: ExpertRuntime, buffers: TransformerBuffers,
    pool: WorkerPool, kernels: Kernels
  ) {
    self.description = description
    self.weights = weights
    self.cache = cache
    self.recurrent = recurrent
    self.runtime = runtime
    self.buffers = buffers
    self.pool = pool
    self.kernels = kernels
    layers = (0..<description.layerCount).map {
      TransformerLayer($0, of: description, weights: weights)
    }
    embedding = weights.matrix("token_embd.weight")
    head = description.tiedOutput ? embedding : weights.matrix("output.weight")
    headBias = description.hasHeadBias ? weights.vector("output.bias") : nil
    outputNorm = Norm("output_norm", weights: weights)
    rotary = RotaryEmbedding(
      dimension: description.rotaryDimension, base: description.ropeBase,
      scaling: description.ropeScaling, context: cache.capacity, vector: weights.vector)
    batch = ProductBatch(
      kernels: kernels, pool: pool,
      capacity: description.latent == nil ? 4 : max(4, description.headCount))
    runtime.activation = description.activation
    if description.hasExpertBiases {
      runtime.biases = (description.denseLayerCount..<description.layerCount).map { layer in
        func bias(_ part: String) -> UnsafePointer<Float> {
          weights.vector("blk.\(layer).ffn_\(part)_exps.bias")
        }
        return ExpertBiases(gate: bias("gate"), up: bias("up"), down: bias("down"))
      }
    }
    if let block = description.weightBlock {
      runtime.scales = (description.denseLayerCount..<description.layerCount).map {
        Self.scales(ofLayer: $0, block, description, weights)
      }
    }
    routing = Routing(
      topK: description.expertsPerToken, tokenCapacity: runtime.tokenCapacity)
  }

  /// The scales of a layer's experts.
  private static func scales(
    ofLayer layer: Int, _ block: WeightBlock, _ model: ModelDescription, _ weights: DenseWeights
  ) -> ExpertScales {
    let inner = (columns: model.hiddenSize, rows: model.expertFeedForwardSize)
    let sizes = [inner, inner, (columns: inner.rows, rows: inner.columns)]
    return ExpertScales(
      first: zip(["gate", "up", "down"], sizes).map { part, size in
        let name = "blk.\(layer).ffn_\(part)_exps.scale"
        return weights.contains(name)
          ? block.scales(weights.vector(name), columns: size.columns) : nil
      }, counts: sizes.map { block.scaleCount(columns: $0.columns, rows: $0.rows) })
  }

  /// Runs `tokens` through the model, from `position` on; keys and values before it are taken from
  /// the cache.
  ///
  /// - Parameters:
  ///   - tokens: at most `runtime.tokenCapacity` ids below the vocabulary size.
  ///   - position: at most the number of tokens that have been run; with a recurrent state that number, or 0,
  ///     where a sequence begins.
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
    let pairs = description.rotaryDimension / 2
    pool.expectsLoops = true
    defer { pool.expectsLoops = false }
    if position == 0 { predictor?.beginSequence() }
    recurrent?.begin(at: position)
    for index in 0..<count {
      embed(tokens[index], into: buffers.residual + index * hidden)
      rotary.fill(
        cosines: buffers.cosines + index * pairs, sines: buffers.sines + index * pairs,
        position: position + index)
    }
    let predictor =
      phase == .decode && count == 1 && (forceRouting == nil || forcePrediction != nil)
        && runtime.wantsPredictions
      ? predictor : nil
    for block in 0..<description.denseLayerCount {
      attend(block: block, position: position, count: count)
      runDense(block: block, count: count)
    }
    for layer in 0..<description.expertLayerCount {
      tell(.beforeAttention, layer, buffers.residual, count * hidden)
      predictor?.note(beforeAttentionOf: layer, state: buffers.residual)
      predict(layer: layer, distance: 0, by: predictor)
      attend(block: description.denseLayerCount + layer, position: position, count: count)
      tell(.atRouter, layer, buffers.residual, count * hidden)
      if let predictor {
        let start = monotonicNanoseconds()
        predictor.note(atRouterOf: layer, state: buffers.residual)
        runtime.notePrediction(since: start)
      }
      try routeAndMix(
        layer: layer, position: position, count: count, phase: phase, predictor: predictor)
    }
    recurrent?.commit(position + count)
    switch logits {
    case .none: break
    case .last: project(tokens: (count - 1)..<count, body)
    case .all: project(tokens: 0..<count, body)
    }
  }

  /// Lets the next pass begin at `position`, whatever has been run before: it takes as long as if all tokens
  /// before it had been, but what it says is noise.
  package func pretend(at position: Int) { recurrent?.pretend(position) }

  private func embed(_ token: Int32, into row: UnsafeMutablePointer<Float>) {
    precondition((0..<embedding.rows).contains(Int(token)), "token id out of range")
    let rowByteCount = embedding.type.byteCount(valueCount: embedding.columns)!
    kernels.dequantize(
      type: embedding.type, blocks: embedding.bytes + Int(token) * rowByteCount,
      count: embedding.columns, into: row)
    if description.embeddingScale != 1 {
      scale(row, by: description.embeddingScale, count: embedding.columns)
    }
  }

  /// The weights of a layer with experts.
  func expertLayer(_ layer: Int) -> TransformerLayer {
    layers[description.denseLayerCount + layer]
  }

  // MARK: - Attention

  private func attend(block: Int, position: Int, count: Int) {
    let layer = layers[block]
    let hidden = description.hiddenSize
    let input = buffers.input
    normalize(buffers.residual, layer.attentionNorm, into: input.floats, count: count)
    input.quantize(0..<count, kernels: kernels, pool: pool)
    var attended = buffers.mixed
    switch layer.attention {
    case .grouped(let projections):
      append(projections.query, of: input, into: buffers.queryRows, count: count)
      append(projections.key, of: input, into: buffers.keyRows, count: count)
      append(projections.value, of: input, into: buffers.valueRows, count: count)
      batch.run()
      runtime.advanceReads()
      let heads = AttentionLoop(
        model: self, projections: projections, layer: block, position: position, tokenCount: count)
      pool.run(heads.storing, chunkCount: count)
      pool.run(heads, chunkCount: heads.chunkCount)
    case .latent(let projections):
      attend(projections, block: block, position: position, count: count)
    case .linear(let projections):
      attended = attend(projections, block: block, count: count)
    }
    runtime.advanceReads()
    attended.quantize(0..<count, kernels: kernels, pool: pool)
    append(
      layer.output, bias: layer.outputBias, of: attended, into: buffers.branchRows,
      count: count)
    batch.run()
    scaleBranch(buffers.branch, count: count * hidden)
    kernels.add(buffers.branch, to: buffers.residual, count: count * hidden)
  }

  /// Puts one product on the batch.
  func append(
    _ matrix: Matrix, bias: UnsafePointer<Float>? = nil, of input: ActivationRows,
    into rows: TransformerBuffers.Rows, count: Int
  ) {
    batch.append(
      Product(
        matrix, activations: input.rows(for: matrix.type), outputs: UnsafePointer(rows),
        bias: bias, tokenCount: count))
  }

  // MARK: - Prediction

  /// Reads ahead what `layer` is predicted to need, if it is predicted at `distance`.
  private func predict(layer: Int, distance: Int, by predictor: RouterPredictor?) {
    guard let predictor, predictor.predicts(layer: layer, distance: distance) else { return }
    let start = monotonicNanoseconds()
    if let forcePrediction {
      guard let scores = forcePrediction(layer, distance) else { return }
      return runtime.predict(layer: layer, distance: distance, scores: scores.span, since: start)
    }
    let scores = choiceScores(of: layer, distance: distance, by: predictor)
    runtime.predict(layer: layer, distance: distance, scores: scores.span, since: start)
  }

  /// What the router of `layer` is predicted to give each expert, by what `predictor` was told last.
  package func predictedScores(
    of layer: Int, distance: Int, by predictor: RouterPredictor
  ) -> [Float] {
    var scores = Array(choiceScores(of: layer, distance: distance, by: predictor))
    scores.withUnsafeMutableBufferPointer {
      kernels.softmax($0.baseAddress!, count: $0.count)
    }
    return scores
  }

  /// The predicted scores of `layer`, in the order in which it chooses.
  private func choiceScores(
    of layer: Int, distance: Int, by predictor: RouterPredictor
  ) -> UnsafeMutableBufferPointer<Float> {
    let weights = expertLayer(layer)
    let scores = predictor.predict(
      layer: layer, distance: distance, norm: weights.feedForwardNorm,
      router: weights.mixture.router)
    // Heads are fitted to scores with it.
    if predictor.kind != .fitted, let bias = weights.mixture.routerBias {
      kernels.add(bias, to: scores.baseAddress!, count: scores.count)
    }
    makeChoiceScores(of: scores, weights.mixture)
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
    let layer = expertLayer(index)
    let mixture = layer.mixture
    let (experts, hidden) = (description.expertCount, description.hiddenSize)
    let input = runtime.inputRows
    normalize(buffers.residual, layer.feedForwardNorm, into: input.floats, count: count)
    if mixture.router.type.wantsQuantizedActivations {
      input.quantize(0..<count, kernels: kernels, pool: pool)
    }
    append(
      mixture.router, bias: mixture.routerBias, of: input, into: buffers.routerRows, count: count)
    batch.run()
    runtime.advanceReads()
    tell(.scores, index, buffers.router, count * experts)
    self.predictor?.note(scoresOf: index, buffers.routerRows[count - 1])
    routing.removeAll()
    for token in 0..<count {
      choose(
        mixture, of: UnsafeMutableBufferPointer(start: buffers.routerRows[token], count: experts))
    }
    forceRouting?(index, &routing)
    onRouting?(index, position, phase, routing) { buffers.routerRows[$0][$1] }
    try runtime.executeInput(
      layer: index, routing: routing, into: buffers.branch, phase: phase
    ) {
      // The disk works meanwhile.
      runShared(mixture, count: count)
      predict(layer: index + 1, distance: 1, by: predictor)
      // Farther is less sure: only so that the disk is not idle.
      if runtime.diskIsIdle { predict(layer: index + 2, distance: 2, by: predictor) }
    }
    if mixture.shared != nil {
      kernels.add(buffers.shared, to: buffers.branch, count: count * hidden)
    }
    scaleBranch(buffers.branch, count: count * hidden)
    kernels.add(buffers.branch, to: buffers.residual, count: count * hidden)
  }

  /// What follows attention in a layer without experts.
  private func runDense(block: Int, count: Int) {
    let layer = layers[block]
    guard case .dense(let network) = layer.feedForward else {
      preconditionFailure("a layer with experts")
    }
    let input = buffers.input
    normalize(buffers.residual, layer.feedForwardNorm, into: input.floats, count: count)
    input.quantize(0..<count, kernels: kernels, pool: pool)
    run(
      network, of: input, buffers: buffers.denseNetwork, into: buffers.branchRows, count: count)
    scaleBranch(buffers.branch, count: count * description.hiddenSize)
    kernels.add(buffers.branch, to: buffers.residual, count: count * description.hiddenSize)
  }

  private func normalize(
    _ rows: UnsafePointer<Float>, _ norm: Norm, into out: UnsafeMutablePointer<Float>, count: Int
  ) {
    let hidden = description.hiddenSize
    for token in 0..<count {
      norm.apply(
        rows + token * hidden, into: out + token * hidden, count: hidden,
        epsilon: description.rmsEpsilon, kernels: kernels)
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
        buffers.residual + first * description.hiddenSize, outputNorm, into: input.floats,
        count: count)
      input.quantize(0..<count, kernels: kernels, pool: pool)
      append(head, bias: headBias, of: input, into: buffers.logitRows, count: count)
      batch.run()
      for row in 0..<count {
        if description.logitScale != 1 {
          scale(buffers.logitRows[row], by: 1 / description.logitScale, count: head.rows)
        }
        body(
          first + row,
          UnsafeMutableBufferPointer(start: buffers.logitRows[row], count: head.rows))
      }
      first += count
    }
  }
}

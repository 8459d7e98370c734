internal import Checkpoints
internal import ExpertRuntime
internal import Glibc
internal import Routing
internal import Tensors

extension MoETransformer {
  /// Computes `network` for the first `count` rows of `input`, into `rows`.
  ///
  /// - Parameter input: rows whose quantised form, where the weights want it, is made.
  func run(
    _ network: FeedForwardNetwork, of input: ActivationRows, buffers: FeedForwardBuffers,
    into rows: TransformerBuffers.Rows, count: Int
  ) {
    batch.append(
      Product(
        network.gate, activations: input.rows(for: network.gate.type),
        outputs: UnsafePointer(buffers.gateRows), tokenCount: count))
    batch.run()
    batch.append(
      Product(
        network.up, activations: input.rows(for: network.up.type),
        outputs: UnsafePointer(buffers.innerRows), gates: UnsafePointer(buffers.gateRows),
        tokenCount: count))
    batch.run()
    buffers.inner.quantize(0..<count, kernels: kernels, pool: pool)
    batch.append(
      Product(
        network.down, activations: buffers.inner.rows(for: network.down.type),
        outputs: UnsafePointer(rows), tokenCount: count))
    batch.run()
  }

  /// Computes the expert that every token is sent to, from the runtime's input, into `shared`.
  func runShared(_ mixture: TransformerLayer.Mixture, count: Int) {
    guard let network = mixture.shared else { return }
    let input = runtime.inputRows
    if network.gate.type.wantsQuantizedActivations || network.up.type.wantsQuantizedActivations {
      input.quantize(0..<count, kernels: kernels, pool: pool)
    }
    run(
      network, of: input, buffers: buffers.sharedNetwork, into: buffers.sharedRows, count: count)
    guard let gate = mixture.sharedGate else { return }
    let hidden = description.hiddenSize
    for token in 0..<count {
      var score: Float = 0
      let row = input.row(token)
      for index in 0..<hidden { score += gate[index] * row[index] }
      scale(buffers.sharedRows[token], by: sigmoid(score), count: hidden)
    }
  }

  // MARK: - Routing

  /// Makes probabilities of a token's scores, [experts], in place, and appends its experts to the routing.
  func choose(_ mixture: TransformerLayer.Mixture, of scores: UnsafeMutableBufferPointer<Float>) {
    let rule = description.router
    if case .sparseMixer(let threshold) = rule.gating {
      routing.appendSparseMixer(of: UnsafeBufferPointer(scores), threshold: threshold)
      return makeProbabilities(of: scores)
    }
    makeProbabilities(of: scores)
    guard mixture.correction != nil || rule.groups > 1 else {
      routing.appendTopK(
        of: UnsafeBufferPointer(scores), normalized: rule.normalizesTopK, scale: rule.scale)
      return
    }
    let choice = buffers.choice
    for expert in scores.indices { choice[expert] = scores[expert] }
    restrict(choice, mixture)
    routing.appendTopK(
      of: UnsafeBufferPointer(scores), choosing: UnsafeBufferPointer(choice),
      normalized: rule.normalizesTopK, scale: rule.scale)
  }

  /// Brings scores of a layer's router, its bias included, in place into the order in which it chooses.
  func makeChoiceScores(
    of scores: UnsafeMutableBufferPointer<Float>, _ mixture: TransformerLayer.Mixture
  ) {
    guard mixture.correction != nil || description.router.groups > 1 else { return }
    makeProbabilities(of: scores)
    restrict(scores, mixture)
  }

  /// Makes of probabilities, in place, what is compared to choose experts: corrected, and without those of the
  /// groups that are not the best.
  private func restrict(
    _ choice: UnsafeMutableBufferPointer<Float>, _ mixture: TransformerLayer.Mixture
  ) {
    if let correction = mixture.correction {
      kernels.add(correction, to: choice.baseAddress!, count: choice.count)
    }
    let rule = description.router
    guard rule.usedGroups < rule.groups else { return }
    let size = choice.count / rule.groups
    func score(_ group: Int) -> Float {
      var best = (-Float.infinity, -Float.infinity)
      for value in choice[group * size..<(group + 1) * size] {
        if value > best.0 { best = (value, best.0) } else { best.1 = max(best.1, value) }
      }
      return rule.gating == .sigmoid ? best.0 + best.1 : best.0
    }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: rule.groups) { scores in
      for group in 0..<rule.groups { scores.initializeElement(at: group, to: score(group)) }
      for group in 0..<rule.groups {
        // Of groups that are as good the earlier one goes first.
        let better = scores.indices.count {
          scores[$0] > scores[group] || (scores[$0] == scores[group] && $0 < group)
        }
        guard better >= rule.usedGroups else { continue }
        for expert in group * size..<(group + 1) * size { choice[expert] = -.infinity }
      }
    }
  }

  private func makeProbabilities(of scores: UnsafeMutableBufferPointer<Float>) {
    switch description.router.gating {
    case .softmax, .sparseMixer: kernels.softmax(scores.baseAddress!, count: scores.count)
    case .sigmoid: for expert in scores.indices { scores[expert] = sigmoid(scores[expert]) }
    }
  }

  // MARK: - Scales

  /// Multiplies what a layer's half adds to the residual stream, where the architecture does.
  func scaleBranch(_ row: UnsafeMutablePointer<Float>, count: Int) {
    guard description.residualScale != 1 else { return }
    scale(row, by: description.residualScale, count: count)
  }

  func scale(_ row: UnsafeMutablePointer<Float>, by factor: Float, count: Int) {
    for index in 0..<count { row[index] *= factor }
  }
}

private func sigmoid(_ x: Float) -> Float { 1 / (1 + exp(-x)) }

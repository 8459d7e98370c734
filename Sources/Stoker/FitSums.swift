internal import Checkpoints
internal import Models
internal import Tensors

/// One head, being fitted or done.
struct FittedHead {
  let layer: Int
  let distance: Int
  /// [hidden + experts + 1, experts]; the last row is the bias.
  var weights: [Float] = []
  /// The mean squared errors on what was held out.
  var gateReuseError = 0.0
  var error = 0.0
  /// What the head names of what was held out, before that was fitted to as well, and what gate reuse does.
  var found = FoundExperts()
  var gateReuseFound = FoundExperts()
}

/// How many of the experts that a router chose a prediction names as well, expert by expert.
struct FoundExperts {
  /// [experts of one layer or of several].
  private var chosen: [Int] = []
  private var found: [Int] = []

  mutating func note(chosen experts: ArraySlice<Int>, named: ArraySlice<Int>, of count: Int) {
    if chosen.isEmpty {
      (chosen, found) = (Array(repeating: 0, count: count), Array(repeating: 0, count: count))
    }
    for expert in experts {
      chosen[expert] += 1
      if named.contains(expert) { found[expert] += 1 }
    }
  }

  /// Adds the experts of another layer.
  mutating func append(_ other: Self) {
    chosen += other.chosen
    found += other.found
  }

  /// What it is as a recall; nil if nothing was chosen.
  var recall: PredictionRecall? {
    let used = chosen.indices.filter { chosen[$0] > 0 }
    guard !used.isEmpty else { return nil }
    let all = Double(found.reduce(0, +)) / Double(chosen.reduce(0, +))
    let each = used.reduce(0.0) { $0 + Double(found[$1]) / Double(chosen[$1]) }
    return PredictionRecall(ofChoices: all, ofExperts: each / Double(used.count))
  }
}

/// The sums of a group of heads while the text passes through the model.
final class FitSums {
  /// Ridges that are tried, relative to the inputs' mean square.
  private static let ridges = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]

  var isHeldOut = false
  private let model: ModelDescription
  private let heads: [FittedHead]
  private var fitted: [NormalEquations]
  private var heldOut: [NormalEquations]
  /// The first of what is held out, row by row, to judge heads by what they name.
  private var judged: [(inputs: [Float], scores: [Float])]
  /// States of the window divided by their root mean squares, by layer, where a head needs them.
  private var beforeAttention: [Int: [Float]] = [:]
  private var atRouter: [Int: [Float]] = [:]

  init(_ heads: [FittedHead], model: ModelDescription) {
    self.heads = heads
    self.model = model
    let empty = NormalEquations(
      inputs: model.hiddenSize + model.expertCount + 1, outputs: model.expertCount)
    fitted = Array(repeating: empty, count: heads.count)
    heldOut = fitted
    judged = Array(repeating: ([], []), count: heads.count)
  }

  /// Tokens that heads are judged by, at the most.
  static let judgedTokens = 512

  /// Takes what the model tells at a point of a layer, one row for every token of the window.
  func take(_ point: MoETransformer.StatePoint, layer: Int, rows: [Float]) {
    switch point {
    case .beforeAttention:
      guard heads.contains(where: { $0.distance == 0 && $0.layer == layer }) else { return }
      beforeAttention[layer] = normalized(rows)
    case .atRouter:
      guard heads.contains(where: { $0.distance > 0 && $0.layer - $0.distance == layer }) else {
        return
      }
      atRouter[layer] = normalized(rows)
    case .scores:
      for (index, head) in heads.enumerated() where head.layer == layer {
        let states = head.distance == 0 ? beforeAttention[layer] : atRouter[layer - head.distance]
        guard let states else { continue }
        let inputs = inputs(states: states, scores: rows)
        if isHeldOut {
          heldOut[index].add(x: inputs, y: rows)
          if judged[index].scores.count < Self.judgedTokens * model.expertCount {
            judged[index].inputs += inputs
            judged[index].scores += rows
          }
        } else {
          fitted[index].add(x: inputs, y: rows)
        }
      }
    }
  }

  private func normalized(_ rows: [Float]) -> [Float] {
    var result = rows
    for first in stride(from: 0, to: rows.count, by: model.hiddenSize) {
      var squares: Float = 0
      for value in rows[first..<first + model.hiddenSize] { squares += value * value }
      let scale = 1 / (squares / Float(model.hiddenSize) + model.rmsEpsilon).squareRoot()
      for index in first..<first + model.hiddenSize { result[index] *= scale }
    }
    return result
  }

  /// A row for every token: its state, the scores of the token before, and 1 for the bias.
  private func inputs(states: [Float], scores: [Float]) -> [Float] {
    let (hidden, experts) = (model.hiddenSize, model.expertCount)
    let tokens = states.count / hidden
    var rows: [Float] = []
    rows.reserveCapacity(tokens * (hidden + experts + 1))
    for token in 0..<tokens {
      rows += states[token * hidden..<(token + 1) * hidden]
      if token == 0 {
        rows += repeatElement(0, count: experts)
      } else {
        rows += scores[(token - 1) * experts..<token * experts]
      }
      rows.append(1)
    }
    return rows
  }

  /// Solves head `index`; one that is no better than gate reuse on what was held out is gate reuse.
  ///
  /// - Parameters:
  ///   - router: with the norm before it folded in, [experts][hidden].
  ///   - bias: the router's, [experts]; nil if it has none.
  ///   - order: brings a token's scores into the order in which the layer chooses.
  func solve(
    _ index: Int, router: [[Float]], bias: [Float]?,
    order: (UnsafeMutableBufferPointer<Float>) -> Void
  ) -> FittedHead {
    var head = heads[index]
    let prior = prior(router, bias: bias)
    head.weights = prior
    head.gateReuseFound = found(index, by: prior, order)
    head.found = head.gateReuseFound
    let reuse = heldOut[index].meanSquaredError(of: prior)
    var best: (error: Double, ridge: Double, weights: [Float])?
    for ridge in Self.ridges {
      guard let weights = fitted[index].solve(ridge: ridge, prior: prior) else { continue }
      let error = heldOut[index].meanSquaredError(of: weights)
      if error < best?.error ?? reuse { best = (error, ridge, weights) }
    }
    head.gateReuseError = reuse
    head.error = best?.error ?? reuse
    if let best {
      head.found = found(index, by: best.weights, order)
      let all = fitted[index].merged(heldOut[index])
      head.weights = all.solve(ridge: best.ridge, prior: prior) ?? prior
    }
    return head
  }

  /// What `weights` name of the experts that were chosen of what is held out.
  private func found(
    _ index: Int, by weights: [Float], _ order: (UnsafeMutableBufferPointer<Float>) -> Void
  ) -> FoundExperts {
    let (count, topK) = (model.expertCount, model.expertsPerToken)
    var (actual, predicted) = (
      judged[index].scores, fitted[index].products(judged[index].inputs, weights)
    )
    /// The experts of a token, the likeliest first, as far as they are chosen.
    func top(_ scores: inout [Float], _ token: Int) -> ArraySlice<Int> {
      scores.withUnsafeMutableBufferPointer {
        let row = UnsafeMutableBufferPointer(rebasing: $0[token * count..<(token + 1) * count])
        order(row)
        return row.indices.sorted { (row[$1], $0) < (row[$0], $1) }.prefix(topK)
      }
    }
    var result = FoundExperts()
    for token in 0..<actual.count / count {
      result.note(chosen: top(&actual, token), named: top(&predicted, token), of: count)
    }
    return result
  }

  /// Gate reuse, in the shape of a head's weights.
  private func prior(_ router: [[Float]], bias: [Float]?) -> [Float] {
    let columns = model.hiddenSize + model.expertCount
    var weights = [Float](repeating: 0, count: (columns + 1) * model.expertCount)
    if let bias { weights.replaceSubrange((columns * model.expertCount)..., with: bias) }
    for (expert, row) in router.enumerated() {
      for (column, value) in row.enumerated() {
        weights[column * model.expertCount + expert] = value
      }
    }
    return weights
  }
}

internal import Glibc

/// One expert of one layer.
public struct ExpertID: Hashable, Sendable {
  /// The layer, counted from 0 over all layers of the model.
  public var layer: Int
  /// The expert, counted from 0 within its layer.
  public var expert: Int

  /// Names expert `expert` of layer `layer`.
  public init(layer: Int, expert: Int) {
    self.layer = layer
    self.expert = expert
  }
}

extension ExpertID: CustomStringConvertible {
  public var description: String { "expert \(expert) of layer \(layer)" }
}

/// The routing of a run of tokens at one layer: for each token its top-k experts, in descending
/// order of score, and their gate weights.
///
/// Storage is kept over `removeAll`, so that one value serves every layer of every step without
/// allocating.
public struct Routing: Sendable, Equatable {
  /// The number of experts of a token.
  public let topK: Int
  /// Expert ids, [tokens, topK].
  public private(set) var experts: [Int32]
  /// Gate weights, [tokens, topK].
  public private(set) var weights: [Float]

  /// An empty routing with room for `tokenCapacity` tokens of `topK` experts each.
  public init(topK: Int, tokenCapacity: Int = 1) {
    precondition(topK > 0, "top-k must be positive")
    self.topK = topK
    experts = []
    weights = []
    experts.reserveCapacity(topK * tokenCapacity)
    weights.reserveCapacity(topK * tokenCapacity)
  }

  /// The number of tokens routed.
  public var tokenCount: Int { experts.count / topK }

  /// Appends one expert of the token being routed; a token is complete after `topK` of them.
  public mutating func append(expert: Int, weight: Float) {
    experts.append(Int32(expert))
    weights.append(weight)
  }

  /// Forgets every token and keeps the storage.
  public mutating func removeAll() {
    experts.removeAll(keepingCapacity: true)
    weights.removeAll(keepingCapacity: true)
  }
}

extension Routing {
  /// Routes one token to the `topK` most probable experts: the router of OLMoE (arXiv 2409.02060,
  /// section 2) and Qwen3-MoE (arXiv 2505.09388), and with `choosing` that of DeepSeek-V3 (arXiv 2412.19437,
  /// section 2.1.2).
  ///
  /// Equal probabilities go to the lower expert id. With `normalized`, the weights of the chosen
  /// experts are divided by their sum.
  /// - Parameters:
  ///   - probabilities: of the router logits, [experts]; left unchanged. The weights are these.
  ///   - choosing: what is compared in their place to choose, [experts]; nil: they are.
  ///   - scale: what the weights are multiplied by at last.
  public mutating func appendTopK(
    of probabilities: UnsafeBufferPointer<Float>, choosing: UnsafeBufferPointer<Float>? = nil,
    normalized: Bool, scale: Float = 1
  ) {
    precondition(probabilities.count >= topK, "fewer experts than top-k")
    let first = experts.count
    let compared = choosing ?? probabilities
    for expert in compared.indices {
      insert(expert: expert, weight: compared[expert], first: first)
    }
    if choosing != nil {
      for i in first..<weights.count { weights[i] = probabilities[Int(experts[i])] }
    }
    if normalized {
      var sum: Float = 0
      for i in first..<weights.count { sum += weights[i] }
      for i in first..<weights.count { weights[i] /= sum }
    }
    guard scale != 1 else { return }
    for i in first..<weights.count { weights[i] *= scale }
  }

  /// Routes one token to `topK` experts chosen one after the other: the router of Phi-3.5-MoE (SparseMixer, arXiv
  /// 2409.12136, as it is used after training).
  ///
  /// Each time the expert of the highest score is taken, and weighed by its share in the softmax over it and
  /// those whose distance to it is at most `threshold` of the larger of it and their own size, without experts
  /// that were taken before. Equal scores go to the lower expert id.
  /// - Parameter scores: of the router, [experts]; left unchanged.
  public mutating func appendSparseMixer(of scores: UnsafeBufferPointer<Float>, threshold: Float) {
    precondition(scores.count >= topK, "fewer experts than top-k")
    let first = experts.count
    for _ in 0..<topK {
      var best = -1
      for expert in scores.indices
      where !experts[first...].contains(Int32(expert))
        && (best < 0 || scores[expert] > scores[best])
      {
        best = expert
      }
      let highest = scores[best]
      var sum: Float = 0
      for expert in scores.indices where !experts[first...].contains(Int32(expert)) {
        let distance = (highest - scores[expert]) / max(abs(scores[expert]), highest)
        if expert == best || !(distance > threshold) { sum += exp(scores[expert] - highest) }
      }
      append(expert: best, weight: 1 / sum)
    }
  }

  /// Keeps the token that starts at `first` sorted by descending weight and at most `topK` long.
  private mutating func insert(expert: Int, weight: Float, first: Int) {
    if experts.count - first == topK {
      // A NaN never displaces a number; ties keep the earlier expert.
      guard weight > weights[weights.count - 1] else { return }
      experts.removeLast()
      weights.removeLast()
    }
    var position = experts.count
    while position > first, weight > weights[position - 1] { position -= 1 }
    experts.insert(Int32(expert), at: position)
    weights.insert(weight, at: position)
  }
}

/// The two phases of generation.
public enum Phase: String, Sendable, Codable {
  /// The prompt, many tokens at a time.
  case prefill
  /// One token at a time.
  case decode
}

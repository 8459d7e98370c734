internal import Foundation
internal import Routing

/// How many experts of a layer tokens touch that pass through it together.
struct TouchedExperts {
  /// Different experts of a mean layer that the first so many tokens of the trace use.
  private let counts: [Double]
  /// The probability that a token uses each expert of each layer, [layers * experts].
  let shares: [Double]
  private let layerCount: Int

  /// Tokens of prompts from which on they alone tell what prompts touch.
  private static let enoughPromptTokens = 16

  /// - Parameter trace: consecutive tokens. What a model is given is more alike than what it makes up, so
  ///   where there are prompts, they count alone, unless `onlyPrompts` is false.
  init(_ trace: RoutingTrace, onlyPrompts: Bool = true) {
    let geometry = trace.header.geometry
    layerCount = geometry.layerCount
    let prompts = (0..<trace.eventCount).reduce(0) {
      $0
        + (trace.phase(of: $1) == .prefill && trace.layer(of: $1) == 0
          ? trace.accessCount(of: $1) : 0)
    }
    let countsAll = !onlyPrompts || prompts < Self.enoughPromptTokens * geometry.topK
    var uses = Array(repeating: 0.0, count: geometry.layerCount * geometry.expertCount)
    var tokens = Array(repeating: 0, count: geometry.layerCount)
    /// Experts that are used for the first time by a token, over all layers, [tokens].
    var firsts: [Double] = []
    for index in 0..<trace.eventCount where countsAll || trace.phase(of: index) == .prefill {
      let layer = trace.layer(of: index)
      for (place, expert) in trace.experts(of: index).enumerated() {
        let token = tokens[layer] + place / geometry.topK
        while firsts.count <= token { firsts.append(0) }
        let expert = layer * geometry.expertCount + Int(expert)
        if uses[expert] == 0 { firsts[token] += 1 }
        uses[expert] += 1
      }
      tokens[layer] += trace.accessCount(of: index) / geometry.topK
    }
    var sum = 0.0
    counts = firsts.map { first in
      sum += first
      return sum / Double(geometry.layerCount)
    }
    shares = uses.indices.map {
      min(1, uses[$0] / Double(max(1, tokens[$0 / geometry.expertCount])))
    }
  }

  /// The experts of a mean layer that `tokens` tokens touch. Beyond the trace's own tokens it grows as it
  /// would if each were drawn by itself.
  func count(tokens: Int) -> Double {
    guard !counts.isEmpty, tokens > counts.count else {
      return counts.isEmpty ? 0 : counts[max(0, tokens - 1)]
    }
    return counts[counts.count - 1] * drawn(tokens) / max(1, drawn(counts.count))
  }

  private func drawn(_ tokens: Int) -> Double {
    shares.reduce(0) { $0 + 1 - pow(1 - $1, Double(tokens)) } / Double(layerCount)
  }
}

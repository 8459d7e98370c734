internal import Foundation
public import Routing

/// Ours: the victim is the expert whose next use is expected farthest away.
///
/// An expert's uses are averaged over four horizons at once, from the last token to the whole past. A
/// weighted sum of the averages estimates the uses to come, each token's counting half as much as the
/// one's before; the weights are shared by all experts and learned while the policy runs, by temporal
/// differences (TD(0) with a linear function: Sutton, "Learning to predict by the methods of temporal
/// differences", Machine Learning 3, 1988), so there is nothing to fit beforehand. The rate of use that
/// the estimate amounts to gives the passes until the next use, and the layer its place in the pass:
/// layers come round in a fixed order, so an expert just needed is nearly a whole pass away from its
/// next turn.
///
/// Complexity: O(experts of a layer) per event, O(layers + experts of a layer) per victim. Memory is
/// linear in the number of experts.
public struct NextUsePolicy: EvictionPolicy {
  /// What is tuned.
  public struct Parameters: Hashable, Sendable {
    /// The share of the newest token in each average.
    public var rates = SIMD4<Float>(0.4, 0.1, 0.03, 0.003)
    /// The averages' weights at the beginning; they sum to 1.
    public var weights = SIMD4<Float>(0.15, 0.3, 0.35, 0.2)
    /// What a use counts one token later.
    public var discount: Float = 0.5
    /// The size of a step of learning, from 0 to 1.
    public var learningRate: Float = 0.05
    /// What the router's score counts in the averages, where it is known, and the use itself the rest: an
    /// expert that was nearly chosen is likelier to be chosen next.
    public var scoreShare: Float = 0.3
    /// The tokens that a prompt counts as, whatever its length: what follows it is mostly like it, but
    /// it must not wipe out what decoding has taught.
    public var promptWeight = 4
    /// Tokens that the averages of a layer begin with, each expert equally likely.
    public var priorTokens: Float = 8

    /// The values chosen on the traces of gpt-oss (misc) and DeepSeek-V2-Lite (intent).
    public init() {}
  }

  private let geometry: RoutingGeometry
  private let parameters: Parameters
  /// The averages of each expert.
  private var averages: [SIMD4<Float>]
  private var weights: SIMD4<Float>
  /// Tokens that each layer has seen.
  private var tokens: [Float]
  private var keys: KeyTable
  /// The share of the event's tokens that chose each expert of the layer.
  private var uses: [Float]

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry, parameters: Parameters = Parameters()) {
    self.geometry = geometry
    self.parameters = parameters
    let chance = Float(geometry.topK) / Float(geometry.expertCount)
    averages = Array(
      repeating: SIMD4(repeating: chance), count: geometry.layerCount * geometry.expertCount)
    weights = parameters.weights / (1 - parameters.discount)
    tokens = Array(repeating: parameters.priorTokens, count: geometry.layerCount)
    keys = KeyTable(geometry)
    uses = Array(repeating: 0, count: geometry.expertCount)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    learn(from: event, residents: residents, keepsAll: true)
  }

  /// What a prompt uses says what will be used after it, whether it could be kept or not.
  public mutating func observeStream(
    _ event: borrowing RoutingEvent, admitted: [Int32], residents: borrowing ResidentTable
  ) {
    learn(from: event, residents: residents, keepsAll: false)
  }

  /// What is known of its uses tells when it is needed.
  public mutating func admit(
    _ expert: Int32, layer: Int, pass: Int, residents: borrowing ResidentTable
  ) {
    let now = (weights * averages[Int(expert)]).sum()
    keys.setUnordered(nextUse(turn: nextTurn(pass: pass, layer: layer), now), of: Int(expert))
    keys.order(layer: layer)
  }

  /// When a layer comes round again, in passes.
  private func nextTurn(pass: Int, layer: Int) -> Double {
    Double(pass + 1) + Double(layer) / Double(geometry.layerCount)
  }

  /// When an expert of which so much use is to come is needed next, its layer's next turn being `turn`.
  private func nextUse(turn: Double, _ now: Float) -> Double {
    let rate = max(1e-4, min(1, now * (1 - parameters.discount)))
    return turn + Double((1 - rate) / rate)
  }

  /// - Parameter keepsAll: whether all of the event's experts become resident.
  private mutating func learn(
    from event: borrowing RoutingEvent, residents: borrowing ResidentTable, keepsAll: Bool
  ) {
    let experts = residents.experts(ofLayer: event.layer)
    // A prompt is as many tokens one after the other; a batch of sequences is one step.
    let steps = event.isPrompt ? event.tokenCount : 1
    for (place, expert) in event.experts.enumerated() {
      let count = steps > 1 ? Float(event.counts[place]) / Float(steps) : 1
      uses[Int(expert) - experts.lowerBound] = count
    }
    let scoreShare = event.scores.isEmpty ? 0 : parameters.scoreShare
    let weight = min(steps, parameters.promptWeight)
    tokens[event.layer] += Float(weight)
    let shares = shares(steps: weight, tokens: tokens[event.layer])
    let discount = parameters.discount
    let turn = nextTurn(pass: event.pass, layer: event.layer)
    var correction = SIMD4<Float>.zero
    var scale = SIMD4<Float>.zero
    for index in uses.indices {
      let expert = experts.lowerBound + index
      let used = uses[index]
      let before = averages[expert]
      let signal = scoreShare == 0 ? used : blend(used, event, index, scoreShare)
      let after = before + shares * (SIMD4(repeating: signal) - before)
      averages[expert] = after
      let now = (weights * after).sum()
      correction += (used + discount * now - (weights * before).sum()) * before
      scale += before * before
      if (keepsAll && used > 0) || residents.contains(Int32(expert)) {
        keys.setUnordered(nextUse(turn: turn, now), of: expert)
      }
      uses[index] = 0
    }
    keys.order(layer: event.layer)
    guard steps == 1 else { return }
    weights += parameters.learningRate / max(scale.sum(), .leastNormalMagnitude) * correction
  }

  /// The use of the layer's expert `index` with its score, in units of an equal share for each of the
  /// chosen, mixed in.
  private func blend(
    _ used: Float, _ event: borrowing RoutingEvent, _ index: Int, _ share: Float
  ) -> Float {
    let score = event.scores[index] / Float(event.tokenCount) * Float(geometry.topK)
    return used + share * (min(1, score) - used)
  }

  /// What the newest `steps` tokens count in each average, after `tokens` in all: at first the averages
  /// are plain ones.
  private func shares(steps: Int, tokens: Float) -> SIMD4<Float> {
    var shares = parameters.rates
    if steps > 1 {
      for index in shares.indices { shares[index] = 1 - pow(1 - shares[index], Float(steps)) }
    }
    return pointwiseMax(shares, SIMD4(repeating: Float(steps) / tokens))
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    keys.takeLargest(residents)
  }
}

public import Routing

/// Predicts routing from routing alone, without a model's hidden states.
public enum HistoryPredictorName: String, Sendable, Codable, CaseIterable {
  /// How often an expert has been used so far (static popularity: Fiddler, arXiv 2402.07033, but counted
  /// as it goes).
  case popularity
  /// The experts of the token before, then by popularity.
  case previousToken = "previous-token"
  /// How often an expert has been used after those that this token uses at the layer it is predicted
  /// from (pairwise conditional routing: ProMoE's and ExpertFlow's baselines, arXiv 2410.22134).
  case coactivation
  /// The mean of what earlier sequences used, each weighted by how like it this one has been so far: the
  /// cosine of their activation matrices (MoE-Infinity, arXiv 2401.14361, section 4).
  case activationMatrix = "activation-matrix"
}

/// A predictor over the history of routing. It is told of every layer of every token in order.
public struct HistoryPredictor: Sendable {
  /// Sequences that are remembered.
  private static let sequenceLimit = 64

  public let name: HistoryPredictorName
  private let geometry: RoutingGeometry
  private let farthest: Int
  /// Uses of each expert, [layers * experts].
  private var uses: [Float]
  /// The experts of each layer for the latest token.
  private var latest: [[Int]]
  /// Uses of an expert together with one of an earlier layer, [distance][layer][earlier][later].
  private var pairs: [[[Float]]] = []
  /// What the sequence has used so far, and what the remembered ones did, [layers * experts].
  private var matrix: [Float]
  private var remembered: [[Float]] = []
  private var matched: [Float]

  /// - Parameter farthest: the largest distance predicted at.
  public init(_ name: HistoryPredictorName, geometry: RoutingGeometry, farthest: Int) {
    self.name = name
    self.geometry = geometry
    self.farthest = farthest
    uses = Array(repeating: 0, count: geometry.layerCount * geometry.expertCount)
    latest = Array(repeating: [], count: geometry.layerCount)
    matrix = uses
    matched = uses
    if name == .coactivation {
      let square = geometry.expertCount * geometry.expertCount
      pairs = (0..<farthest).map { distance in
        (0..<geometry.layerCount).map { layer in
          Array(repeating: 0, count: layer > distance ? square : 0)
        }
      }
    }
  }

  /// A sequence begins.
  public mutating func beginSequence() {
    for layer in latest.indices { latest[layer] = [] }
    guard name == .activationMatrix else { return }
    if matrix.contains(where: { $0 > 0 }) {
      remembered.append(matrix)
      if remembered.count > Self.sequenceLimit { remembered.removeFirst() }
    }
    for index in matrix.indices { matrix[index] = 0 }
    matched = uses
  }

  /// Takes note of what the latest token uses at `layer`.
  public mutating func observe(layer: Int, experts: [Int]) {
    let first = layer * geometry.expertCount
    for expert in experts { uses[first + expert] += 1 }
    switch name {
    case .popularity: return
    case .previousToken: break
    case .coactivation:
      for distance in 1...max(1, farthest) where distance <= min(farthest, layer) {
        for earlier in latest[layer - distance] {
          for expert in experts {
            pairs[distance - 1][layer][earlier * geometry.expertCount + expert] += 1
          }
        }
      }
    case .activationMatrix:
      for expert in experts { matrix[first + expert] += 1 }
      if layer == geometry.layerCount - 1 { match() }
    }
    latest[layer] = experts
  }

  /// The scores of the experts of `layer`, predicted when `layer - distance` has been observed.
  public func scores(layer: Int, distance: Int) -> [Float] {
    let range = layer * geometry.expertCount..<(layer + 1) * geometry.expertCount
    var scores = Array(uses[range])
    let total = max(1, scores.reduce(0, +))
    for index in scores.indices { scores[index] /= total }
    switch name {
    case .popularity: break
    case .previousToken:
      for expert in latest[layer] { scores[expert] += 1 }
    case .coactivation:
      guard distance > 0, distance <= farthest else { break }
      for earlier in latest[layer - distance] {
        let row = earlier * geometry.expertCount
        let count = max(1, uses[(layer - distance) * geometry.expertCount + earlier])
        for expert in scores.indices {
          scores[expert] += pairs[distance - 1][layer][row + expert] / count
        }
      }
    case .activationMatrix:
      for (index, value) in matched[range].enumerated() { scores[index] += value }
    }
    return scores
  }

  /// Weighs the remembered sequences by their likeness to this one.
  private mutating func match() {
    for index in matched.indices { matched[index] = matrix[index] }
    let own = norm(matrix)
    guard own > 0 else { return }
    for other in remembered {
      var product: Float = 0
      for index in matrix.indices { product += matrix[index] * other[index] }
      let likeness = product / (own * norm(other))
      // The best match counts most: likenesses of texts in one language are all high.
      let weight = likeness * likeness * likeness * likeness * own / norm(other)
      for index in matched.indices { matched[index] += weight * other[index] }
    }
  }

  private func norm(_ values: [Float]) -> Float {
    var squares: Float = 0
    for value in values { squares += value * value }
    return squares.squareRoot()
  }
}

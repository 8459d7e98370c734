/// How predictions of routing fared against what the router chose.
public struct PredictionTally: Hashable, Sendable, Codable {
  /// Experts chosen, and those of them among the k and the k + m likeliest predicted.
  public var chosen = 0
  public var foundInK = 0
  public var foundInMore = 0
  /// Chosen experts that were not resident, and those of them among the k likeliest.
  public var missed = 0
  public var missedFound = 0
  /// Experts among the k likeliest that were not resident, and those of them that were chosen.
  public var predictedMissing = 0
  public var predictedRight = 0

  public init() {}

  /// The share of chosen experts among the k likeliest; nil without any.
  public var recall: Double? { share(foundInK, of: chosen) }
  /// The share of chosen experts among the k + m likeliest.
  public var recallWithMore: Double? { share(foundInMore, of: chosen) }
  /// The share of misses among the k likeliest.
  public var missRecall: Double? { share(missedFound, of: missed) }
  /// The share of the non-residents among the k likeliest that were chosen.
  public var missPrecision: Double? { share(predictedRight, of: predictedMissing) }

  private func share(_ part: Int, of whole: Int) -> Double? {
    whole > 0 ? Double(part) / Double(whole) : nil
  }

  /// Takes note of one token at one layer.
  ///
  /// - Parameters:
  ///   - scores: as predicted, [experts].
  ///   - experts: what the router chose, k of them.
  ///   - more: m.
  ///   - isResident: whether an expert of the layer was resident before.
  public mutating func note(
    scores: [Float], experts: [Int], more: Int, isResident: (Int) -> Bool
  ) {
    let order = scores.indices.sorted { (scores[$1], $0) < (scores[$0], $1) }
    let likeliest = order.prefix(experts.count)
    let withMore = order.prefix(experts.count + more)
    for expert in experts {
      chosen += 1
      if likeliest.contains(expert) { foundInK += 1 }
      if withMore.contains(expert) { foundInMore += 1 }
      guard !isResident(expert) else { continue }
      missed += 1
      if likeliest.contains(expert) { missedFound += 1 }
    }
    for expert in likeliest where !isResident(expert) {
      predictedMissing += 1
      if experts.contains(expert) { predictedRight += 1 }
    }
  }

  /// Adds the counts of `other`.
  public mutating func add(_ other: Self) {
    chosen += other.chosen
    foundInK += other.foundInK
    foundInMore += other.foundInMore
    missed += other.missed
    missedFound += other.missedFound
    predictedMissing += other.predictedMissing
    predictedRight += other.predictedRight
  }
}

/// What a trace says of itself, beside its events.
public struct TraceHeader: Hashable, Sendable {
  /// The model's name.
  public var model: String
  /// The shape of the routing.
  public var geometry: RoutingGeometry
  /// The element type of each layer's experts, [layers]; empty where unknown.
  public var elementTypes: [String]
  /// The bytes of memory that the runtime which recorded the trace gives an expert of each layer, as
  /// reads are aligned, [layers]; empty where unknown.
  public var slotByteCounts: [Int]
  /// What was processed, in words.
  public var workload: String
  /// Where the trace comes from, in words.
  public var provenance: String
  /// Whether every event has gate weights.
  public var hasWeights: Bool
  /// Whether every event has the router's scores of all experts.
  public var hasScores: Bool
  /// The lookahead distances at which decoded events may have predicted scores, ascending; empty: none
  /// has any.
  public var predictionDistances: [Int]

  /// Makes a header.
  public init(
    model: String, geometry: RoutingGeometry, elementTypes: [String] = [],
    slotByteCounts: [Int] = [],
    workload: String = "", provenance: String = "", hasWeights: Bool, hasScores: Bool = false,
    predictionDistances: [Int] = []
  ) {
    self.model = model
    self.geometry = geometry
    self.elementTypes = elementTypes
    self.slotByteCounts = slotByteCounts
    self.workload = workload
    self.provenance = provenance
    self.hasWeights = hasWeights
    self.hasScores = hasScores
    self.predictionDistances = predictionDistances
  }

  /// The bytes of an event's predictions, where it has any.
  var predictionByteCount: Int { predictionDistances.count * geometry.expertCount }
}

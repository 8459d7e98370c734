/// What one layer needs at one step: the experts that the tokens of the step are routed to.
///
/// Experts are numbered over the whole model: layer * experts of a layer + expert.
public struct RoutingEvent: Sendable {
  /// The layer, counted over the MoE layers.
  public var layer = 0
  /// The passes over the layers before this one.
  public var pass = 0
  /// The different experts needed, in the order of their last choice, token by token.
  public var experts: [Int32] = []
  /// The sum over the tokens of each expert's gate weights, as `experts`; empty where unknown.
  public var weights: [Float] = []
  /// The sum over the tokens of the router scores of every expert of the layer, [experts of a layer];
  /// empty where unknown.
  public var scores: [Float] = []
  /// The tokens routed.
  public var tokenCount = 1
  /// Whether the tokens follow each other in one prompt; else they are of different sequences.
  public var isPrompt = false
  /// How many of the tokens chose each expert, as `experts`; empty where it was one token.
  public var counts: [Int32] = []

  /// An event of nothing.
  public init() {}
}

/// The routing of the tokens that went through one layer together: one token while decoding, a chunk of
/// the prompt before.
///
/// Storage is kept over `removeAll`, so that one value serves a whole trace.
public struct TraceEvent: Hashable, Sendable {
  /// The sequence the tokens belong to.
  public var sequence: Int32 = 0
  /// Whether the tokens are of a prompt.
  public var phase = Phase.decode
  /// The position of the first token in its sequence.
  public var step: Int32 = 0
  /// The layer, counted over the MoE layers.
  public var layer = 0
  /// Expert ids within the layer, [tokens, topK].
  public var experts: [UInt16] = []
  /// Gate weights, [tokens, topK]; empty where the trace has none.
  public var weights: [Float] = []
  /// The router's scores of all experts of the layer as `TraceScore` codes them, [tokens, experts];
  /// empty where the trace has none.
  public var scores: [UInt8] = []
  /// The scores that were predicted at the header's distances, as `TraceScore` codes them, [distances,
  /// experts]; empty where there are none, as in prompts.
  public var predictions: [UInt8] = []

  /// What became of the layer's experts that were read ahead since the event before it at the layer, of what
  /// had been queued for it included; nothing where nothing did or where it is not known. A figure may be
  /// below zero: what was queued for the event before can be cancelled after it.
  public var prefetch = PrefetchLedger()

  /// An event of no tokens.
  public init() {}

  /// Forgets the tokens and keeps the storage.
  public mutating func removeAll() {
    experts.removeAll(keepingCapacity: true)
    weights.removeAll(keepingCapacity: true)
    scores.removeAll(keepingCapacity: true)
    predictions.removeAll(keepingCapacity: true)
    prefetch = PrefetchLedger()
  }
}

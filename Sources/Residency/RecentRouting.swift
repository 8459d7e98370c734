public import Routing

/// The routing of the tokens that were decoded last, as many as there is room for: what a plan replays where
/// it is given no trace.
public struct RecentRouting: Sendable {
  /// The most tokens that are kept.
  public static let capacity = 1024

  /// The shape of the routing.
  public let geometry: RoutingGeometry
  /// Expert ids within their layers, [capacity + 1, layers, topK]: a ring, with room for the token under way.
  private var experts: [UInt16]
  /// Where the token under way is, and the layers that are known of it.
  private var place = 0
  private var knownLayers = 0
  /// Tokens that are kept.
  public private(set) var tokenCount = 0

  /// The routing of nothing.
  public init(geometry: RoutingGeometry) {
    self.geometry = geometry
    experts = Array(
      repeating: 0, count: (Self.capacity + 1) * geometry.layerCount * geometry.topK)
  }

  /// Takes note of what went through a layer. Only tokens that were decoded one at a time are kept, once they
  /// have been through all layers.
  public mutating func note(_ event: borrowing RoutingEvent) {
    guard !event.isPrompt, event.tokenCount == 1, event.experts.count == geometry.topK else {
      knownLayers = 0
      return
    }
    let first = Int32(event.layer * geometry.expertCount)
    note(layer: event.layer) { UInt16(event.experts[$0] - first) }
  }

  /// Takes note of the decoded tokens of `trace`, which is of a model of the same shape.
  public mutating func note(_ trace: RoutingTrace) {
    for index in 0..<trace.eventCount {
      let ids = trace.experts(of: index)
      guard trace.phase(of: index) == .decode, ids.count == geometry.topK else { continue }
      note(layer: trace.layer(of: index)) { ids[ids.startIndex + $0] }
    }
  }

  private mutating func note(layer: Int, _ expert: (Int) -> UInt16) {
    if layer == 0 { knownLayers = 0 }
    // Else a pass was given up before.
    guard layer == knownLayers else { return }
    let start = (place * geometry.layerCount + layer) * geometry.topK
    for choice in 0..<geometry.topK { experts[start + choice] = expert(choice) }
    knownLayers += 1
    guard knownLayers == geometry.layerCount else { return }
    knownLayers = 0
    place = (place + 1) % (Self.capacity + 1)
    tokenCount = min(tokenCount + 1, Self.capacity)
  }

  /// The latest tokens as a trace: the first of them as a prompt, the others decoded.
  ///
  /// - Parameters:
  ///   - header: of a trace of this shape, without weights, scores and predictions.
  ///   - promptTokens: at most a quarter of what is kept is made a prompt of.
  ///   - chunk: tokens of a prompt that go through a layer together.
  ///   - tokens: decoded tokens, if there are as many.
  public func trace(
    _ header: TraceHeader, promptTokens: Int, chunk: Int = 512, tokens: Int
  ) -> RoutingTrace {
    let prompt = min(promptTokens, tokenCount / 4)
    let decoded = min(tokens, tokenCount - prompt)
    var trace = RoutingTrace(header: header)
    var event = TraceEvent()
    var token = 0
    while token < prompt + decoded {
      let count = token < prompt ? min(chunk, prompt - token) : 1
      event.phase = token < prompt ? .prefill : .decode
      event.step = Int32(token)
      for layer in 0..<geometry.layerCount {
        event.removeAll()
        event.layer = layer
        for one in token..<token + count {
          event.experts += experts(ofLayer: layer, before: prompt + decoded - one)
        }
        trace.append(event)
      }
      token += count
    }
    return trace
  }

  /// The experts of the token that was decoded so many before the one under way.
  private func experts(ofLayer layer: Int, before distance: Int) -> ArraySlice<UInt16> {
    let row = (place + Self.capacity + 1 - distance) % (Self.capacity + 1)
    let start = (row * geometry.layerCount + layer) * geometry.topK
    return experts[start..<start + geometry.topK]
  }
}

import Residency
import Routing
import Testing

/// The ring of the latest tokens against a plain list of all of them.
@Suite struct RecentRoutingTests {
  private static let geometry = RoutingGeometry(
    expertCount: 8, topK: 2, expertByteCounts: [10, 20, 10])
  private static let header = TraceHeader(model: "m", geometry: geometry, hasWeights: false)

  /// The experts of token `number` at a layer.
  private static func experts(_ number: Int, layer: Int) -> [UInt16] {
    let first = UInt16((number * 7 + layer * 3) % 8)
    return [first, (first + 1 + UInt16(number % 7)) % 8]
  }

  private static func event(_ number: Int, layer: Int) -> RoutingEvent {
    var event = RoutingEvent()
    event.layer = layer
    event.experts = experts(number, layer: layer).map { Int32($0) + Int32(8 * layer) }
    return event
  }

  /// What went through each layer, in order: the tokens' experts, and whether it was a prompt.
  private static func passes(_ trace: RoutingTrace) -> [(Int, Bool, [UInt16])] {
    (0..<trace.eventCount).map {
      (trace.layer(of: $0), trace.phase(of: $0) == .prefill, Array(trace.experts(of: $0)))
    }
  }

  @Test(arguments: [0, 1, 5, 63, 1023, 1024, 1025, 3000])
  func theLatestTokensAreKept(count: Int) {
    var recent = RecentRouting(geometry: Self.geometry)
    for number in 0..<count {
      // Every so often a pass is given up after a layer or two, and a prompt comes between.
      if number % 5 == 2 {
        for layer in 0..<(1 + number % 2) { recent.note(Self.event(number + 3, layer: layer)) }
      }
      if number % 11 == 4 {
        var prompt = Self.event(number, layer: 0)
        (prompt.isPrompt, prompt.tokenCount) = (true, 2)
        recent.note(prompt)
      }
      for layer in 0..<3 { recent.note(Self.event(number, layer: layer)) }
    }
    // A pass under way is not of what is kept.
    recent.note(Self.event(9, layer: 0))
    let kept = min(count, RecentRouting.capacity)
    #expect(recent.tokenCount == kept)
    for (promptTokens, tokens) in [(0, 4096), (40, 100), (300, 2000), (3, 1)] {
      let trace = recent.trace(
        Self.header, promptTokens: promptTokens, chunk: 16, tokens: tokens)
      let prompt = min(promptTokens, kept / 4)
      let decoded = min(tokens, kept - prompt)
      var expected: [(Int, Bool, [UInt16])] = []
      var token = count - prompt - decoded
      while token < count {
        let left = count - decoded - token
        let group = left > 0 ? token..<token + min(16, left) : token..<token + 1
        for layer in 0..<3 {
          expected.append((layer, left > 0, group.flatMap { Self.experts($0, layer: layer) }))
        }
        token = group.upperBound
      }
      let found = Self.passes(trace)
      #expect(found.count == expected.count)
      #expect(zip(found, expected).allSatisfy { $0 == $1 }, "\(count) \(promptTokens) \(tokens)")
    }
  }

  @Test func aTraceOfThemGoesOnWhereTheyWere() {
    var recent = RecentRouting(geometry: Self.geometry)
    for number in 0..<700 {
      for layer in 0..<3 { recent.note(Self.event(number, layer: layer)) }
    }
    var again = RecentRouting(geometry: Self.geometry)
    again.note(recent.trace(Self.header, promptTokens: 0, tokens: RecentRouting.capacity))
    for number in 700..<1500 {
      for layer in 0..<3 {
        recent.note(Self.event(number, layer: layer))
        again.note(Self.event(number, layer: layer))
      }
    }
    #expect(again.tokenCount == RecentRouting.capacity)
    let traces = [recent, again].map {
      Self.passes($0.trace(Self.header, promptTokens: 9, tokens: 1015))
    }
    #expect(zip(traces[0], traces[1]).allSatisfy { $0 == $1 })
  }
}

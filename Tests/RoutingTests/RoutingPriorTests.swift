import Routing
import Testing

@Suite struct RoutingPriorTests {
  private static let header = TraceHeader(
    model: "prior",
    geometry: RoutingGeometry(
      expertCount: 64, topK: 8, expertByteCounts: Array(repeating: 1000, count: 4)),
    hasWeights: false)

  @Test func theSameArgumentsGiveTheSameTraceOfDifferentExperts() {
    let prior = RoutingPrior()
    let traces = (0..<2).map { _ in
      prior.trace(Self.header, promptTokens: 20, chunk: 16, tokens: 40)
    }
    #expect(traces[0].eventCount == 4 * (2 + 40))
    for index in 0..<traces[0].eventCount {
      let experts = Array(traces[0].experts(of: index))
      #expect(experts == Array(traces[1].experts(of: index)))
      if traces[0].phase(of: index) == .decode { #expect(Set(experts).count == 8) }
    }
    #expect(traces[0].accessCount(of: 0) == 16 * 8 && traces[0].accessCount(of: 4) == 4 * 8)
  }

  @Test func statisticsAreThoseOfRealTraces() throws {
    let trace = RoutingPrior().trace(Self.header, promptTokens: 0, tokens: 1000)
    let statistics = try TraceStatistics(TraceSource(trace))
    // Without replacement the hottest cannot get more than their places: less than of single draws.
    #expect((0.40...0.65).contains(statistics.hottestFifthShare), "\(statistics.hottestFifthShare)")
    let reuse = statistics.reuse
    #expect((0.25...0.50).contains(reuse), "\(reuse)")
  }

  @Test func predictionsNameTheShareAskedFor() {
    for recall in [0.0, 0.5, 0.9, 1.0] {
      let trace = RoutingPrior().trace(Self.header, promptTokens: 0, tokens: 300)
        .predicting(recall: [1: recall])
      #expect(trace.header.predictionDistances == [1])
      var named = 0
      for index in 0..<trace.eventCount {
        let codes = trace.predictions(of: index)
        let top = codes.indices.sorted { codes[$0] < codes[$1] }.prefix(8).map {
          UInt16($0 - codes.startIndex)
        }
        named += Set(top).intersection(trace.experts(of: index)).count
      }
      let found = Double(named) / Double(trace.eventCount * 8)
      // By chance an eighth of the others is named too.
      #expect(
        found > recall - 0.03 && found < recall + (1 - recall) * 0.2 + 0.03, "\(recall): \(found)")
    }
  }
}

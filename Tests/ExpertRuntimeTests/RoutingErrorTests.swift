import ExpertRuntime
import Routing
import Testing

@Suite struct RoutingErrorTests {
  static let model = ToyMoE.twoSizes

  /// A call that differs from a right one in what a test sets.
  struct Call {
    var layer = 0
    var hiddenCount = 2 * model.hidden
    var outputCount = 2 * model.hidden
    var topK = model.topK
    /// Two tokens.
    var experts = [0, 1, 2, 3]

    /// The reason the runtime gives for refusing the call; nil if it computes.
    func refusal(by runtime: ExpertRuntime) throws -> String? {
      var output = [Float](repeating: 7, count: outputCount)
      do {
        try execute(on: runtime, into: &output)
        return nil
      } catch RuntimeError.routing(let reason) {
        #expect(output.allSatisfy { $0 == 7 }, "a refused call wrote output")
        return reason
      }
    }

    private func execute(on runtime: ExpertRuntime, into output: inout [Float]) throws {
      var routing = Routing(topK: topK)
      for expert in experts { routing.append(expert: expert, weight: 0.5) }
      let hidden = [Float](repeating: 0.5, count: hiddenCount)
      var span = output.mutableSpan
      try runtime.execute(
        layer: layer, hidden: hidden.span, routing: routing, output: &span, phase: .decode)
    }
  }

  static let wrongCalls: [(call: Call, reason: String)] = [
    (Call(layer: -1), "layer -1 of 4"),
    (Call(layer: 4), "layer 4 of 4"),
    (Call(topK: 1), "1 experts per token, expected 2"),
    (Call(topK: 4), "4 experts per token, expected 2"),
    (Call(experts: []), "0 expert ids, expected a multiple of 2 for 1 to 12 tokens"),
    (Call(experts: [0, 1, 2]), "3 expert ids, expected a multiple of 2 for 1 to 12 tokens"),
    (
      Call(experts: Array(repeating: [0, 1], count: 13).flatMap(\.self)),
      "26 expert ids, expected a multiple of 2 for 1 to 12 tokens"
    ),
    (Call(hiddenCount: 127), "127 hidden values and 128 outputs, expected 128"),
    (Call(hiddenCount: 64), "64 hidden values and 128 outputs, expected 128"),
    (Call(outputCount: 129), "128 hidden values and 129 outputs, expected 128"),
    (Call(hiddenCount: 0, outputCount: 0), "0 hidden values and 0 outputs, expected 128"),
    (Call(experts: [0, 1, 2, 6]), "expert 6 of 6"),
    (Call(experts: [-1, 1, 2, 3]), "expert -1 of 6"),
    (Call(experts: [0, 1, 3, 3]), "expert 3 twice in one token"),
  ]

  @Test func callsThatDoNotFitTheModelAreRefused() throws {
    let bench = try RuntimeBench(Self.model)
    let before = bench.runtime.statistics
    for (call, reason) in Self.wrongCalls {
      #expect(try call.refusal(by: bench.runtime) == reason)
    }
    // Nothing was read for them, and the runtime goes on.
    #expect(bench.runtime.statistics == before)
    #expect(try Call().refusal(by: bench.runtime) == nil)
    #expect(bench.runtime.statistics.decode.misses == 4)
  }

  @Test func twoTokensMayShareAnExpert() throws {
    let bench = try RuntimeBench(Self.model)
    #expect(try Call(experts: [0, 1, 1, 0]).refusal(by: bench.runtime) == nil)
    #expect(bench.runtime.statistics.decode.misses == 2)
  }

  @Test func theErrorReadsAsASentence() {
    #expect(
      RuntimeError.routing(reason: "expert 6 of 6").description
        == "the routing does not fit the model: expert 6 of 6")
  }
}

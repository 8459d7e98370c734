import ExpertRuntime
import FoundationEssentials
import Testing

@testable import Stoker

/// What a long prompt leaves of the experts that decoding has made resident.
@Suite struct StreamingTests {
  private static let share = 0.25

  /// Two models decode the same 64 tokens after the same 256 others, from an empty context: the
  /// second reads a prompt of 1,024 tokens in between. So the router chooses the same experts in
  /// both, and a difference in hits is the prompt's doing.
  @Test(.enabled(if: Fixtures.hasSharedDemo, "needs ../shared"), arguments: ["prose", "code"])
  func aLongPromptLeavesDecodeItsExperts(_ text: String) throws {
    let prose = try Self.ids("prose")
    let (before, after) = (try Self.model(), try Self.model())
    for model in [before, after] { try Self.decode(prose[..<256], with: model) }
    let prompt = text == "prose" ? prose[512..<1536] : try Self.ids(text)[..<1024]
    let ran = try after.prefill(
      prompt, at: 0, logits: .none, isCancelled: { false }, { _, _ in })
    #expect(ran)
    let streamed = after.transformer.runtime.statistics.prefill
    #expect(streamed.misses > 2 * after.transformer.runtime.slotCount)
    let rates = try [before, after].map { try Self.decode(prose[256..<320], with: $0) }
    #expect(rates[0] > 0.4, "the comparison needs hits to lose")
    // Asked for are 2 points; slots for 58 experts refill so fast that a prompt which flushed them all
    // would cost no more than 1.1.
    #expect(abs(rates[1] - rates[0]) <= 0.005, "\(rates[0]) before, \(rates[1]) after")
  }

  private static func ids(_ name: String) throws -> [Int32] {
    let bytes = try Data(
      contentsOf: Fixtures.sharedDemo.appendingPathComponent("\(name).txt"))
    return try ModelFile(path: Fixtures.demo).tokenizer.encodePrompt(bytes: Array(bytes))
  }

  /// The demo model with slots for a quarter of its experts.
  private static func model() throws -> MoEModel {
    let file = try ModelFile(path: Fixtures.demo)
    let process = 64 << 20
    let needs = try file.requirements(
      ModelOptions(processMemory: process, context: 1024, threads: 2))
    let slots = Int(Double(needs.allSlots) * share)
    return try Fixtures.model(
      Fixtures.demo,
      ModelOptions(
        memory: needs.fullBudget - needs.allSlots + slots, processMemory: process, context: 1024,
        threads: 2))
  }

  /// Decodes `tokens` from an empty context; returns the hit rate.
  @discardableResult
  private static func decode(_ tokens: ArraySlice<Int32>, with model: MoEModel) throws -> Double {
    let before = model.transformer.runtime.statistics
    for (position, token) in tokens.enumerated() {
      try model.transformer.forward(
        [token].span, at: position, phase: .decode, logits: .none, { _, _ in })
    }
    return try #require(
      model.transformer.runtime.statistics.subtracting(before).decode.hitRate)
  }
}

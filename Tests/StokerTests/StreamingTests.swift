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
    let tokens = prose[256..<320]
    let first = try Self.decode(tokens, with: before)
    let second = try Self.decode(tokens, with: after)
    #expect(first.all > 0.4, "the comparison needs hits to lose")
    #expect(abs(second.all - first.all) <= 0.02, "\(first) before, \(second) after")
    // Slots for so few experts refill within some tokens: a prompt that flushed them all would show
    // in the first ones.
    #expect(abs(second.early - first.early) <= 0.02, "\(first) before, \(second) after")
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

  /// Decodes `tokens` from an empty context; returns the hit rates of the first 8 and of all.
  @discardableResult
  private static func decode(
    _ tokens: ArraySlice<Int32>, with model: MoEModel
  ) throws -> (early: Double, all: Double) {
    let runtime = model.transformer.runtime
    let before = runtime.statistics
    var early: Double?
    for (position, token) in tokens.enumerated() {
      try model.transformer.forward(
        [token].span, at: position, phase: .decode, logits: .none, { _, _ in })
      if position == 7 { early = runtime.statistics.subtracting(before).decode.hitRate }
    }
    return (
      try #require(early),
      try #require(runtime.statistics.subtracting(before).decode.hitRate)
    )
  }
}

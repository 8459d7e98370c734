import Logging
import Testing

@testable import Stoker

/// Budgets that change while a model generates.
@Suite struct BudgetChangeTests {
  private static let context = 128
  private static let process = 32 << 20
  private static let request = GenerationRequest(
    prompt: Array(5..<45), maxTokens: 72, sampling: SamplingParameters(temperature: 0),
    ignoresEnd: true)

  private static func options(_ io: ReadEngineKind, _ prefetch: PrefetchMode) -> ModelOptions {
    ModelOptions(processMemory: process, context: context, prefetch: prefetch, io: io)
  }

  /// The budget with slots for `share` of the experts, whatever is read ahead.
  private static func budget(_ file: ModelFile, _ share: Double) throws -> Int {
    let needs = try file.requirements(options(.auto, .auto))
    return needs.fullBudget - Int(Double(needs.allSlots) * (1 - share))
  }

  @Test(
    arguments: [ReadEngineKind.uring, .pread], [PrefetchMode.off, .auto, .depth(2)])
  func theOutputStaysTheSameWhileTheBudgetChanges(
    _ io: ReadEngineKind, _ prefetch: PrefetchMode
  ) throws {
    let file = try ModelFile(path: Fixtures.demo)
    let expected = try Fixtures.model(Fixtures.demo, Self.options(io, .off)).generate(Self.request)
    var options = Self.options(io, prefetch)
    options.memory = try Self.budget(file, 0.5)
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let slots = model.configuration.slots
    var seen: [Int] = []
    var token = 0
    let generation = try model.generate(
      Self.request,
      onToken: { _ in
        token += 1
        guard token % 8 == 0 else { return }
        let share = [0.2, 0.8, 0.1, 1, 0.3, 0.5][token / 8 % 6]
        try model.setMemory(Self.budget(file, share))
        #expect(model.ledger.budget == (try Self.budget(file, share)))
        #expect(model.ledger.byteCount <= model.ledger.budget)
        seen.append(model.configuration.slots)
      })
    #expect(generation.tokens == expected.tokens)
    #expect(seen.count == 9 && seen.min()! < slots && seen.max()! == 256, "\(seen)")
    #expect(generation.statistics.memoryBudget == model.ledger.budget)
    #expect(generation.statistics.configuration.slots == seen.last)
    // What was resident is, as far as it fits: raising loses nothing.
    let decode = generation.statistics.experts.decode
    #expect((decode.hitRate ?? 0) > 0.3)
  }

  @Test func raisingTheBudgetKeepsTheResidents() throws {
    let file = try ModelFile(path: Fixtures.demo)
    var options = Self.options(.auto, .off)
    options.memory = try Self.budget(file, 0.4)
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    _ = try model.generate(Self.request)
    let runtime = model.transformer.runtime
    func residents() -> [ExpertID] {
      (0..<8).flatMap { layer in
        (0..<32).map { ExpertID(layer: layer, expert: $0) }.filter(runtime.isResident)
      }
    }
    let before = residents()
    try model.setMemory(Self.budget(file, 0.9))
    #expect(residents() == before && model.configuration.slots > before.count)
    try model.setMemory(Self.budget(file, 0.2))
    #expect(Set(residents()).isSubset(of: before) && residents().count == model.configuration.slots)
    let misses = runtime.statistics.decode.misses
    // Every one that stayed is still there: it takes no read.
    let kept = residents().first!
    #expect(runtime.isResident(kept) && runtime.statistics.decode.misses == misses)
  }

  @Test func aBudgetThatIsTooSmallChangesNothing() throws {
    let file = try ModelFile(path: Fixtures.demo)
    var options = Self.options(.auto, .off)
    options.memory = try Self.budget(file, 0.5)
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let (slots, budget) = (model.configuration.slots, model.ledger.budget)
    for memory in [-1, 0, 1 << 20] {
      #expect(throws: RuntimeError.self) { try model.setMemory(memory) }
    }
    #expect(model.configuration.slots == slots && model.ledger.budget == budget)
    _ = try model.generate(Self.request)
  }

  @Test func readingAheadIsBegunAndEndedWithinTheBudget() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let expected = try Fixtures.model(Fixtures.demo, Self.options(.auto, .off))
      .generate(Self.request)
    var options = Self.options(.auto, .off)
    options.memory = try Self.budget(file, 0.5)
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    #expect(!model.readsAhead && model.configuration.stagingSlots == 0)
    let slots = model.configuration.slots
    var token = 0
    let generation = try model.generate(
      Self.request,
      onToken: { _ in
        token += 1
        if token == 10 {
          try model.setReadsAhead(true)
          #expect(model.readsAhead && model.configuration.stagingSlots > 0)
          #expect(model.configuration.slots < slots && model.configuration.predictor == .corrected)
        }
        if token == 50 { try model.setReadsAhead(false) }
        #expect(model.ledger.byteCount <= model.ledger.budget)
      })
    #expect(generation.tokens == expected.tokens)
    #expect(model.configuration.slots == slots && model.configuration.predictor == nil)
    #expect(!model.ledger.entries.contains { $0.name.hasPrefix("predictor") })
  }
}

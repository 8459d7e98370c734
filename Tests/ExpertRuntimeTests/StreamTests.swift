import ExpertRuntime
import Residency
import Routing
import Tensors
import Testing

@testable import DirectIO

/// An engine that notes what it is asked to read.
private final class RecordingEngine: ReadEngine {
  private let engine: any ReadEngine
  private(set) var offsets: [UInt64] = []

  init(_ engine: any ReadEngine) { self.engine = engine }

  var name: String { engine.name }
  var registeredBuffers: Bool { engine.registeredBuffers }
  var registeredFiles: Bool { engine.registeredFiles }
  var fallbacks: [String] { engine.fallbacks }
  var outstandingCount: Int { engine.outstandingCount }

  func enqueue(_ request: ReadRequest) {
    offsets.append(request.span.offset)
    engine.enqueue(request)
  }

  func submit() { engine.submit() }
  func replaceArenas(_ arenas: [Arena]) { engine.replaceArenas(arenas) }
  func promote(tag: UInt64) -> Bool { engine.promote(tag: tag) }
  func cancel(tag: UInt64) -> Bool { engine.cancel(tag: tag) }
  func poll(_ body: (ReadCompletion) -> Void) { engine.poll(body) }
  func wait() { engine.wait() }

  /// The offsets since the last call.
  func takeOffsets() -> [UInt64] {
    defer { offsets = [] }
    return offsets
  }
}

/// How prompts pass through the slots.
@Suite struct StreamTests {
  /// Two layers of 48 experts; half of the slots are 48, of which a stream may hold 8.
  static let model = ToyMoE(
    hidden: 64, feedForward: 32, expertCount: 48, topK: 2,
    types: [[.q8_0, .q8_0, .q8_0], [.q8_0, .q8_0, .q8_0]], seed: 3)
  static let window = 8

  /// A token for each expert and its successor: all experts are touched twice.
  static let everyExpert: [ToyToken] = {
    var tokens = model.tokens(model.expertCount, seed: 8)
    for (index, _) in tokens.enumerated() {
      tokens[index].experts = [Int32(index), Int32((index + 1) % model.expertCount)]
    }
    return tokens
  }()

  /// Tokens whose experts, taken together, are `experts`.
  private static func tokens(_ experts: Range<Int>) -> [ToyToken] {
    zip(model.tokens(experts.count / 2, seed: 9), stride(from: experts.lowerBound, to: 48, by: 2))
      .map { token, expert in
        var token = token
        token.experts = [Int32(expert), Int32(expert + 1)]
        return token
      }
  }

  private static func bench(
    _ slots: RuntimeSetup.Slots, io: ReadEngineKind = .pread, threads: Int = 1
  ) throws -> (bench: RuntimeBench, engine: RecordingEngine) {
    let file = try TemporaryFile()
    try model.write(to: file.path)
    var recorder: RecordingEngine?
    let setup = RuntimeSetup(slots: slots, io: io, threads: threads, tokenCapacity: 48)
    let bench = try RuntimeBench(model, setup, file: file) { engine, _ in
      let recording = RecordingEngine(engine)
      recorder = recording
      return recording
    }
    return (bench, try #require(recorder))
  }

  @Test(arguments: RuntimeSetup.Slots.allCases, [ReadEngineKind.pread, .auto])
  func everyExpertIsReadOnceAndInFileOrder(
    _ slots: RuntimeSetup.Slots, _ io: ReadEngineKind
  ) throws {
    let (bench, engine) = try Self.bench(slots, io: io)
    let expected = try RuntimeBench(
      Self.model, RuntimeSetup(tokenCapacity: 48)
    ).run(layer: 1, Self.everyExpert[...])
    let output = try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill)
    #expect(output.map(\.bitPattern) == expected.map(\.bitPattern))
    let offsets = engine.takeOffsets()
    #expect(offsets.count == 3 * Self.model.expertCount)
    #expect(Set(offsets).count == offsets.count)
    // Gate, up and down lie in tensors of their own.
    for matrix in 0..<3 {
      let ofMatrix = stride(from: matrix, to: offsets.count, by: 3).map { offsets[$0] }
      #expect(ofMatrix == ofMatrix.sorted())
    }
    let statistics = bench.runtime.statistics.prefill
    #expect(statistics.misses == Self.model.expertCount && statistics.hits == 0)
  }

  @Test func aStreamLeavesAllButItsWindow() throws {
    let (bench, engine) = try Self.bench(.half)
    let kept = 40
    // The slots fill up, with the same experts twice.
    for _ in 0..<2 {
      for token in Self.tokens(0..<kept) { _ = try bench.run(layer: 0, [token]) }
    }
    _ = try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill)
    _ = engine.takeOffsets()
    let before = bench.runtime.statistics
    for token in Self.tokens(0..<kept) { _ = try bench.run(layer: 0, [token]) }
    let after = bench.runtime.statistics.subtracting(before).decode
    // 48 slots hold the 40 kept and the window.
    #expect(after.hits == kept && after.misses == 0)
  }

  @Test func aStreamThroughFullSlotsEvictsItsWindowAndNoMore() throws {
    let (bench, _) = try Self.bench(.half)
    let slots = bench.plan.slotCount
    for token in Self.tokens(0..<slots) { _ = try bench.run(layer: 0, [token]) }
    for _ in 0..<3 { _ = try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill) }
    let before = bench.runtime.statistics
    // From the newest to the oldest, so that the reads evict no expert still to be asked for.
    for token in Self.tokens(0..<slots).reversed() { _ = try bench.run(layer: 0, [token]) }
    let after = bench.runtime.statistics.subtracting(before).decode
    #expect(after.misses > 0 && after.misses <= Self.window)
  }

  @Test func residentExpertsAreUsedWhereTheyAre() throws {
    let (bench, engine) = try Self.bench(.half)
    for token in Self.tokens(0..<30) { _ = try bench.run(layer: 1, [token]) }
    _ = engine.takeOffsets()
    _ = try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill)
    #expect(engine.takeOffsets().count == 3 * (Self.model.expertCount - 30))
    #expect(bench.runtime.statistics.prefill.hits == 30)
  }

  /// Experts that a prompt finds resident are no newer for it, also where an earlier layer kept those
  /// at the same places in its order.
  @Test func aPromptDoesNotRenewWhatItFinds() throws {
    let (bench, _) = try Self.bench(.half)
    let (older, newer) = (Self.tokens(0..<20), Self.tokens(0..<24))
    _ = try bench.run(layer: 0, Self.everyExpert[...], phase: .prefill)
    for token in older { _ = try bench.run(layer: 1, [token]) }
    for token in newer { _ = try bench.run(layer: 0, [token]) }
    _ = try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill)
    // Twelve more: eight find the window's slots, four evict the oldest.
    for token in Self.tokens(24..<36) { _ = try bench.run(layer: 0, [token]) }
    let before = bench.runtime.statistics
    for token in newer { _ = try bench.run(layer: 0, [token]) }
    // Four slots of the window were taken while the older experts were held.
    #expect(bench.runtime.statistics.subtracting(before).decode.misses <= 4)
  }

  /// Every layer of a cold start keeps the experts that most tokens chose, as its share of the slots.
  @Test func aColdStartKeepsTheBusiestExpertsOfEveryLayer() throws {
    let (bench, _) = try Self.bench(.half)
    let share = bench.plan.slotCount / Self.model.layerCount
    let kept = share - Self.window
    // The busiest experts are the last in the file.
    let busiest = Self.model.expertCount - kept..<Self.model.expertCount
    let more = Self.tokens(busiest)
    let chunk = Self.everyExpert.dropFirst(more.count) + more
    for layer in 0..<Self.model.layerCount {
      _ = try bench.run(layer: layer, chunk, phase: .prefill)
    }
    let before = bench.runtime.statistics
    for layer in 0..<Self.model.layerCount {
      for token in more { _ = try bench.run(layer: layer, [token]) }
    }
    let after = bench.runtime.statistics.subtracting(before).decode
    #expect(after.hits == Self.model.layerCount * kept, "\(after)")
  }

  @Test(arguments: RuntimeSetup.Slots.allCases, [ReadEngineKind.pread, .auto])
  func aFailedReadInAStreamLosesNothing(
    _ slots: RuntimeSetup.Slots, _ io: ReadEngineKind
  ) throws {
    let (bench, _) = try Self.bench(slots, io: io, threads: 2)
    let expected = try RuntimeBench(
      Self.model, RuntimeSetup(tokenCapacity: 48)
    ).run(layer: 1, Self.everyExpert[...])
    let bytes = try bench.file.bytes()
    try bench.file.truncate(to: bytes.count - 1)
    for _ in 0..<4 {
      #expect(throws: RuntimeError.self) {
        try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill)
      }
    }
    try bench.file.overwrite(with: bytes)
    let output = try bench.run(layer: 1, Self.everyExpert[...], phase: .prefill)
    #expect(output.map(\.bitPattern) == expected.map(\.bitPattern))
  }
}

import DirectIO
import Residency
import Routing
import Tensors
import Testing

@testable import ExpertRuntime

/// Experts that are read before they are asked for.
@Suite struct PrefetchTests {
  /// Two layers of 64 experts; half of the slots are 64, of which two are for staging.
  static let model = ToyMoE(
    hidden: 64, feedForward: 32, expertCount: 64, topK: 2,
    types: [[.q8_0, .q8_0, .q8_0], [.q8_0, .q8_0, .q8_0]], seed: 3)

  private static func bench(
    _ io: ReadEngineKind = .pread, direct: DirectPolicy = .off,
    wrap: (any ReadEngine, DataFile) -> any ReadEngine = { engine, _ in engine }
  ) throws -> RuntimeBench {
    let file = try TemporaryFile()
    try model.write(to: file.path)
    return try RuntimeBench(
      model, RuntimeSetup(slots: .half, io: io, direct: direct, threads: 2, staging: true),
      file: file, wrap: wrap)
  }

  /// Scores that leave no doubt that `experts` will be chosen.
  private static func scores(_ experts: [Int]) -> [Float] {
    (0..<model.expertCount).map { experts.contains($0) ? 10 : 0 }
  }

  private static func token(_ experts: [Int32]) -> ToyToken {
    var token = model.tokens(1, seed: 8)[0]
    token.experts = experts
    return token
  }

  private func settle(_ runtime: ExpertRuntime) {
    while runtime.flightCount > 0 {
      runtime.engine.wait()
      runtime.harvest()
    }
  }

  @Test(arguments: [ReadEngineKind.pread, .auto]) func whatIsPredictedIsThere(
    _ io: ReadEngineKind
  ) throws {
    let bench = try Self.bench(io)
    let runtime = bench.runtime
    #expect(runtime.canPrefetch && runtime.slotPlan.stagingCount == 2)
    let expected = try RuntimeBench(Self.model).run(layer: 1, [Self.token([5, 9])])
    runtime.predict(layer: 1, distance: 1, scores: Self.scores([5, 9]).span, since: 0)
    settle(runtime)
    var ledger = runtime.statistics.totalPrefetch
    #expect(ledger.issued.count == 2 && ledger.inTime.count == 0)
    #expect(ledger.stagedByteCount == ledger.issued.byteCount && ledger.issued.byteCount > 0)
    let output = try bench.run(layer: 1, [Self.token([5, 9])])
    #expect(output.map(\.bitPattern) == expected.map(\.bitPattern))
    ledger = runtime.statistics.totalPrefetch
    #expect(ledger.inTime == ledger.issued && ledger.stagedByteCount == 0)
    #expect(ledger.accuracy == 1 && ledger.timeliness == 1 && ledger.goodPredictionRate == 1)
    // It was a miss for all that: who is resident does not depend on what was read ahead.
    let decode = runtime.statistics.decode
    #expect(decode.misses == 2 && decode.hits == 0)
    #expect(decode.demandedByteCount == 0)
    #expect(runtime.isResident(.init(layer: 1, expert: 5)))
    #expect(runtime.isResident(.init(layer: 1, expert: 9)))
    // And both are hits from then on.
    _ = try bench.run(layer: 1, [Self.token([5, 9])])
    #expect(runtime.statistics.decode.hits == 2)
  }

  @Test func whatIsNotNeededIsGivenUp() throws {
    let bench = try Self.bench()
    let runtime = bench.runtime
    // So that predictions are trusted.
    for expert in 20..<26 {
      runtime.predict(layer: 1, distance: 1, scores: Self.scores([expert]).span, since: 0)
      settle(runtime)
      _ = try bench.run(layer: 1, [Self.token([Int32(expert), 1])])
    }
    let before = runtime.statistics
    #expect(before.totalPrefetch.inTime.count == 6)
    for expert in [7, 11, 8] {
      runtime.predict(layer: 1, distance: 1, scores: Self.scores([expert]).span, since: 0)
      settle(runtime)
      _ = try bench.run(layer: 1, [Self.token([1, 2])])
    }
    let ledger = runtime.statistics.subtracting(before).totalPrefetch
    #expect(ledger.issued.count == 3 && ledger.unused.count == 1)
    #expect(ledger.inTime.count == 0 && ledger.late.count == 0)
    #expect(ledger.stagedByteCount == 2 * ledger.unused.byteCount && ledger.accuracy == 0)
    #expect(!runtime.isResident(.init(layer: 1, expert: 7)))
    // What is still staged serves whoever needs it later.
    _ = try bench.run(layer: 1, [Self.token([8, 1])])
    #expect(runtime.statistics.totalPrefetch.inTime.count == 7)
  }

  @Test func aSecondPredictionCorrectsTheFirst() throws {
    let bench = try Self.bench()
    let runtime = bench.runtime
    let expected = try RuntimeBench(Self.model).run(layer: 1, [Self.token([20, 21])])
    // Whatever of it has begun by then, nothing is lost.
    for _ in 0..<50 {
      runtime.predict(layer: 1, distance: 1, scores: Self.scores([30]).span, since: 0)
      runtime.predict(layer: 1, distance: 0, scores: Self.scores([20]).span, since: 0)
      let output = try bench.run(layer: 1, [Self.token([20, 21])])
      #expect(output.map(\.bitPattern) == expected.map(\.bitPattern))
      settle(runtime)
    }
    let ledger = runtime.statistics.totalPrefetch
    #expect(ledger.stagedByteCount >= 0)
    #expect(ledger.issued.count >= ledger.inTime.count + ledger.late.count + ledger.unused.count)
  }

  /// A prefetch that fails costs nothing unless the expert is needed; then it is read again.
  @Test func aFailedPrefetchIsReadAgain() throws {
    let path = try TemporaryFile()
    try Self.model.write(to: path.path)
    let probe = try RuntimeBench(Self.model, RuntimeSetup(), file: path).runtime
    let place = probe.geometry.placement(probe.geometry.reads(layer: 1)[1], layer: 1, expert: 5)
    let bench = try Self.bench { engine, file in
      BadSectorEngine(engine, file: file, offset: place.span.offset)
    }
    let runtime = bench.runtime
    runtime.predict(layer: 1, distance: 1, scores: Self.scores([5]).span, since: 0)
    settle(runtime)
    _ = try bench.run(layer: 1, [Self.token([1, 2])])
    #expect(throws: RuntimeError.self) { try bench.run(layer: 1, [Self.token([5, 2])]) }
    #expect(throws: RuntimeError.self) { try bench.run(layer: 1, [Self.token([5, 2])]) }
    _ = try bench.run(layer: 1, [Self.token([1, 2])])
  }

  /// What is there counts whole; of what is under way, what the disk can have done since it was free for it.
  @Test func aReadAheadIsWorthItsHeadStart() {
    var disk = DiskLoad()
    disk.noteDemand(byteCount: 1000)
    disk.noteBusy(nanoseconds: 1_000_000)
    let read = ReadAhead(start: 5_000_000)
    func saved(freeSince: UInt64, until end: UInt64, arrived: Int) -> Float {
      var headStart = HeadStart(freeSince: freeSince)
      headStart.note(read, byteCount: 1000, arrived: arrived)
      return headStart.seconds(until: end, on: disk) * 1e6
    }
    #expect(HeadStart().seconds(until: 9_000_000, on: disk) == 0)
    #expect(abs(saved(freeSince: 0, until: 5_200_000, arrived: 0) - 200) < 0.1)
    #expect(abs(saved(freeSince: 0, until: 5_200_000, arrived: 500) - 500) < 0.1)
    #expect(abs(saved(freeSince: 0, until: 9_000_000, arrived: 500) - 1000) < 0.1)
    // It was behind reads that were waited for.
    #expect(abs(saved(freeSince: 5_700_000, until: 6_000_000, arrived: 0) - 300) < 0.1)
    #expect(saved(freeSince: 7_000_000, until: 6_000_000, arrived: 0) == 0)
  }
}

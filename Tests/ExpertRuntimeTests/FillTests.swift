import DirectIO
import Residency
import Routing
import Tensors
import Testing

@testable import ExpertRuntime

/// Free slots that are filled by the history of earlier runs.
@Suite struct FillTests {
  private static let model = PrefetchTests.model

  /// A history in which `experts` of each layer were used, the first most.
  private static func history(_ experts: [Int32]) -> RoutingHistory {
    var history = RoutingHistory(model: "", routers: "", layerCount: 2, expertCount: 64)
    for count in 1...experts.count {
      for layer in 0..<2 {
        var event = RoutingEvent()
        event.layer = layer
        event.experts = experts.prefix(count).map { Int32(64 * layer) + $0 }
        history.note(event)
      }
    }
    return history
  }

  private static func bench(_ io: ReadEngineKind, _ direct: DirectPolicy) throws -> RuntimeBench {
    try RuntimeBench(
      model, RuntimeSetup(slots: .half, io: io, direct: direct, threads: 2, staging: true))
  }

  private static func token(_ experts: [Int32], seed: UInt64 = 8) -> ToyToken {
    var token = model.tokens(1, seed: seed)[0]
    token.experts = experts
    return token
  }

  @Test(arguments: [ReadEngineKind.pread, .auto]) func theMostUsedAreThere(
    _ io: ReadEngineKind
  ) throws {
    let bench = try Self.bench(io, .off)
    let runtime = bench.runtime
    runtime.begin(with: Self.history(Array(0..<40)))
    #expect(!runtime.isResident(.init(layer: 0, expert: 0)))
    runtime.fillFreeSlots { false }
    let slots = runtime.slotPlan.slotCount
    #expect(runtime.statistics.filled.count == slots && slots < 80)
    for layer in 0..<2 {
      for expert in 0..<slots / 2 - 1 {
        #expect(runtime.isResident(.init(layer: layer, expert: expert)), "\(layer), \(expert)")
      }
    }
    let expected = try RuntimeBench(Self.model).run(layer: 1, [Self.token([3, 4])])
    #expect(try bench.run(layer: 1, [Self.token([3, 4])]) == expected)
    let decode = runtime.statistics.decode
    #expect(decode.hits == 2 && decode.demandedByteCount == 0)
    // Nothing is filled again, and what is not resident comes in place of something else.
    let before = runtime.statistics.filled
    _ = try bench.run(layer: 1, [Self.token([62, 63])])
    runtime.fillFreeSlots { false }
    #expect(runtime.statistics.filled == before && runtime.statistics.evictions == 2)
  }

  /// Slots of every size are filled, though those of one are full first.
  @Test func slotsOfEverySizeAreFilled() throws {
    let mixed = ToyMoE.mixed
    let bench = try RuntimeBench(mixed, RuntimeSetup(slots: .half))
    let runtime = bench.runtime
    #expect(runtime.slotPlan.classes.count > 1)
    var history = RoutingHistory(
      model: "", routers: "", layerCount: runtime.layerCount, expertCount: mixed.expertCount)
    for layer in 0..<runtime.layerCount {
      var event = RoutingEvent()
      event.layer = layer
      event.experts = (0..<mixed.expertCount).map { Int32(layer * mixed.expertCount + $0) }
      // The first layers are the most used.
      for _ in layer..<runtime.layerCount { history.note(event) }
    }
    runtime.begin(with: history)
    runtime.fillFreeSlots { false }
    #expect(runtime.statistics.filled.count == runtime.slotPlan.slotCount)
  }

  /// Whatever is under way when a layer begins, in whatever slot, the output is the same.
  @Test(arguments: [ReadEngineKind.pread, .auto], [DirectPolicy.off, .auto])
  func outputIsTheSameWhileSlotsAreFilled(_ io: ReadEngineKind, _ direct: DirectPolicy) throws {
    let bench = try Self.bench(io, direct)
    let plain = try RuntimeBench(Self.model)
    bench.runtime.begin(with: Self.history((0..<64).map { ($0 * 13) % 64 }))
    for step in 0..<120 as Range<UInt64> {
      let layer = Int(step % 2)
      let tokens = Self.model.tokens(step % 17 == 3 ? 5 : 1, seed: step)
      let phase: Phase = tokens.count > 1 ? .prefill : .decode
      let output = try bench.run(layer: layer, tokens[...], phase: phase)
      let expected = try plain.run(layer: layer, tokens[...], phase: phase)
      #expect(output.map(\.bitPattern) == expected.map(\.bitPattern), "\(step)")
      bench.runtime.advanceReads()
    }
    #expect(bench.runtime.statistics.filled.count > 0)
    #expect(bench.runtime.statistics.evictions > 0)
  }

  /// A read that fails while slots are filled ends nothing; it is told when its expert is needed.
  @Test func aFailedFillIsToldWhenItIsNeeded() throws {
    let file = try TemporaryFile()
    try Self.model.write(to: file.path)
    let probe = try RuntimeBench(Self.model, RuntimeSetup(), file: file).runtime
    let place = probe.geometry.placement(probe.geometry.reads(layer: 0)[1], layer: 0, expert: 1)
    let bench = try RuntimeBench(
      Self.model, RuntimeSetup(slots: .half, threads: 1, staging: true), file: file
    ) { engine, file in
      BadSectorEngine(engine, file: file, offset: place.span.offset)
    }
    bench.runtime.begin(with: Self.history([0, 1, 2]))
    bench.runtime.fillFreeSlots { false }
    let expected = try RuntimeBench(Self.model).run(layer: 0, [Self.token([0, 2])])
    #expect(try bench.run(layer: 0, [Self.token([0, 2])]) == expected)
    #expect(bench.runtime.statistics.decode.hits == 2)
    #expect(throws: RuntimeError.self) { try bench.run(layer: 0, [Self.token([1, 2])]) }
    #expect(try bench.run(layer: 0, [Self.token([0, 2])]) == expected)
  }
}

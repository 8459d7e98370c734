import DirectIO
import ExpertRuntime
import Residency
import Routing
import Testing

@Suite struct ResidencyTests {
  static let model = ToyMoE.twoSizes

  @Test func expertsOfTwoSizesGetTwoClassesOfSlots() throws {
    let bench = try RuntimeBench(Self.model, RuntimeSetup(slots: .half))
    // 8,192 and 2,176 bytes a matrix, each beginning on a page.
    #expect(bench.plan.classes.map(\.byteCount) == [3 * 4096, 3 * 8192])
    #expect(bench.plan.classes.allSatisfy { $0.slotCount > 0 })
    #expect(bench.plan.slotCount < Self.model.layerCount * Self.model.expertCount)
  }

  @Test(arguments: [RuntimeSetup.Slots.all, .half, .minimum], [ReadEngineKind.pread, .auto])
  func countsEqualThoseOfPlainLeastRecentlyUsed(
    _ slots: RuntimeSetup.Slots, _ io: ReadEngineKind
  ) throws {
    let model = Self.model
    let bench = try RuntimeBench(model, RuntimeSetup(slots: slots, io: io, threads: 2))
    var oracle = LeastRecentlyUsed(bench.plan)
    var byteCount = 0
    for token in model.tokens(60, seed: 4) {
      for layer in 0..<model.layerCount {
        _ = try bench.run(layer: layer, [token])
        let slotByteCount = layer % 2 == 0 ? 3 * 8192 : 3 * 4096
        let ids = token.experts.map { ExpertID(layer: layer, expert: Int($0)) }
        byteCount +=
          oracle.use(ids, byteCount: slotByteCount) * model.expertByteCount(layer: layer)
        let statistics = bench.runtime.statistics
        #expect(statistics.decode.hits == oracle.hits)
        #expect(statistics.decode.misses == oracle.misses)
        #expect(statistics.evictions == oracle.evictions)
        #expect(statistics.decode.missedByteCount == byteCount)
        #expect(statistics.decode.demandedByteCount == byteCount)
      }
    }
    // As few slots as one layer needs are taken from it by the next.
    #expect((oracle.hits > 0) == (slots != .minimum))
    #expect((oracle.evictions > 0) == (slots != .all))
    #expect(bench.runtime.statistics.prefill == RuntimeStatistics().prefill)
  }

  @Test(.enabled(if: Probe.hasDirect)) func directReadsCountTheirAlignment() throws {
    let model = Self.model
    let bench = try RuntimeBench(model, RuntimeSetup(direct: .on))
    let token = model.tokens(1, seed: 5)[0]
    _ = try bench.run(layer: 0, [token])
    let demanded = bench.runtime.statistics.decode.demandedByteCount
    #expect(demanded % 512 == 0)
    #expect(demanded >= model.topK * model.expertByteCount(layer: 0))
    // Each matrix gains less than a page at either end.
    #expect(demanded < model.topK * (model.expertByteCount(layer: 0) + 3 * 2 * 4096))
  }

  @Test func aChunkAccessesAnExpertOnceForAllItsTokens() throws {
    let model = Self.model
    let bench = try RuntimeBench(model)
    let tokens = model.tokens(12, seed: 6)
    let distinct = Set(tokens.flatMap(\.experts)).count
    _ = try bench.run(layer: 1, tokens[...], phase: .prefill)
    #expect(bench.runtime.statistics.prefill.misses == distinct)
    #expect(bench.runtime.statistics.prefill.hits == 0)
    let before = bench.runtime.statistics
    _ = try bench.run(layer: 1, tokens[...], phase: .prefill)
    let after = bench.runtime.statistics.subtracting(before)
    #expect(after.prefill.hits == distinct)
    #expect(after.prefill.misses == 0)
    #expect(after.prefill.demandedByteCount == 0)
    #expect(bench.runtime.statistics.decode == RuntimeStatistics().prefill)
  }

  @Test(arguments: [ReadEngineKind.pread, .auto])
  func nothingIsReadAfterPreloading(_ io: ReadEngineKind) throws {
    let model = ToyMoE.mixed
    let bench = try RuntimeBench(model, RuntimeSetup(io: io))
    let lazy = try RuntimeBench(model)
    #expect(bench.runtime.holdsEveryExpert)
    var progress: [Int] = []
    try bench.runtime.preload { done, total in
      #expect(total == model.layerCount * model.expertCount)
      progress.append(done)
    }
    #expect(progress == (1...model.layerCount).map { $0 * model.expertCount })
    #expect(bench.runtime.statistics.preloadedByteCount == model.byteCount)
    // The file is of no use any more.
    try bench.file.truncate(to: 0)
    let tokens = model.tokens(12, seed: 7)
    for layer in 0..<model.layerCount {
      let output = try bench.run(layer: layer, tokens[...], phase: .prefill)
      #expect(output == (try lazy.run(layer: layer, tokens[...])))
    }
    #expect(bench.runtime.statistics.prefill.misses == 0)
    #expect(bench.runtime.statistics.prefill.demandedByteCount == 0)
    #expect(bench.runtime.statistics.prefill.hitRate == 1)
  }
}

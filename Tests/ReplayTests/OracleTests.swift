import Replay
import Residency
import Routing
import TestSupport
import Testing

@Suite struct OracleTests {
  private static func misses(_ replay: Replay, capacity: Int, _ policy: any EvictionPolicy) throws
    -> Int
  {
    let counts = try replay.run(capacity: capacity, policy: policy)
    return counts.prefill.misses + counts.decode.misses
  }

  private static func bits(_ trace: RoutingTrace) -> [UInt32] {
    (0..<trace.eventCount).map { index in
      trace.experts(of: index).reduce(0) {
        $0 | 1 << (UInt32(trace.layer(of: index) * trace.header.geometry.expertCount) + UInt32($1))
      }
    }
  }

  @Test(arguments: [true, false]) func minHasTheFewestMisses(_ mayBypass: Bool) throws {
    for seed in 0..<150 as Range<UInt64> {
      let topK = 1 + Int(seed % 2)
      let trace = randomTrace(
        layers: 1 + Int(seed % 3), experts: 4, topK: topK, tokens: 8, seed: seed)
      let replay = Replay(trace)
      let future = try replay.future()
      for capacity in topK...6 {
        let policy = MINPolicy(
          future: future, geometry: trace.header.geometry, mayBypass: mayBypass)
        #expect(
          try Self.misses(replay, capacity: capacity, policy)
            == BruteForce.fewestMisses(
              events: Self.bits(trace), capacity: capacity, mayBypass: mayBypass),
          "seed \(seed), capacity \(capacity)")
      }
    }
  }

  /// A window over the whole trace is the whole future; smaller ones lie between that and LRU.
  @Test func windowsLieBetweenRecencyAndTheWholeFuture() throws {
    let trace = randomTrace(layers: 4, experts: 16, topK: 2, tokens: 400, seed: 7)
    let replay = Replay(trace)
    let future = try replay.future()
    let geometry = trace.header.geometry
    func misses(window: Int?) throws -> Int {
      try Self.misses(
        replay, capacity: 20,
        MINPolicy(future: future, geometry: geometry, mayBypass: false, window: window))
    }
    let whole = try misses(window: nil)
    let lru = try Self.misses(replay, capacity: 20, LRUPolicy(geometry: geometry))
    #expect(try misses(window: 400) == whole)
    let steps = try [1, 2, 4, 8, 16].map { try misses(window: $0) }
    #expect(zip([lru] + steps, steps + [whole]).allSatisfy { $0 >= $1 }, "\(lru) \(steps) \(whole)")
    #expect(steps[0] < lru && steps[4] <= whole + whole / 50)
  }
}

import Residency
import Routing
import TestSupport
import Testing

@testable import Replay

/// Policies against plain statements of the same rules.
@Suite struct PolicyTests {
  /// Residents as a list and a rule that orders them; replays event by event.
  private struct Plain {
    var residents: [Int32] = []
    var uses: [Int32: Int] = [:]
    var lastUse: [Int32: Int] = [:]
    var lastPass: [Int32: Int] = [:]
    var misses = 0
    private var clock = 0

    mutating func serve(
      _ experts: [Int32], pass: Int, capacity: Int, key: (Plain, Int32) -> (Double, Double)
    ) {
      misses += experts.count { !residents.contains($0) }
      for expert in experts {
        clock += 1
        uses[expert, default: 0] += 1
        lastUse[expert] = clock
        lastPass[expert] = pass
        if !residents.contains(expert) { residents.append(expert) }
      }
      while residents.count > capacity {
        let candidates = residents.filter { !experts.contains($0) }.sorted()
        guard let victim = candidates.min(by: { key(self, $0) < key(self, $1) }) else { return }
        residents.removeAll { $0 == victim }
      }
    }
  }

  private static func check(
    _ policy: any EvictionPolicy, trace: RoutingTrace, capacity: Int,
    key: (Plain, Int32) -> (Double, Double), name: String
  ) throws {
    let replay = Replay(trace)
    var plain = Plain()
    try replay.forEachEvent { _, union in
      plain.serve(
        union.event.experts, pass: union.event.pass, capacity: capacity, key: key)
    }
    let counts = try replay.run(capacity: capacity, policy: policy)
    #expect(counts.prefill.misses + counts.decode.misses == plain.misses, "\(name), \(capacity)")
  }

  @Test func policiesFollowTheirRules() throws {
    for seed in 0..<12 as Range<UInt64> {
      let trace = randomTrace(
        layers: 3, experts: 12, topK: 3, tokens: 120, sequences: 2, promptTokens: Int(seed % 3) * 4,
        seed: seed)
      let geometry = trace.header.geometry
      for capacity in [3, 5, 9, 14, 25, 36] {
        func check(
          _ name: String, _ policy: any EvictionPolicy, key: (Plain, Int32) -> (Double, Double)
        ) throws {
          try Self.check(policy, trace: trace, capacity: capacity, key: key, name: name)
        }
        try check("LRU", LRUPolicy(geometry: geometry)) { (Double($0.lastUse[$1]!), 0) }
        try check("Least-Stale", LeastStalePolicy(geometry: geometry)) {
          (Double($0.lastUse[$1]!), 0)
        }
        try check("LFU", LFUPolicy(geometry: geometry)) {
          (Double($0.uses[$1]!), Double($0.lastUse[$1]!))
        }
        try check("LFRU", LFRUPolicy(geometry: geometry)) { plain, expert in
          let pass = plain.lastPass.values.max()!
          let score = Float(plain.uses[expert]!) / Float(pass - plain.lastPass[expert]! + 1)
          return (Double(score), Double(expert))
        }
      }
    }
  }

  /// Whatever the policy, residents fit, hits are residents, and every miss is read.
  @Test(arguments: PolicyName.allCases) func everyPolicyKeepsItsBounds(_ policy: PolicyName) throws
  {
    for (seed, batch) in [(1, 1), (2, 3), (3, 8)] as [(UInt64, Int)] {
      let trace = randomTrace(
        layers: 4, experts: 16, topK: 2, tokens: 60, sequences: 5, hasWeights: seed != 2,
        byteCounts: [5, 7, 5, 11], promptTokens: 6, seed: seed)
      var options = ReplayOptions()
      options.policies = [policy]
      options.batch = batch
      options.phase = .all
      options.capacities = [.bytes(0), .bytes(40), .share(0.25), .share(0.5), .share(1)]
      if policy.isFitted { options.fitShare = 0.5 }
      let rows = try Comparison(trace, name: "t", options: options).rows()
      #expect(rows.count == options.capacities.count)
      for row in rows {
        #expect(row.hits <= row.accesses && row.accesses <= row.logicalAccesses)
        #expect((0...1).contains(row.gapToMIN!), "\(row)")
        // Bytes are those of the misses, whatever their layers.
        #expect(
          (5...11).contains(row.bytesRead / max(1, row.accesses - row.hits)) || row.bytesRead == 0)
      }
      if !policy.isFitted {
        // With room for all only first uses miss.
        let experts = Set(
          (0..<trace.eventCount).flatMap { index in
            trace.experts(of: index).map { trace.layer(of: index) * 16 + Int($0) }
          })
        #expect(rows[4].accesses - rows[4].hits == experts.count)
        #expect(rows[4].gapToMIN == 0)
      }
    }
  }

  @Test func layersOnTheirOwnAreReplaysOfTheirOwn() throws {
    let trace = randomTrace(layers: 3, experts: 12, topK: 2, tokens: 200, seed: 4)
    var options = ReplayOptions()
    options.policies = [.lru, .nextUse, .s3FIFO, .arc, .sieve, .mrs]
    options.scope = .layer
    options.capacities = [.bytes(15)]
    let together = try Comparison(trace, name: "t", options: options).rows()
    options.scope = .global
    options.capacities = [.bytes(5)]
    var misses = Array(repeating: 0, count: options.policies.count)
    for layer in 0..<3 {
      var single = RoutingTrace(
        header: TraceHeader(
          model: "one", geometry: trace.header.geometry.single(layer: layer), hasWeights: false))
      var event = TraceEvent()
      for index in 0..<trace.eventCount where trace.layer(of: index) == layer {
        trace.read(index, into: &event)
        event.layer = 0
        single.append(event)
      }
      let rows = try Comparison(single, name: "t", options: options).rows()
      for (index, row) in rows.enumerated() { misses[index] += row.accesses - row.hits }
    }
    // All but next-use, which learns from every layer together; its events come in the same order.
    for (index, row) in together.enumerated() where options.policies[index] != .nextUse {
      #expect(row.accesses - row.hits == misses[index], "\(row.policy)")
    }
  }

  @Test func fitIsNotCounted() throws {
    let trace = randomTrace(layers: 2, experts: 8, topK: 2, tokens: 100, seed: 5)
    var options = ReplayOptions()
    options.policies = [.static, .lru]
    options.capacities = [.share(0.5)]
    options.fitShare = 0.25
    let rows = try Comparison(trace, name: "t", options: options).rows()
    #expect(rows.map(\.accesses) == [300, 300])
    let replay = Replay(trace, fitShare: 0.25)
    #expect(try replay.fittedUses().reduce(0, +) == 100)
  }

  @Test func missRatioCurvesAreThoseOfReplays() throws {
    for seed in 0..<4 as Range<UInt64> {
      let trace = randomTrace(
        layers: 4, experts: 16, topK: 2, tokens: 300, byteCounts: [300, 500, 300, 400],
        promptTokens: 5, seed: seed)
      let replay = Replay(trace)
      let capacities = stride(from: 1000, through: 24000, by: 500).map { $0 }
      let curve = try MissRatioCurve(replay).hitRates(at: capacities)
      for (capacity, rate) in zip(capacities, curve) {
        let counts = try replay.run(
          capacity: capacity, policy: LRUPolicy(geometry: trace.header.geometry))
        #expect(rate == counts.decode.hitRate, "\(capacity)")
      }
    }
  }

  /// Sequences decoded together: every token once, layer by layer, a lane for each.
  @Test(arguments: [1, 2, 3, 7]) func schedulesHoldEveryEventOnce(_ batch: Int) {
    let trace = randomTrace(
      layers: 3, experts: 8, topK: 2, tokens: 9, sequences: 5, promptTokens: 2, seed: 6)
    let schedule = EventSchedule(trace, batch: batch)
    let groups = (0..<schedule.groupCount).map { Array(schedule.group($0)) }
    #expect(groups.joined().sorted() == Array(0..<Int32(trace.eventCount)))
    for group in groups {
      #expect(Set(group.map { trace.layer(of: Int($0)) }).count == 1)
      #expect(Set(group.map { trace.sequence(of: Int($0)) }).count == group.count)
      #expect(group.count <= batch)
    }
    for sequence in 0..<5 as Range<Int32> {
      let order = groups.joined().filter { trace.sequence(of: Int($0)) == sequence }
      #expect(order == order.sorted())
    }
    #expect(groups.contains { $0.count == min(batch, 5) })
  }
}

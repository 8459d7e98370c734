import Routing
import TestSupport
import Testing

@testable import Residency

/// Experts in slots, as the runtime asks for them.
@Suite struct ResidentSetTests {
  static let policies = PolicyName.allCases.filter(\.canRun)

  /// The events of `trace`.
  static func events(_ trace: RoutingTrace) -> [RoutingEvent] {
    var builder = EventBuilder(
      geometry: trace.header.geometry, hasWeights: trace.header.hasWeights)
    return (0..<trace.eventCount).map { index in
      builder.form([Int32(index)], of: trace)
      return builder.event
    }
  }

  static func plan(_ sizes: [Int], _ geometry: RoutingGeometry, capacity: Int) throws -> SlotPlan {
    try #require(
      SlotPlan(
        expertByteCounts: sizes, expertsPerLayer: geometry.expertCount, topK: geometry.topK,
        capacity: capacity))
  }

  /// Where experts are of one size and tokens come one by one, slots are bytes.
  @Test(arguments: policies) func slotsMissWhatBytesMiss(_ name: PolicyName) throws {
    for seed in 0..<8 as Range<UInt64> {
      let trace = randomTrace(
        layers: 5, experts: 24, topK: 3, tokens: 60, hasWeights: seed % 2 == 0,
        byteCounts: Array(repeating: 7, count: 5), seed: seed)
      let geometry = trace.header.geometry
      let slotCount = 3 + Int(seed) * 9
      let plan = try Self.plan(
        Array(repeating: 8, count: 5), geometry, capacity: 8 * slotCount + 5)
      let policy = name.make(geometry: geometry, capacity: 7 * slotCount)
      var slots = ResidentSet(geometry: geometry, plan: plan, policy: policy)
      var bytes = ResidentSet(geometry: geometry, capacity: 7 * slotCount, policy: policy)
      var missed: (slots: [Int32], bytes: [Int32]) = ([], [])
      for event in Self.events(trace) {
        let served = slots.serve(event, missed: &missed.slots)
        #expect(served == bytes.serve(event, missed: &missed.bytes))
        #expect(missed.slots == missed.bytes)
      }
    }
  }

  /// Prompts, tokens and batches through slots of two sizes: who follows the answers finds every expert
  /// where it is said to be.
  @Test(arguments: policies) func everyExpertIsInItsSlot(_ name: PolicyName) throws {
    for seed in 0..<12 as Range<UInt64> {
      let trace = randomTrace(
        layers: 6, experts: 20, topK: 2, tokens: 25, sequences: 4, hasWeights: true,
        byteCounts: [5, 5, 9, 5, 9, 5], promptTokens: [1, 3, 40][Int(seed % 3)], seed: seed)
      let geometry = trace.header.geometry
      let sizes = [6, 6, 10, 6, 10, 6]
      let least = SlotPlan.minimumByteCount(expertByteCounts: sizes, topK: 2)
      let plan = try Self.plan(sizes, geometry, capacity: least + Int(seed) * 60)
      var set = ResidentSet(
        geometry: geometry, plan: plan,
        policy: name.make(geometry: geometry, capacity: plan.meanCapacity(of: geometry)))
      var contents = Array(repeating: Int32(-1), count: plan.slotCount)
      var missed: [Int32] = []
      for event in Self.events(trace) + Self.events(trace).map(Self.asBatch) {
        let served = set.serve(event, missed: &missed)
        #expect(served.misses == missed.count)
        #expect(served.hits + served.misses == event.experts.count)
        for expert in event.experts where !missed.contains(expert) {
          #expect(contents[set.slot(of: expert)] == expert, "a hit is not there")
        }
        for expert in missed { contents[set.slot(of: expert)] = expert }
        let residents = (0..<Int32(120)).filter { set.table.contains($0) }
        for expert in residents {
          #expect(contents[set.slot(of: expert)] == expert, "a resident is not there")
          // Slots are numbered class by class.
          let isLarge = set.slot(of: expert) >= plan.classes[0].slotCount
          #expect(isLarge == (sizes[Int(expert) / 20] == 10))
        }
        guard !served.isStream else { continue }
        #expect(event.experts.allSatisfy(set.table.contains))
      }
    }
  }

  private static func asBatch(_ event: RoutingEvent) -> RoutingEvent {
    var event = event
    event.isPrompt = false
    return event
  }

  @Test func aFullSetHoldsEverything() throws {
    let trace = randomTrace(
      layers: 3, experts: 8, topK: 2, tokens: 5, sequences: 2, promptTokens: 9, seed: 3)
    let geometry = trace.header.geometry
    let plan = try Self.plan([1, 2, 1], geometry, capacity: 100)
    var set = ResidentSet(geometry: geometry, plan: plan, policy: LRUPolicy(geometry: geometry))
    set.fill()
    #expect(Set((0..<24).map { set.slot(of: $0) }) == Set(0..<24))
    var missed: [Int32] = []
    for event in Self.events(trace) { #expect(set.serve(event, missed: &missed).misses == 0) }
  }

  /// What the router says and what a trace says of it make the same event.
  @Test func theRuntimeAndAReplaySeeTheSameEvents() throws {
    let trace = randomTrace(
      layers: 3, experts: 8, topK: 2, tokens: 12, sequences: 2, hasWeights: true, promptTokens: 7,
      seed: 5)
    var live = EventBuilder(geometry: trace.header.geometry, hasWeights: true)
    var recorded = TraceEvent()
    var hasPrompt = false
    for (index, expected) in Self.events(trace).enumerated() {
      trace.read(index, into: &recorded)
      var routing = Routing(topK: 2)
      for (expert, weight) in zip(recorded.experts, recorded.weights) {
        routing.append(expert: Int(expert), weight: weight)
      }
      live.form(layer: recorded.layer, phase: recorded.phase, routing: routing)
      #expect(live.event.experts == expected.experts && live.event.counts == expected.counts)
      #expect(live.event.layer == expected.layer && live.event.pass == expected.pass)
      #expect(live.event.isPrompt == expected.isPrompt)
      #expect(live.event.tokenCount == expected.tokenCount)
      for (a, b) in zip(live.event.weights, expected.weights) { #expect(abs(a - b) < 0.05) }
      hasPrompt = hasPrompt || expected.tokenCount == 7
    }
    #expect(hasPrompt)
  }
}

import Routing
import TestSupport
import Testing

@testable import Residency

/// Residents that go over to another division of memory between two events.
@Suite struct ResizeTests {
  /// Whoever follows the moves finds every resident where it is said to be, and goes on as if nothing had
  /// happened but evictions.
  @Test(arguments: ResidentSetTests.policies)
  func everyResidentIsMovedToASlotOfItsOwn(_ name: PolicyName) throws {
    let sizes = [6, 6, 10, 6, 10, 6]
    for seed in 0..<6 as Range<UInt64> {
      let trace = randomTrace(
        layers: 6, experts: 20, topK: 2, tokens: 60, hasWeights: true,
        byteCounts: [5, 5, 9, 5, 9, 5], seed: seed)
      let geometry = trace.header.geometry
      let all = sizes.reduce(0, +) * 20
      let least = SlotPlan.minimumByteCount(expertByteCounts: sizes, topK: 2)
      var plan = try ResidentSetTests.plan(sizes, geometry, capacity: all / 2)
      var set = ResidentSet(
        geometry: geometry, plan: plan,
        policy: name.make(geometry: geometry, capacity: plan.meanCapacity(of: geometry)))
      /// The expert that is in each slot, as the moves and answers have it.
      var contents: [Int: Int32] = [:]
      var missed: [Int32] = []
      let capacities = [all / 4, all, least, all / 3]
      for (index, event) in ResidentSetTests.events(trace).enumerated() {
        if index % 70 == 69 {
          plan = try ResidentSetTests.plan(
            sizes, geometry, capacity: capacities[index / 70 % capacities.count])
          let moves = set.resize(to: plan)
          #expect(moves.allSatisfy { contents[$0.from] == $0.expert })
          contents = [:]
          for move in moves {
            #expect(contents.updateValue(move.expert, forKey: move.to) == nil)
            #expect(set.slot(of: move.expert) == move.to && set.table.contains(move.expert))
          }
          #expect(moves.count <= plan.slotCount)
          let kept = (0..<Int32(geometry.layerCount * geometry.expertCount)).count {
            set.table.contains($0)
          }
          #expect(kept == moves.count)
        }
        _ = set.serve(event, missed: &missed)
        for expert in missed { contents[set.slot(of: expert)] = expert }
        for expert in event.experts { #expect(contents[set.slot(of: expert)] == expert) }
        #expect(contents.keys.allSatisfy { $0 < plan.slotCount })
      }
    }
  }

  @Test func whatThePolicyWouldKeepIsKept() throws {
    let geometry = RoutingGeometry(expertCount: 8, topK: 1, expertByteCounts: [4])
    let plan = try ResidentSetTests.plan([4], geometry, capacity: 16)
    var set = ResidentSet(geometry: geometry, plan: plan, policy: LRUPolicy(geometry: geometry))
    var missed: [Int32] = []
    var event = RoutingEvent()
    for expert in [0, 1, 2, 3, 0] as [Int32] {
      event.experts = [expert]
      event.tokenCount = 1
      _ = set.serve(event, missed: &missed)
    }
    let moves = set.resize(to: try ResidentSetTests.plan([4], geometry, capacity: 8))
    #expect(moves.map(\.expert) == [0, 3])
  }
}

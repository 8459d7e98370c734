import Foundation
import Residency
import Routing
import TestSupport
import Testing

@Suite struct RoutingHistoryTests {
  private static let geometry = RoutingGeometry(
    expertCount: 8, topK: 2, expertByteCounts: [10, 20, 10])

  private static func history(_ events: [(layer: Int, experts: [Int32])]) -> RoutingHistory {
    var history = RoutingHistory(model: "m", routers: "r", layerCount: 3, expertCount: 8)
    for (layer, experts) in events {
      var event = RoutingEvent()
      event.layer = layer
      event.experts = experts.map { $0 + Int32(8 * layer) }
      history.note(event)
    }
    return history
  }

  @Test func usesAreCountedAndOlderOnesFade() {
    var old = Self.history([(0, [1, 2]), (1, [3, 4]), (2, [0, 7]), (0, [1, 5])])
    #expect(old.tokens == 2)
    #expect(old.uses[0] == [0, 2, 1, 0, 0, 1, 0, 0] && old.uses[2][7] == 1)
    #expect(old.byLikelihood.last == 1 && old.byLikelihood.count == 7)
    // What was resident comes before what was used more; what was never used does not come.
    old.residents = [0, 5, 3, 23]
    #expect(old.byLikelihood.suffix(3) == [1, 23, 5] && old.byLikelihood.count == 7)
    #expect(old.fault(routers: "r", layerCount: 3, expertCount: 8) == nil)
    old.residents = [24]
    #expect(old.fault(routers: "r", layerCount: 3, expertCount: 8)?.contains("residents") == true)
    old.residents = [9]
    var prompt = RoutingEvent()
    (prompt.layer, prompt.experts, prompt.counts) = (0, [1, 6], [4096, 3])
    (prompt.tokenCount, prompt.isPrompt) = (4096, true)
    var new = Self.history([])
    new.note(prompt)
    #expect(new.tokens == 4096 && new.uses[0][6] == 3)
    old.append(new)
    #expect(old.residents == [9])
    new.residents = [2]
    #expect(old.tokens == 4097)
    #expect(old.uses[0] == [0, 4097, 0.5, 0, 0, 0.5, 3, 0])
  }

  @Test func aHistoryComesBackAndOneOfAnotherModelDoesNot() throws {
    let history = Self.history([(0, [1, 2])])
    let read = try JSONDecoder().decode(
      RoutingHistory.self, from: JSONEncoder().encode(history))
    #expect(read == history)
    #expect(read.fault(routers: "r", layerCount: 3, expertCount: 8) == nil)
    #expect(read.fault(routers: "q", layerCount: 3, expertCount: 8) != nil)
    #expect(read.fault(routers: "r", layerCount: 2, expertCount: 8) != nil)
    #expect(read.fault(routers: "r", layerCount: 3, expertCount: 9) != nil)
    var other = read
    other.version = 2
    #expect(other.fault(routers: "r", layerCount: 3, expertCount: 8)?.contains("version 2") == true)
    let negative = String(decoding: try JSONEncoder().encode(history), as: UTF8.self)
      .replacingOccurrences(of: "[0,1,1,", with: "[0,-1,1,")
    let damaged = try JSONDecoder().decode(RoutingHistory.self, from: Data(negative.utf8))
    #expect(damaged.fault(routers: "r", layerCount: 3, expertCount: 8) != nil)
  }

  /// Filling takes what is free, evicts nothing, and what was used most stays longest.
  @Test(arguments: PolicyName.allCases.filter(\.canRun))
  func freeRoomIsFilled(_ policy: PolicyName) {
    let history = Self.history([
      (0, [1, 2]), (1, [3, 4]), (2, [0, 7]), (0, [1, 5]), (2, [7, 6]),
    ])
    var set = ResidentSet(
      geometry: Self.geometry, capacity: 60,
      policy: policy.make(geometry: Self.geometry, capacity: 60))
    set.begin(with: history)
    #expect((0..<24).allSatisfy { !set.table.contains($0) })
    var filled: [Int32] = []
    for expert in history.byLikelihood.reversed() where set.admit(expert, pass: 0) {
      filled.append(expert)
    }
    #expect(filled.prefix(2) == [1, 23])
    #expect(filled.allSatisfy { set.table.contains($0) })
    let bytes = filled.reduce(0) { $0 + Self.geometry.expertByteCounts[Int($1) / 8] }
    #expect(bytes <= 60 && bytes > 40)
    // They can be evicted again, to the last one.
    var missed: [Int32] = []
    for pass in 0..<40 as Range<Int32> {
      for layer in 0..<3 as Range<Int32> {
        var event = RoutingEvent()
        (event.layer, event.pass) = (Int(layer), Int(pass))
        event.experts = [8 * layer + pass % 8, 8 * layer + (pass + 3) % 8]
        let hits = event.experts.count { set.table.contains($0) }
        #expect(set.serve(event, missed: &missed).hits == hits)
        #expect(event.experts.allSatisfy { set.table.contains($0) })
        let resident = (0..<24 as Range<Int32>).filter { set.table.contains($0) }
        #expect(
          resident.reduce(0) { $0 + Self.geometry.expertByteCounts[Int($1) / 8] } <= 60)
      }
    }
  }
}

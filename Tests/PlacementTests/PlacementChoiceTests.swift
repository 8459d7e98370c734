import Placement
import TestSupport
import Testing

@Suite struct PlacementChoiceTests {
  private static func value(_ items: [PlacementItem], _ chosen: [Int]) -> Double {
    chosen.reduce(0) { $0 + items[$1].value }
  }

  private static func bytes(_ items: [PlacementItem], _ chosen: [Int]) -> Int {
    chosen.reduce(0) { $0 + items[$1].bytes }
  }

  /// Experts of one to three sizes whose values fall off as popularities do.
  private static func experts(_ count: Int, random: inout SeededGenerator) -> [PlacementItem] {
    (0..<count).map { index in
      let value = Double.random(in: 0.5...1, using: &random) / Double(index % 32 + 1)
      return PlacementItem(bytes: [4, 5, 7].randomElement(using: &random)!, value: value)
    }
  }

  @Test func exactIsTheBestOfAllSubsets() {
    var random = SeededGenerator(seed: 3)
    for _ in 0..<40 {
      let items = (0..<9).map { _ in
        PlacementItem(
          bytes: Int.random(in: 1...9, using: &random),
          value: Double.random(in: -0.2...1, using: &random))
      }
      let room = Int.random(in: 0...30, using: &random)
      var best = 0.0
      for subset in 0..<1 << items.count {
        let chosen = items.indices.filter { subset >> $0 & 1 == 1 }
        if Self.bytes(items, chosen) <= room { best = max(best, Self.value(items, chosen)) }
      }
      let exact = PlacementChoice.exact(items, bytes: room, unit: 1)
      #expect(Self.bytes(items, exact) <= room)
      #expect(abs(Self.value(items, exact) - best) < 1e-9)
    }
  }

  @Test func greedyIsWithinAHundredthOfExact() {
    var random = SeededGenerator(seed: 4)
    var worst = 0.0
    for share in [0.1, 0.25, 0.5, 0.75, 0.9] {
      for _ in 0..<4 {
        let items = Self.experts(256, random: &random)
        let room = Int(share * Double(Self.bytes(items, Array(items.indices))))
        let greedy = PlacementChoice.greedy(items, bytes: room)
        let exact = PlacementChoice.exact(items, bytes: room, unit: 1)
        #expect(Self.bytes(items, greedy) <= room)
        worst = max(worst, 1 - Self.value(items, greedy) / Self.value(items, exact))
      }
    }
    #expect(worst <= 0.01, "\(worst)")
  }

  @Test func whatIsWorthNothingStaysOut() {
    let items = [PlacementItem(bytes: 1, value: 0), PlacementItem(bytes: 1, value: -1)]
    #expect(PlacementChoice.greedy(items, bytes: 10).isEmpty)
    #expect(PlacementChoice.exact(items, bytes: 10, unit: 1).isEmpty)
    #expect(PlacementChoice.greedy([], bytes: 0).isEmpty)
  }
}

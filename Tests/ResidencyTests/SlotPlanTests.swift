import Residency
import TestSupport
import Testing

@Suite struct SlotPlanTests {
  /// A random model of one to four expert sizes.
  private struct Model: CustomStringConvertible {
    let expertByteCounts: [Int]
    let expertsPerLayer: Int
    let topK: Int

    init(using generator: inout SeededGenerator, sizeCount: Int? = nil) {
      let unit = [1, 512, 4096].randomElement(using: &generator)!
      let sizes = (0..<(sizeCount ?? Int.random(in: 1...4, using: &generator))).map { _ in
        unit * Int.random(in: 1...2000, using: &generator)
      }
      expertByteCounts = (0..<Int.random(in: 1...12, using: &generator)).map { _ in
        sizes.randomElement(using: &generator)!
      }
      expertsPerLayer = .random(in: 1...64, using: &generator)
      topK = .random(in: 1...min(8, expertsPerLayer), using: &generator)
    }

    var total: Int { expertByteCounts.reduce(0, +) * expertsPerLayer }
    var minimum: Int { SlotPlan.minimumByteCount(expertByteCounts: expertByteCounts, topK: topK) }
    var description: String { "\(expertByteCounts) x \(expertsPerLayer), top \(topK)" }

    func plan(_ capacity: Int?) -> SlotPlan? {
      SlotPlan(
        expertByteCounts: expertByteCounts, expertsPerLayer: expertsPerLayer, topK: topK,
        capacity: capacity)
    }

    /// Capacities at every edge and between them.
    func capacities(using generator: inout SeededGenerator) -> [Int] {
      [minimum, minimum + 1, (minimum + total) / 2, total - 1].filter { minimum...total ~= $0 }
        + (0..<12).map { _ in Int.random(in: minimum...total, using: &generator) }
    }

    /// The experts whose size is `byteCount`.
    func expertCount(ofSize byteCount: Int) -> Int {
      expertByteCounts.filter { $0 == byteCount }.count * expertsPerLayer
    }
  }

  @Test func anyCapacityFromTheMinimumOnHoldsEveryLayersTopK() throws {
    var generator = SeededGenerator(seed: 11)
    for _ in 0..<400 {
      let model = Model(using: &generator)
      for capacity in model.capacities(using: &generator) {
        let plan = try #require(model.plan(capacity), "\(model), \(capacity) bytes")
        try #require(plan.byteCount <= capacity, "\(model), \(capacity) bytes: \(plan)")
        let sizes = plan.classes.map(\.byteCount)
        try #require(sizes == Set(model.expertByteCounts).sorted())
        try #require(plan.classes.allSatisfy { $0.slotCount >= 0 })
        try #require(plan.slotCount == plan.classes.reduce(0) { $0 + $1.slotCount })
        for (layer, size) in model.expertByteCounts.enumerated() {
          let slots = plan.classes[plan.classOfLayer[layer]]
          try #require(slots.byteCount == size)
          try #require(slots.slotCount >= model.topK, "\(model), \(capacity) bytes: \(plan)")
        }
      }
    }
  }

  @Test func noClassHasMoreSlotsThanItsSizeHasExperts() throws {
    var generator = SeededGenerator(seed: 12)
    for _ in 0..<400 {
      let model = Model(using: &generator)
      for capacity in model.capacities(using: &generator) {
        for slotClass in try #require(model.plan(capacity)).classes {
          let expertCount = model.expertCount(ofSize: slotClass.byteCount)
          try #require(slotClass.slotCount <= expertCount, "\(model), \(capacity) bytes")
        }
      }
    }
  }

  @Test func spaceLeftOverIsTooSmallForAnyMissingExpert() throws {
    var generator = SeededGenerator(seed: 13)
    for _ in 0..<400 {
      let model = Model(using: &generator)
      for capacity in model.capacities(using: &generator) {
        let plan = try #require(model.plan(capacity))
        for slotClass in plan.classes {
          let expertCount = model.expertCount(ofSize: slotClass.byteCount)
          guard slotClass.slotCount < expertCount else { continue }
          try #require(capacity - plan.byteCount < slotClass.byteCount, "\(model), \(capacity)")
        }
      }
    }
  }

  @Test func belowTheMinimumThereIsNoPlan() {
    var generator = SeededGenerator(seed: 14)
    for _ in 0..<200 {
      let model = Model(using: &generator)
      for capacity in [model.minimum - 1, 0, -1, Int.min] { #expect(model.plan(capacity) == nil) }
      #expect(model.minimum == Set(model.expertByteCounts).reduce(0, +) * model.topK)
    }
  }

  @Test func everyExpertIsResidentWhenAllFit() throws {
    var generator = SeededGenerator(seed: 15)
    for _ in 0..<200 {
      let model = Model(using: &generator)
      let everything = try #require(model.plan(nil))
      #expect(everything.byteCount == model.total)
      for slotClass in everything.classes {
        #expect(slotClass.slotCount == model.expertCount(ofSize: slotClass.byteCount))
      }
      for capacity in [model.total, model.total + 1, Int.max] {
        #expect(model.plan(capacity) == everything)
      }
    }
  }

  @Test func oneSizeGetsAsManySlotsAsFit() throws {
    var generator = SeededGenerator(seed: 16)
    for _ in 0..<200 {
      let model = Model(using: &generator, sizeCount: 1)
      var previous = 0
      for capacity in model.capacities(using: &generator).sorted() {
        let plan = try #require(model.plan(capacity))
        #expect(plan.slotCount == capacity / model.expertByteCounts[0])
        #expect(plan.slotCount >= previous)
        previous = plan.slotCount
      }
    }
  }

  @Test func sizesShareInProportionToTheirExperts() throws {
    // 600 experts of 1 MiB and 200 of 2 MiB, in half of the space they need.
    let plan = try #require(
      SlotPlan(
        expertByteCounts: Array(repeating: 1 << 20, count: 6) + [2 << 20, 2 << 20],
        expertsPerLayer: 100, topK: 8, capacity: 500 << 20))
    #expect(plan.classes.map(\.slotCount) == [300, 100])
  }
}

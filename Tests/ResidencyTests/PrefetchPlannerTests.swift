import Routing
import TestSupport
import Testing

@testable import Residency

/// What is read ahead, and when nothing is.
@Suite struct PrefetchPlannerTests {
  static let geometry = RoutingGeometry(expertCount: 16, topK: 2, expertByteCounts: [10, 10])

  private static func scores(_ values: [Int: Float]) -> [Float] {
    (0..<16).map { values[$0] ?? 0 }
  }

  private static func event(_ experts: [Int32], layer: Int = 1) -> RoutingEvent {
    var event = RoutingEvent()
    event.layer = layer
    event.experts = experts.map { $0 + Int32(16 * layer) }
    return event
  }

  private static func residents(_ experts: [Int32]) -> ResidentSet {
    var set = ResidentSet(
      geometry: geometry, capacity: 1000, policy: LRUPolicy(geometry: geometry))
    var missed: [Int32] = []
    if !experts.isEmpty { _ = set.serve(event(experts), missed: &missed) }
    return set
  }

  @Test func onlyNonResidentsThatAreClearlyPredictedAreRead() {
    var planner = PrefetchPlanner(geometry: Self.geometry)
    let residents = Self.residents([3])
    planner.predict(
      layer: 1, distance: 1, scores: Self.scores([3: 9, 5: 8, 7: 0.4]).span,
      residents: residents.table, utilisation: 0.5)
    #expect(planner.wanted == [16 + 5])
    // Nothing stands out.
    planner.predict(
      layer: 1, distance: 1, scores: Self.scores([:]).span, residents: residents.table,
      utilisation: 0.5)
    #expect(planner.wanted.isEmpty)
  }

  @Test func probabilitiesAreThoseCounted() {
    var planner = PrefetchPlanner(geometry: Self.geometry)
    let residents = Self.residents([])
    func predict() {
      planner.predict(
        layer: 1, distance: 1, scores: Self.scores([3: 9, 5: 8]).span, residents: residents.table,
        utilisation: 0.5)
    }
    predict()
    #expect(planner.wanted == [16 + 3, 16 + 5])
    // The router thinks otherwise, again and again: it is not believed any more.
    for _ in 0..<40 {
      predict()
      let outcome = planner.settle(Self.event([1, 2]))
      #expect(outcome.right == 0)
    }
    predict()
    #expect(planner.wanted.isEmpty)
    for _ in 0..<400 {
      predict()
      planner.settle(Self.event([3, 5]))
    }
    predict()
    #expect(planner.wanted == [16 + 3, 16 + 5])
    #expect(planner.settle(Self.event([3, 4])) == (1, 1))
  }

  @Test func whatDoesNotPayIsSwitchedOffAndOnAgain() {
    var planner = PrefetchPlanner(geometry: Self.geometry)
    let residents = Self.residents([])
    func pass(saved: Float) -> Bool {
      let wants = planner.wantsPredictions
      if wants {
        planner.predict(
          layer: 1, distance: 1, scores: Self.scores([3: 9, 5: 8]).span,
          residents: residents.table, utilisation: 0.5)
      }
      planner.note(layer: 0, saved: 0, spent: 0.01, elapsed: 1)
      planner.note(layer: 1, saved: saved, spent: 0.01, elapsed: 1)
      return wants
    }
    for _ in 0..<20 { #expect(pass(saved: 0.1)) }
    #expect(planner.isOpen && !planner.wanted.isEmpty)
    for _ in 0..<200 { _ = pass(saved: 0) }
    #expect(!planner.isOpen && planner.wanted.isEmpty)
    // It looks now and then, the longer it has been so the more seldom, and only then.
    for _ in 0..<1000 { _ = pass(saved: 0) }
    let looks = (0..<640).count { _ in pass(saved: 0) }
    #expect(looks == 10)
    for _ in 0..<1000 { _ = pass(saved: 0.3) }
    #expect(planner.isOpen)
    for _ in 0..<100 { _ = pass(saved: 0) }
    #expect(!planner.isOpen)
    #expect((11...13).contains((0..<90).count { _ in pass(saved: 0) }))
    for _ in 0..<1000 { _ = pass(saved: 0.3) }
    #expect(planner.isOpen)
    // Whoever insists is not governed.
    var insisting = PrefetchPlanner.Parameters()
    insisting.isGoverned = false
    planner = PrefetchPlanner(geometry: Self.geometry, parameters: insisting)
    for _ in 0..<200 { _ = pass(saved: 0) }
    #expect(planner.isOpen && !planner.wanted.isEmpty)
  }

  @Test(arguments: 0..<20 as Range<UInt64>) func stagingHasNoSayInWhoIsResident(_ seed: UInt64)
    throws
  {
    let trace = randomTrace(
      layers: 4, experts: 32, topK: 2, tokens: 40, sequences: 2, hasWeights: true,
      byteCounts: [5, 9, 5, 9], promptTokens: 9, seed: seed)
    let geometry = trace.header.geometry
    let sizes = [6, 10, 6, 10]
    let plan = try #require(
      SlotPlan(expertByteCounts: sizes, expertsPerLayer: 32, topK: 2, capacity: 16 * 50)
    ).withStaging(expertByteCounts: sizes, expertsPerLayer: 32, topK: 2)
    #expect(plan.stagingCount == 1 && plan.byteCount <= 16 * 50)
    let plain = try #require(
      SlotPlan(
        expertByteCounts: sizes, expertsPerLayer: 32, topK: 2, capacity: plan.capacity))
    #expect(plain.classes == plan.classes)
    func set(_ plan: SlotPlan) -> ResidentSet {
      ResidentSet(
        geometry: geometry, plan: plan,
        policy: PolicyName.nextUse.make(
          geometry: geometry, capacity: plan.meanCapacity(of: geometry)))
    }
    var (staging, without) = (set(plan), set(plain))
    var contents = Array(repeating: Int32(-1), count: plan.slotCount + 2)
    var missed: [Int32] = []
    var other: [Int32] = []
    var generator = SeededGenerator(seed: seed)
    var inTime = 0
    for event in ResidentSetTests.events(trace) {
      // One of the event's experts, or any, is read ahead.
      let guess =
        Bool.random(using: &generator)
        ? event.experts.randomElement(using: &generator)!
        : Int32.random(in: 0..<128, using: &generator)
      if !staging.table.contains(guess), staging.stagedSlot(of: guess) == nil {
        for old in staging.staged(layer: Int(guess) / 32) { staging.discard(old) }
        let slot = staging.stage(guess)
        contents[try #require(slot)] = guess
      }
      let ahead = event.experts.filter { staging.stagedSlot(of: $0) != nil }
      #expect(staging.serve(event, missed: &missed) == without.serve(event, missed: &other))
      #expect(missed == other)
      for expert in missed {
        let slot = staging.slot(of: expert)
        if ahead.contains(expert), staging.table.contains(expert) {
          #expect(contents[slot] == expert && staging.stagedSlot(of: expert) == nil)
          inTime += 1
        }
        contents[slot] = expert
      }
      for expert in Int32(0)..<128 where staging.table.contains(expert) {
        #expect(contents[staging.slot(of: expert)] == expert)
      }
      for expert in Int32(0)..<128 {
        if let slot = staging.stagedSlot(of: expert) { #expect(contents[slot] == expert) }
      }
    }
    #expect(inTime > 0)
  }

  @Test func recallCountsWhatItSays() {
    var tally = PredictionTally()
    tally.note(
      scores: [5, 4, 3, 2, 1], experts: [0, 2], more: 1, isResident: { $0 == 0 || $0 == 3 })
    #expect(tally.recall == 0.5 && tally.recallWithMore == 1)
    // Expert 2 was missed and not among the two likeliest; expert 1 was, in vain.
    #expect(tally.missRecall == 0 && tally.missPrecision == 0)
    tally.note(scores: [0, 1, 2, 0, 0], experts: [1, 2], more: 1, isResident: { _ in false })
    #expect(tally.recall == 0.75 && tally.missRecall == 2.0 / 3 && tally.missPrecision == 2.0 / 3)
  }

  @Test func historyRepeatsItself() {
    for name in HistoryPredictorName.allCases {
      var predictor = HistoryPredictor(name, geometry: Self.geometry, farthest: 2)
      func likeliest(_ layer: Int, _ distance: Int) -> Set<Int> {
        let scores = predictor.scores(layer: layer, distance: distance)
        return Set(scores.indices.sorted { scores[$0] > scores[$1] }.prefix(2))
      }
      // Two kinds of sequence; the second is rarer.
      for kind in [0, 0, 1, 0] {
        predictor.beginSequence()
        for _ in 0..<10 {
          predictor.observe(layer: 0, experts: [kind, kind + 2])
          predictor.observe(layer: 1, experts: [kind + 4, kind + 6])
        }
      }
      predictor.beginSequence()
      for _ in 0..<2 {
        predictor.observe(layer: 0, experts: [1, 3])
        predictor.observe(layer: 1, experts: [5, 7])
      }
      predictor.observe(layer: 0, experts: [1, 3])
      let expected: Set<Int> = name == .popularity ? [4, 6] : [5, 7]
      #expect(likeliest(1, 1) == expected, "\(name)")
    }
  }
}

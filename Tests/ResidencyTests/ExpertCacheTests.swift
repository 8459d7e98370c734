import Residency
import Routing
import TestSupport
import Testing

/// A model and a budget whose cache is driven by random events.
struct CacheCase: Sendable, CustomTestStringConvertible {
  let name: String
  let expertByteCounts: [Int]
  let expertsPerLayer: Int
  let topK: Int
  let capacity: Int?

  var testDescription: String { name }

  var plan: SlotPlan? {
    SlotPlan(
      expertByteCounts: expertByteCounts, expertsPerLayer: expertsPerLayer, topK: topK,
      capacity: capacity)
  }

  static let all = [
    CacheCase(
      name: "one slot", expertByteCounts: [10, 10], expertsPerLayer: 4, topK: 1, capacity: 10),
    CacheCase(
      name: "one class, tight", expertByteCounts: [10, 10, 10], expertsPerLayer: 8, topK: 2,
      capacity: 35),
    CacheCase(
      name: "one class, half", expertByteCounts: [64, 64, 64, 64], expertsPerLayer: 8, topK: 4,
      capacity: 1024),
    CacheCase(
      name: "everything fits", expertByteCounts: [64, 64], expertsPerLayer: 6, topK: 2,
      capacity: nil),
    CacheCase(
      name: "two classes", expertByteCounts: [30, 20, 20, 30, 20], expertsPerLayer: 6, topK: 2,
      capacity: 330),
    CacheCase(
      name: "the largest class alone", expertByteCounts: [7, 100], expertsPerLayer: 8, topK: 3,
      capacity: 300),
    CacheCase(
      name: "three classes", expertByteCounts: [10, 40, 25, 10, 25, 40], expertsPerLayer: 8,
      topK: 3, capacity: 600),
  ]
}

@Suite struct ExpertCacheTests {
  /// Drives a cache and its plain counterpart through the same random events.
  private struct Driver {
    let example: CacheCase
    var cache: ExpertCache
    var plain: LinearCache
    var generator: SeededGenerator
    /// Slots with a read in flight, and slots held, once per hold.
    var reading: [Int] = []
    var held: [Int] = []
    /// Owners may let go of a slot before its read is over, as a prefetch does.
    let releasesWhileReading: Bool
    /// How often each kind of event occurred.
    var tally: [String: Int] = [:]

    init(_ example: CacheCase, seed: UInt64, releasesWhileReading: Bool = false) throws {
      self.example = example
      let plan = try #require(example.plan)
      cache = ExpertCache(
        plan: plan, expertByteCounts: example.expertByteCounts,
        expertsPerLayer: example.expertsPerLayer)
      plain = LinearCache(plan: plan, expertByteCounts: example.expertByteCounts)
      generator = SeededGenerator(seed: seed)
      self.releasesWhileReading = releasesWhileReading
    }

    mutating func step() throws {
      switch Int.random(in: 0..<20, using: &generator) {
      case 0..<9: try access()
      case 9..<13: endRead()
      default: release()
      }
    }

    private mutating func access() throws {
      let expert = ExpertID(
        layer: .random(in: example.expertByteCounts.indices, using: &generator),
        expert: .random(in: 0..<example.expertsPerLayer, using: &generator))
      let expected = plain.answer(for: expert)
      let admission: ExpertCache.Admission =
        Int.random(in: 0..<3, using: &generator) == 0 ? .stream : .keep
      let access = cache.access(expert, as: admission)
      try #require(
        expected.allows(access, slots: plain.slots), "\(expert): \(access), not \(expected)")
      plain.record(access, of: expert, as: admission)
      for layer in example.expertByteCounts.indices {
        try #require(cache.spareSlotCount(layer: layer) == plain.spareSlotCount(layer: layer))
        try #require(cache.hasIdleSpareSlot(layer: layer) == plain.hasIdleSpareSlot(layer: layer))
      }
      switch access {
      case .hit(let slot):
        held.append(slot)
        tally["hit", default: 0] += 1
      case .pending(let slot):
        held.append(slot)
        tally["pending", default: 0] += 1
      case .read(let slot, let evicted):
        held.append(slot)
        reading.append(slot)
        tally[evicted == nil ? "free" : "evict", default: 0] += 1
      case .full: tally["full", default: 0] += 1
      }
    }

    private mutating func endRead() {
      guard let index = reading.indices.randomElement(using: &generator) else { return }
      let slot = reading.remove(at: index)
      if Int.random(in: 0..<6, using: &generator) == 0 {
        cache.failRead(slot: slot)
        plain.failRead(slot: slot)
        held.removeAll { $0 == slot }
        tally["fail", default: 0] += 1
      } else {
        cache.finishRead(slot: slot)
        plain.finishRead(slot: slot)
      }
    }

    private mutating func release() {
      guard let index = held.indices.randomElement(using: &generator) else { return }
      guard releasesWhileReading || !reading.contains(held[index]) else { return }
      let slot = held.remove(at: index)
      cache.release(slot: slot)
      plain.release(slot: slot)
    }

    /// What must hold between any two events, in the plain cache and seen from outside.
    func checkInvariants() throws {
      let occupied = plain.slots.compactMap(\.expert)
      try #require(Set(occupied).count == occupied.count, "an expert is in two slots")
      try #require(cache.residentCount == occupied.count)
      for slot in held { try #require(plain.slots[slot].users > 0) }
      for slot in plain.slots {
        guard let expert = slot.expert else { continue }
        try #require(slot.byteCount >= example.expertByteCounts[expert.layer])
        try #require(cache.isResident(expert) == !slot.isReading)
      }
      for layer in example.expertByteCounts.indices {
        for number in 0..<example.expertsPerLayer {
          let expert = ExpertID(layer: layer, expert: number)
          try #require(!cache.isResident(expert) || occupied.contains(expert))
        }
      }
    }
  }

  @Test(arguments: CacheCase.all)
  func agreesWithALinearScanOnRandomEvents(_ example: CacheCase) throws {
    var tally: [String: Int] = [:]
    for seed in 0..<40 as Range<UInt64> {
      var driver = try Driver(example, seed: seed)
      for index in 0..<300 {
        try driver.step()
        if index.isMultiple(of: 16) { try driver.checkInvariants() }
      }
      try driver.checkInvariants()
      tally.merge(driver.tally, uniquingKeysWith: +)
    }
    // The sequences must have met every event, or they have shown nothing about it.
    let holdsAll = example.capacity == nil
    for event in ["hit", "pending", "free", "fail"] { #expect(tally[event, default: 0] > 0) }
    for event in ["evict", "full"] { #expect(holdsAll == (tally[event, default: 0] == 0)) }
  }

  @Test(arguments: CacheCase.all)
  func aSlotWithAReadInFlightIsNotReusedAfterItsRelease(_ example: CacheCase) throws {
    for seed in 0..<40 as Range<UInt64> {
      var driver = try Driver(example, seed: seed, releasesWhileReading: true)
      for _ in 0..<300 { try driver.step() }
      try driver.checkInvariants()
    }
  }

  // MARK: - By example

  /// A cache of `slotCount` slots over two layers of eight experts.
  private func cache(slotCount: Int) throws -> ExpertCache {
    let plan = try #require(
      SlotPlan(
        expertByteCounts: [10, 10], expertsPerLayer: 8, topK: 1, capacity: 10 * slotCount))
    return ExpertCache(plan: plan, expertByteCounts: [10, 10], expertsPerLayer: 8)
  }

  private func id(_ expert: Int, layer: Int = 0) -> ExpertID {
    ExpertID(layer: layer, expert: expert)
  }

  /// Accesses an expert that has to be read, and completes the read; returns slot and victim.
  private func load(
    _ expert: ExpertID, into cache: inout ExpertCache, releasing: Bool = true
  ) throws -> (slot: Int, evicted: ExpertID?) {
    guard case .read(let slot, let evicted) = cache.access(expert) else {
      throw Unexpected.noRead
    }
    cache.finishRead(slot: slot)
    if releasing { cache.release(slot: slot) }
    return (slot, evicted)
  }

  private enum Unexpected: Error { case noRead }

  @Test func evictsTheLeastRecentlyAccessedOverAllLayers() throws {
    var cache = try cache(slotCount: 3)
    let first = try load(id(0), into: &cache).slot
    _ = try load(id(0, layer: 1), into: &cache)
    _ = try load(id(1), into: &cache)
    #expect(cache.access(id(0)) == .hit(slot: first))
    cache.release(slot: first)
    #expect(try load(id(2), into: &cache).evicted == id(0, layer: 1))
    #expect(try load(id(3), into: &cache).evicted == id(1))
    #expect(try load(id(4), into: &cache).evicted == id(0))
    #expect(!cache.isResident(id(0)) && cache.isResident(id(4)))
  }

  @Test func aHeldExpertIsPassedOverUntilItsLastRelease() throws {
    var cache = try cache(slotCount: 2)
    let slot = try load(id(0), into: &cache, releasing: false).slot
    #expect(cache.access(id(0)) == .hit(slot: slot))
    _ = try load(id(1), into: &cache)
    #expect(try load(id(2), into: &cache, releasing: false).evicted == id(1))
    #expect(cache.access(id(3)) == .full)
    cache.release(slot: slot)
    #expect(cache.access(id(3)) == .full)
    cache.release(slot: slot)
    #expect(cache.access(id(3)) == .read(slot: slot, evicting: id(0)))
  }

  @Test func aFullAnswerChangesNothing() throws {
    var cache = try cache(slotCount: 1)
    let slot = try load(id(0), into: &cache, releasing: false).slot
    for _ in 0..<3 { #expect(cache.access(id(1)) == .full) }
    #expect(cache.isResident(id(0)) && !cache.isResident(id(1)) && cache.residentCount == 1)
    #expect(cache.access(id(0)) == .hit(slot: slot))
  }

  @Test func aFailedReadLeavesAnEmptySlot() throws {
    var cache = try cache(slotCount: 1)
    guard case .read(let slot, nil) = cache.access(id(0)) else { throw Unexpected.noRead }
    #expect(cache.access(id(0)) == .pending(slot: slot))
    #expect(cache.residentCount == 1 && !cache.isResident(id(0)))
    cache.failRead(slot: slot)
    #expect(cache.residentCount == 0)
    #expect(cache.access(id(0)) == .read(slot: slot, evicting: nil))
  }

  @Test func slotsAreNumberedInAscendingSize() throws {
    for example in CacheCase.all {
      let plan = try #require(example.plan)
      let cache = ExpertCache(
        plan: plan, expertByteCounts: example.expertByteCounts,
        expertsPerLayer: example.expertsPerLayer)
      let expected = plan.classes.flatMap { Array(repeating: $0.byteCount, count: $0.slotCount) }
      #expect((0..<cache.slotCount).map(cache.byteCount(ofSlot:)) == expected)
      #expect(expected == expected.sorted() && cache.residentCount == 0)
    }
  }

  // MARK: - Misuse

  @Test func releasingASlotThatIsNotHeldTraps() async {
    await #expect(processExitsWith: .failure) {
      let plan = SlotPlan(expertByteCounts: [8], expertsPerLayer: 2, topK: 1, capacity: nil)!
      var cache = ExpertCache(plan: plan, expertByteCounts: [8], expertsPerLayer: 2)
      cache.release(slot: 0)
    }
  }

  @Test func endingAReadThatIsNotInFlightTraps() async {
    await #expect(processExitsWith: .failure) {
      let plan = SlotPlan(expertByteCounts: [8], expertsPerLayer: 2, topK: 1, capacity: nil)!
      var cache = ExpertCache(plan: plan, expertByteCounts: [8], expertsPerLayer: 2)
      cache.finishRead(slot: 0)
    }
    await #expect(processExitsWith: .failure) {
      let plan = SlotPlan(expertByteCounts: [8], expertsPerLayer: 2, topK: 1, capacity: nil)!
      var cache = ExpertCache(plan: plan, expertByteCounts: [8], expertsPerLayer: 2)
      cache.failRead(slot: 1)
    }
  }

  @Test func anExpertOutsideTheModelTraps() async {
    await #expect(processExitsWith: .failure) {
      let plan = SlotPlan(expertByteCounts: [8, 8], expertsPerLayer: 2, topK: 1, capacity: nil)!
      var cache = ExpertCache(plan: plan, expertByteCounts: [8, 8], expertsPerLayer: 2)
      // In range as a flat index, but not as an expert of layer 0.
      _ = cache.access(ExpertID(layer: 0, expert: 2))
    }
  }

  @Test func aLayerWhoseExpertsFitNoSlotTraps() async {
    await #expect(processExitsWith: .failure) {
      let plan = SlotPlan(expertByteCounts: [8], expertsPerLayer: 2, topK: 1, capacity: nil)!
      _ = ExpertCache(plan: plan, expertByteCounts: [9], expertsPerLayer: 2)
    }
  }
}

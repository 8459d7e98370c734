import Routing
import TestSupport
import Testing

@Suite struct RoutingTests {
  /// A softmax-like vector; with `levels`, of few distinct values, so that many are equal.
  private func probabilities(
    count: Int, levels: Int?, using generator: inout SeededGenerator
  ) -> [Float] {
    let raw = (0..<count).map { _ -> Float in
      guard let levels else { return .random(in: 0...1, using: &generator) }
      return Float(Int.random(in: 1...levels, using: &generator))
    }
    let sum = raw.reduce(0, +)
    return raw.map { $0 / sum }
  }

  private func routed(_ probabilities: [Float], topK: Int, normalized: Bool = false) -> Routing {
    var routing = Routing(topK: topK)
    probabilities.withUnsafeBufferPointer { routing.appendTopK(of: $0, normalized: normalized) }
    return routing
  }

  @Test(arguments: [nil, 1, 2, 5] as [Int?])
  func choosesWhatASortWouldChoose(_ levels: Int?) throws {
    var generator = SeededGenerator(seed: UInt64(levels ?? 0) + 1)
    for _ in 0..<500 {
      let count = Int.random(in: 1...128, using: &generator)
      let topK = Int.random(in: 1...min(count, 16), using: &generator)
      let values = probabilities(count: count, levels: levels, using: &generator)
      let sorted = values.indices.sorted {
        values[$0] != values[$1] ? values[$0] > values[$1] : $0 < $1
      }
      let routing = routed(values, topK: topK)
      try #require(routing.experts == sorted.prefix(topK).map(Int32.init))
      try #require(routing.weights == sorted.prefix(topK).map { values[$0] })
      try #require(routing.tokenCount == 1)
    }
  }

  @Test func normalizedWeightsSumToOneAndKeepTheirRatios() throws {
    var generator = SeededGenerator(seed: 9)
    for _ in 0..<500 {
      let count = Int.random(in: 16...128, using: &generator)
      let topK = Int.random(in: 1...16, using: &generator)
      let values = probabilities(count: count, levels: nil, using: &generator)
      let plain = routed(values, topK: topK)
      let normalized = routed(values, topK: topK, normalized: true)
      try #require(normalized.experts == plain.experts)
      let sum = normalized.weights.reduce(0.0) { $0 + Double($1) }
      try #require(abs(sum - 1) <= 1e-6)
      let plainSum = plain.weights.reduce(0.0) { $0 + Double($1) }
      for (weight, before) in zip(normalized.weights, plain.weights) {
        try #require(abs(Double(weight) - Double(before) / plainSum) <= 1e-6)
      }
    }
  }

  @Test func normalizingATokenLeavesEarlierOnesAlone() {
    var routing = Routing(topK: 2, tokenCapacity: 2)
    let first: [Float] = [0.1, 0.6, 0.3]
    let second: [Float] = [0.25, 0.25, 0.5]
    first.withUnsafeBufferPointer { routing.appendTopK(of: $0, normalized: false) }
    second.withUnsafeBufferPointer { routing.appendTopK(of: $0, normalized: true) }
    #expect(routing.tokenCount == 2)
    #expect(routing.experts == [1, 2, 2, 0])
    #expect(routing.weights == [0.6, 0.3, 0.5 / 0.75, 0.25 / 0.75])
  }

  @Test func aNaNNeverDisplacesANumber() {
    #expect(routed([0.5, 0.25, .nan, 0.125], topK: 2).experts == [0, 1])
    #expect(routed([0.5, 0.25, .nan, 0.75], topK: 2).experts == [3, 0])
  }

  @Test func nansStillGiveTopKDistinctExperts() throws {
    var generator = SeededGenerator(seed: 21)
    for _ in 0..<500 {
      let count = Int.random(in: 1...40, using: &generator)
      let topK = Int.random(in: 1...count, using: &generator)
      let values = (0..<count).map { _ in
        Bool.random(using: &generator) ? Float.nan : .random(in: 0...1, using: &generator)
      }
      let routing = routed(values, topK: topK, normalized: true)
      try #require(Set(routing.experts).count == topK && routing.weights.count == topK)
      try #require(routing.experts.allSatisfy { 0..<count ~= Int($0) })
    }
  }

  @Test func storageIsKeptFromStepToStep() {
    var generator = SeededGenerator(seed: 5)
    let topK = 8
    let tokens = 32
    var routing = Routing(topK: topK, tokenCapacity: tokens)
    func addresses() -> [UInt] {
      [
        routing.experts.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) },
        routing.weights.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) },
      ]
    }
    var seen: Set<[UInt]> = []
    for _ in 0..<10 {
      routing.removeAll()
      #expect(routing.tokenCount == 0 && routing.experts.isEmpty && routing.weights.isEmpty)
      for _ in 0..<tokens {
        let values = probabilities(count: 64, levels: 7, using: &generator)
        values.withUnsafeBufferPointer { routing.appendTopK(of: $0, normalized: true) }
        seen.insert(addresses())
      }
      #expect(routing.tokenCount == tokens)
    }
    #expect(seen.count == 1)
  }

  @Test func expertsAppendedOneByOneMakeTokens() {
    var routing = Routing(topK: 2)
    routing.append(expert: 7, weight: 0.75)
    #expect(routing.tokenCount == 0)
    routing.append(expert: 3, weight: 0.25)
    #expect(routing.tokenCount == 1)
    #expect(routing.experts == [7, 3] && routing.weights == [0.75, 0.25])
  }

  @Test func namesAnExpertByLayer() {
    #expect("\(ExpertID(layer: 3, expert: 14))" == "expert 14 of layer 3")
    #expect(Phase(rawValue: "prefill") == .prefill && Phase.decode.rawValue == "decode")
  }

  @Test func fewerExpertsThanTopKTraps() async {
    await #expect(processExitsWith: .failure) {
      var routing = Routing(topK: 3)
      let values: [Float] = [0.5, 0.5]
      values.withUnsafeBufferPointer { routing.appendTopK(of: $0, normalized: false) }
    }
    await #expect(processExitsWith: .failure) { _ = Routing(topK: 0) }
  }
}

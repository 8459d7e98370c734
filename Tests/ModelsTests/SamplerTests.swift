import Routing
import Testing

@testable import Models

@Suite struct SamplerTests {
  /// Parameters with every filter off, so that a test switches on what it is about.
  private func plain(_ change: (inout SamplingParameters) -> Void = { _ in }) -> SamplingParameters
  {
    var parameters = SamplingParameters(
      temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, repetitionWindow: 8, seed: 1)
    change(&parameters)
    return parameters
  }

  private func sample(_ sampler: inout Sampler, _ logits: [Float]) throws -> Int32 {
    try logits.withUnsafeBufferPointer { (buffer) throws in try sampler.sample(buffer) }
  }

  /// How often each token comes in `count` draws.
  private func histogram(
    _ parameters: SamplingParameters, _ logits: [Float], count: Int = 20_000
  ) throws -> [Int] {
    var sampler = try Sampler(parameters)
    var counts = Array(repeating: 0, count: logits.count)
    for _ in 0..<count { counts[Int(try sample(&sampler, logits))] += 1 }
    return counts
  }

  @Test func greedyTakesTheFirstOfTheBest() throws {
    var sampler = try Sampler(plain { $0.temperature = 0 })
    #expect(try sample(&sampler, [0, 3, 1, 3]) == 1)
    #expect(try sample(&sampler, [-.infinity, -5]) == 1)
    #expect(try sample(&sampler, [-0.0, 0.0]) == 0)
  }

  @Test func drawsFollowTheProbabilities() throws {
    let probabilities: [Float] = [0.5, 0.25, 0.125, 0.125]
    // The natural logarithms of the probabilities.
    let logits: [Float] = [-0.6931472, -1.3862944, -2.0794415, -2.0794415]
    let counts = try histogram(plain(), logits)
    for (count, probability) in zip(counts, probabilities) {
      #expect(abs(Float(count) / 20_000 - probability) < 0.015)
    }
  }

  @Test func temperatureSharpensAfterTheFilters() throws {
    // 0.8 : 0.2 at temperature 1 is 16 : 1 at temperature 0.5.
    let logits: [Float] = [1.3862944, 0]
    let counts = try histogram(plain { $0.temperature = 0.5 }, logits)
    #expect(abs(Float(counts[1]) / 20_000 - 1 / 17) < 0.01)
    // At temperature 0.5 the first would reach 0.9 alone; top-p looks at temperature 1.
    let filtered = try histogram(
      plain {
        $0.temperature = 0.5
        $0.topP = 0.9
      }, logits)
    #expect(filtered[1] > 0)
  }

  @Test func topKKeepsTheBestAndLowerIdsOfEquals() throws {
    let counts = try histogram(plain { $0.topK = 3 }, [1, 2, 1, 1, 2, 0], count: 2000)
    #expect(counts[0] > 0 && counts[1] > 0 && counts[4] > 0)
    #expect(counts[2] == 0 && counts[3] == 0 && counts[5] == 0)
  }

  @Test func topKMayExceedTheVocabulary() throws {
    let counts = try histogram(plain { $0.topK = 40 }, [0, 0], count: 200)
    #expect(counts[0] > 0 && counts[1] > 0)
  }

  @Test func topPKeepsTheFewestThatReachIt() throws {
    // Probabilities 0.5, 0.25, 0.125, 0.125 in another order.
    let logits: [Float] = [-2.0794415, -0.6931472, -2.0794415, -1.3862944]
    let counts = try histogram(plain { $0.topP = 0.7 }, logits, count: 2000)
    #expect(counts[1] > 0 && counts[3] > 0 && counts[0] == 0 && counts[2] == 0)
    let first = try histogram(plain { $0.topP = 1e-9 }, logits, count: 200)
    #expect(first[1] == 200)
  }

  @Test func minPKeepsAShareOfTheBest() throws {
    // Probabilities relative to the best: 1, 0.5, 0.25.
    let logits: [Float] = [3, 3 - 0.6931472, 3 - 1.3862944]
    let counts = try histogram(plain { $0.minP = 0.4 }, logits, count: 2000)
    #expect(counts[0] > 0 && counts[1] > 0 && counts[2] == 0)
    let best = try histogram(plain { $0.minP = 1 }, logits, count: 200)
    #expect(best[0] == 200)
  }

  @Test func thePenaltyActsOncePerRecentToken() throws {
    var sampler = try Sampler(
      plain {
        $0.temperature = 0
        $0.repetitionPenalty = 2
        $0.repetitionWindow = 2
      })
    #expect(try sample(&sampler, [4, 3, 1]) == 0)
    sampler.accept(0)
    #expect(try sample(&sampler, [4, 3, 1]) == 1)
    sampler.accept(0)
    // Twice in the window still gives 4 / 2 = 2, which is above 1.5 but would not be at 4 / 4.
    #expect(try sample(&sampler, [4, 1.5, 1]) == 0)
    sampler.accept(1)
    sampler.accept(2)
    #expect(try sample(&sampler, [4, 3, 1]) == 0)
    // Negative logits move away from zero: -1 becomes -2.
    #expect(try sample(&sampler, [-1.5, -1, -9]) == 0)
  }

  @Test func extremePenaltiesKeepTokensPossible() throws {
    var sampler = try Sampler(
      plain {
        $0.temperature = 0
        $0.repetitionPenalty = .greatestFiniteMagnitude
      })
    sampler.accept(0)
    #expect(try sample(&sampler, [-5]) == 0)
    #expect(try sample(&sampler, [-5, -.infinity]) == 0)
  }

  @Test func anUnknownAcceptedTokenIsAnError() throws {
    for token in [Int32(2), -1] {
      var sampler = try Sampler(plain { $0.repetitionPenalty = 1.1 })
      sampler.accept(token)
      #expect(throws: SamplerError.tokenOutOfRange(token: token, logitCount: 2)) {
        try sample(&sampler, [0, 0])
      }
    }
  }

  @Test func theSeedDecides() throws {
    let logits = (0..<200).map { Float($0 % 17) / 8 }
    func draws(_ seed: UInt64) throws -> [Int32] {
      var sampler = try Sampler(SamplingParameters(repetitionPenalty: 1.1, seed: seed))
      return try (0..<100).map { _ in
        let token = try sample(&sampler, logits)
        sampler.accept(token)
        return token
      }
    }
    #expect(try draws(1) == draws(1))
    #expect(try draws(1) != draws(2))
  }

  @Test func forbiddenTokensAreNeverDrawn() throws {
    let counts = try histogram(plain(), [-.infinity, 0, -.infinity, 0], count: 500)
    #expect(counts[0] == 0 && counts[2] == 0 && counts[1] > 0 && counts[3] > 0)
  }

  @Test(arguments: [Float(0), 1])
  func unusableLogitsAreErrors(_ temperature: Float) throws {
    var sampler = try Sampler(plain { $0.temperature = temperature })
    #expect(throws: SamplerError.noLogits) { try sample(&sampler, []) }
    #expect(throws: SamplerError.invalidLogit(token: 1, value: "nan")) {
      try sample(&sampler, [0, .nan])
    }
    #expect(throws: SamplerError.invalidLogit(token: 0, value: "inf")) {
      try sample(&sampler, [.infinity, 0])
    }
    #expect(throws: SamplerError.noPossibleToken(logitCount: 2)) {
      try sample(&sampler, [-.infinity, -.infinity])
    }
    #expect(try sample(&sampler, [0, -.infinity]) == 0)
  }

  @Test func optionsOutOfRangeAreNamed() {
    func expectRefusal(_ name: String, _ change: (inout SamplingParameters) -> Void) {
      do {
        _ = try Sampler(plain(change))
        Issue.record("\(name) was taken")
      } catch {
        guard case .invalidOption(name, _, _) = error else {
          Issue.record("\(error)")
          return
        }
      }
    }
    for value in [-1, Float.nan, .infinity] {
      expectRefusal("temperature") { $0.temperature = value }
    }
    for value in [0, 1.1, Float.nan] { expectRefusal("top-p") { $0.topP = value } }
    for value in [-0.1, 1.1, Float.nan] { expectRefusal("min-p") { $0.minP = value } }
    for value in [0, -1, Float.nan, .infinity] {
      expectRefusal("repetition penalty") { $0.repetitionPenalty = value }
    }
    expectRefusal("top-k") { $0.topK = -1 }
    expectRefusal("repetition window") { $0.repetitionWindow = -1 }
    expectRefusal("repetition window") { $0.repetitionWindow = .max }
  }

  @Test func optionErrorsReadAsSentences() {
    let error = SamplerError.invalidOption(name: "top-k", value: "-1", expected: "0 (off) or more")
    #expect("\(error)" == "sampling option 'top-k' is -1; expected 0 (off) or more")
  }

  @Test(arguments: [1, 2, 3, 7, 40, 255, 1000])
  func candidatesComeInOrder(_ limit: Int) {
    var random = SplitMix64(state: 11)
    let logits = (0..<1000).map { _ in Float(Int.random(in: 0..<200, using: &random)) }
    var list = CandidateList()
    logits.withUnsafeBufferPointer { list.selectBest(limit, of: $0) }
    let expected = logits.indices.sorted { (-logits[$0], $0) < (-logits[$1], $1) }.prefix(limit)
    #expect((0..<list.count).map { Int(list[$0].token) } == Array(expected))
  }

  @Test func randomNumbersAreThePublishedOnes() {
    var seeder = SplitMix64(state: 1_234_567)
    #expect(
      (0..<3).map { _ in seeder.next() }
        == [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423])
    var random = Xoshiro256(seed: 0)
    #expect(
      (0..<3).map { _ in random.next() } == [
        11_091_344_671_253_066_420,
        13_793_997_310_169_335_082,
        1_900_383_378_846_508_768,
      ])
    var unit = Xoshiro256(seed: 9)
    for _ in 0..<10_000 { #expect((0..<1).contains(unit.nextUnit())) }
  }
}

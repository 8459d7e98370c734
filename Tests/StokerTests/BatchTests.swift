import Checkpoints
import FoundationEssentials
import Logging
import Placement
import Routing
import Testing

@testable import Stoker

/// Sequences that are decoded together: planned for, and run with the routing of a trace.
@Suite struct BatchTests {
  private static let context = 160
  private static let machine = MachineProfile.preset("laptop")!

  private static var options: ModelOptions {
    ModelOptions(processMemory: 32 << 20, context: context, prefetch: .off)
  }

  /// Decoded tokens of the demo model's own routing, as those of so many sequences.
  private static func trace(_ file: ModelFile, tokens: Int, sequences: Int) throws -> RoutingTrace {
    let path = FileManager.default.temporaryDirectory
      .appendingPathComponent("\(UUID().uuidString).moetrace").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    model.recorder = try RoutingRecorder(path: path, model: model)
    _ = try model.generate(
      GenerationRequest(prompt: [7, 30, 41], maxTokens: tokens, ignoresEnd: true))
    try model.recorder?.finish()
    return try #require(RoutingTrace(path: path).cut(into: sequences))
  }

  private static func plan(
    _ file: ModelFile, _ trace: RoutingTrace?, batch: Int, memory: Int, tokens: Int = 1000
  ) throws -> Plan {
    let subject = try PlanSubject(file, options: options, batch: batch)
    let planner = try Planner(
      subject, profile: machine, trace: trace.map { TraceSource($0) })
    return try planner.plan(
      Planner.Request(memory: memory, promptTokens: 3, tokens: tokens))
  }

  @Test(arguments: [2, 4, 9])
  func aPlanHasTheHitsOfTheRuntime(_ batch: Int) throws {
    let file = try ModelFile(path: Fixtures.demo)
    let trace = try Self.trace(file, tokens: 91, sequences: batch)
    let decoded = (0..<trace.eventCount).count {
      trace.phase(of: $0) == .decode && trace.layer(of: $0) == 0
    }
    #expect(decoded == 90 / batch * batch)
    let subject = try PlanSubject(file, options: Self.options, batch: batch)
    let one = try file.requirements(Self.options)
    let several = subject.needs(direct: true, prefetch: false).memory
    #expect(
      several.fixed - one.fixed
        == (batch - 1) * (one.keyValueCache + 4 * file.description.vocabularySize))
    for share in [0.1, 0.4, 0.8] {
      let memory = several.fixed + Int(share * Double(several.allSlots))
      let plan = try Self.plan(file, trace, batch: batch, memory: memory)
      #expect(plan.batch == batch && !plan.choice.prefetch)
      // A model has a cache for one.
      var options = Self.options
      options.memory = memory - several.fixed + one.fixed
      let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
      #expect(plan.slots == model.configuration.slots)
      let live = try model.replay(trace, batch: batch)
      #expect(live.stepSeconds.count == 90 / batch && live.tokenCount == decoded)
      #expect(plan.prediction.hitRate == Double(live.hits) / Double(live.accesses))
      let missed = Double(live.missedByteCount) / Double(decoded)
      #expect(missed > 0 && abs(plan.prediction.bytesPerToken - missed) <= 1e-9 * missed)
    }
  }

  @Test func sequencesThatRouteAlikeShareWhatIsRead() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let single = try Self.trace(file, tokens: 40, sequences: 1)
    var twin = RoutingTrace(header: single.header)
    var event = TraceEvent()
    for sequence in 0..<2 {
      for index in 0..<single.eventCount where single.phase(of: index) == .decode {
        single.read(index, into: &event)
        event.sequence = Int32(sequence)
        twin.append(event)
      }
    }
    let several = try PlanSubject(file, options: Self.options, batch: 2)
      .needs(direct: true, prefetch: false).memory
    let one = try file.requirements(Self.options)
    let room = several.allSlots / 3
    let both = try Self.plan(file, twin, batch: 2, memory: several.fixed + room)
    let first = try Self.plan(file, twin, batch: 1, memory: one.fixed + room, tokens: 39)
    #expect(both.prediction.hitRate < 1 && first.batch == nil)
    // But for what the policy makes of two tokens' weights.
    let share = 2 * both.prediction.bytesPerToken / first.prediction.bytesPerToken
    #expect(abs(share - 1) < 0.05, "\(share)")
    // An expert's second token costs something, but never as much as its first.
    let gain = both.prediction.tokensPerSecond / first.prediction.tokensPerSecond
    #expect(gain > 1 && gain < 2, "\(gain)")
    #expect(both.prediction.tpotMean == 2 / both.prediction.tokensPerSecond)
  }

  @Test func moreSequencesDecodeMoreTokensAndNeedMoreMemory() throws {
    let file = try ModelFile(path: Fixtures.demo)
    var last = (speed: 0.0, step: 0.0, memory: 0)
    for batch in [1, 2, 4, 16] {
      let memory = try PlanSubject(file, options: Self.options, batch: batch).fullBudget
      let p = try Self.plan(file, nil, batch: batch, memory: memory).prediction
      #expect(p.tokensPerSecond > last.speed && p.tpotMean > last.step && memory > last.memory)
      #expect(p.bytesPerToken == 0)
      last = (p.tokensPerSecond, p.tpotMean, memory)
    }
  }

  @Test func aBatchThatDoesNotFitIsRefused() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let trace = try Self.trace(file, tokens: 20, sequences: 1)
    let model = try MoEModel(file, options: Self.options, logger: Logger(label: "test"))
    for batch in [0, Self.context + 1] {
      #expect(throws: StokerError.self) { try model.replay(trace, batch: batch) }
    }
    #expect(trace.cut(into: 20) == nil)
    let memory = try PlanSubject(file, options: Self.options, batch: 20).fullBudget
    #expect(throws: StokerError.self) {
      try Self.plan(file, trace, batch: 20, memory: memory - (4 << 20))
    }
  }

  /// Its state is that of no sequence then, and goes on from wherever a step is timed.
  @Test(arguments: ["tiny-qwen3next", "tiny-qwen35moe"])
  func aModelWithARecurrentStateIsReplayedAndMeasured(_ name: String) throws {
    let file = try ModelFile(path: Fixtures.tiny(name))
    let trace = try Self.trace(file, tokens: 24, sequences: 1)
    let options = ModelOptions(context: 64, prefetch: .off)
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    for batch in [1, 3] {
      let live = try model.replay(#require(trace.cut(into: batch)), batch: batch)
      #expect(live.tokenCount == 23 / batch * batch && live.hits == live.accesses)
    }
    #expect(try model.measureProfile(options).fault == nil)
    // What it decodes afterwards is what it would have.
    let request = GenerationRequest(prompt: [7, 30, 41], maxTokens: 8, ignoresEnd: true)
    let other = try MoEModel(file, options: options, logger: Logger(label: "test"))
    #expect(try model.generate(request).tokens == other.generate(request).tokens)
  }
}

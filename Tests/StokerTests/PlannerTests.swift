import FoundationEssentials
import Logging
import Placement
import Routing
import Testing

@testable import Stoker

@Suite struct PlannerTests {
  private static let context = 160
  private static let process = 32 << 20
  private static let prompt = Array(Int32(5)..<37)
  private static let tokens = 100

  private static var options: ModelOptions {
    ModelOptions(processMemory: process, context: context, prefetch: .off)
  }

  /// The budget with slots for `share` of the demo model's experts.
  private static func budget(_ file: ModelFile, _ share: Double) throws -> Int {
    let needs = try file.requirements(options)
    return needs.fullBudget - Int(Double(needs.allSlots) * (1 - share))
  }

  /// A machine by its datasheet with the kinds of reads that this test plans for.
  private static let machine = MachineProfile.preset("laptop")!

  /// A recorded run of the demo model in so much memory, and what it came to.
  private static func recorded(
    _ file: ModelFile, memory: Int
  ) throws -> (trace: RoutingTrace, run: RunStatistics, model: MoEModel) {
    let path = FileManager.default.temporaryDirectory
      .appendingPathComponent("\(UUID().uuidString).moetrace").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    var options = options
    options.memory = memory
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    model.recorder = try RoutingRecorder(path: path, model: model)
    let generation = try model.generate(
      GenerationRequest(prompt: prompt, maxTokens: tokens, ignoresEnd: true))
    try model.recorder?.finish()
    return (try RoutingTrace(path: path), generation.statistics, model)
  }

  @Test func aPlanFromARecordingHasItsSlotsAndItsHits() throws {
    let file = try ModelFile(path: Fixtures.demo)
    for share in [0.2, 0.5, 0.8] {
      let memory = try Self.budget(file, share)
      let (trace, run, model) = try Self.recorded(file, memory: memory)
      let planner = try Planner(
        PlanSubject(file, options: Self.options), profile: Self.machine, trace: TraceSource(trace))
      var request = Planner.Request(
        memory: memory, promptTokens: Self.prompt.count, tokens: Self.tokens)
      request.prefetch = false
      let plan = try planner.plan(request)
      #expect(plan.slots == model.configuration.slots)
      #expect(plan.prediction.hitRate == run.experts.decode.hitRate)
      #expect(plan.prediction.peakMemory <= memory)
      #expect(plan.parts.reduce(0) { $0 + $1.bytes } == plan.prediction.peakMemory)
      let missed = Double(run.experts.decode.missedByteCount) / Double(run.decodeSeconds.count)
      #expect(abs(plan.prediction.bytesPerToken - missed) <= 0.001 * missed + 1)
    }
  }

  @Test func moreMemoryOrAFasterDriveIsNeverSlower() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let subject = try PlanSubject(file, options: Self.options)
    func speed(_ share: Double, drive: Double) throws -> Double {
      let planner = try Planner(
        subject, profile: Self.machine.scalingDisk(by: drive), trace: nil)
      var request = Planner.Request(memory: try Self.budget(file, share), tokens: 64)
      request.prefetch = false
      return try planner.plan(request).prediction.tokensPerSecond
    }
    var last = 0.0
    for share in [0.1, 0.2, 0.4, 0.6, 0.8, 1] {
      let speed = try speed(share, drive: 1)
      #expect(speed >= last * 0.999, "\(share)")
      last = speed
    }
    last = 0
    for drive in [0.1, 0.5, 1, 2, 8] {
      let speed = try speed(0.3, drive: drive)
      #expect(speed >= last, "\(drive)")
      last = speed
    }
  }

  @Test func theFastestOfTheAlternativesIsChosen() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let planner = try Planner(
      PlanSubject(file, options: Self.options), profile: Self.machine, trace: nil)
    let plan = try planner.plan(Planner.Request(memory: try Self.budget(file, 0.5)))
    #expect(plan.alternatives.count == 2)
    #expect(
      plan.alternatives.map(\.tokensPerSecond).max() == plan.prediction.tokensPerSecond)
    let whole = try planner.plan(Planner.Request(memory: try Self.budget(file, 1)))
    #expect(whole.prediction.hitRate == 1 && whole.prediction.bytesPerToken == 0)
    #expect(!whole.choice.prefetch && whole.prediction.stallSeconds == 0)
  }

  @Test func expertsAreReadAheadOnlyWhereItIsClearlyFaster() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let subject = try PlanSubject(file, options: Self.options)
    var seen: Set<String> = []
    for step in 0..<40 {
      var machine = Self.machine
      machine.predictionSeconds.value = Double(step) * 1e-6
      let planner = try Planner(subject, profile: machine, trace: nil)
      let plan = try planner.plan(Planner.Request(memory: try Self.budget(file, 0.3)))
      func speed(_ prefetch: Bool) -> Double {
        plan.alternatives.first { $0.choice.prefetch == prefetch }!.tokensPerSecond
      }
      let gain = speed(true) / speed(false)
      #expect(plan.choice.prefetch == (gain > 1.01), "\(gain)")
      seen.insert(gain > 1.01 ? "more" : gain > 1 ? "hardly" : "less")
    }
    #expect(seen == ["more", "hardly", "less"])
  }

  @Test func theFasterWayToTheDriveIsChosen() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let subject = try PlanSubject(file, options: Self.options)
    var request = Planner.Request(memory: try Self.budget(file, 0.5))
    for (factor, chosen) in [(1.0, ReadKind.direct), (1.2, .direct), (1.5, .buffered)] {
      var machine = Self.machine
      machine.disk += machine.disk.filter { $0.kind == .direct }.map {
        var rate = $0
        rate.kind = .buffered
        rate.bytesPerSecond.value *= factor
        rate.burstSeconds.value /= factor
        return rate
      }
      let planner = try Planner(subject, profile: machine, trace: nil)
      request.reads = [.direct, .buffered]
      #expect(try planner.plan(request).choice.reads == chosen)
      request.reads = [.direct]
      #expect(try planner.plan(request).choice.reads == .direct)
    }
  }

  @Test func theSmallestBudgetIsNamedAndWorks() throws {
    let file = try ModelFile(path: Fixtures.demo)
    let subject = try PlanSubject(file, options: Self.options)
    let planner = try Planner(subject, profile: Self.machine, trace: nil)
    let minimum = planner.minimumBudget(Planner.Request(memory: 0))
    #expect(throws: RuntimeError.budgetTooSmall(budget: minimum - 1, minimum: minimum)) {
      _ = try planner.plan(Planner.Request(memory: minimum - 1))
    }
    let plan = try planner.plan(Planner.Request(memory: minimum))
    var options = ModelOptions(plan)
    // The plan is for a machine of other threads.
    (options.processMemory, options.threads) = (Self.process, nil)
    _ = try MoEModel(file, options: options, logger: Logger(label: "test"))
  }

  @Test func aTraceOfAnotherModelIsRefused() throws {
    let header = TraceHeader(
      model: "other",
      geometry: RoutingGeometry(expertCount: 4, topK: 2, expertByteCounts: [1, 1]),
      hasWeights: false)
    let error = #expect(throws: StokerError.self) {
      _ = try Planner(
        PlanSubject(ModelFile(path: Fixtures.demo), options: Self.options), profile: Self.machine,
        trace: TraceSource(RoutingTrace(header: header)))
    }
    #expect("\(error!)".contains("2 layers of 4 experts"))
  }

  @Test func anAcceleratorHoldsWhatIsUsedMostAndIsFaster() throws {
    let shape = try #require(PlanShape(named: "olmoe-1b-7b", type: "Q4_0"))
    let profile = try #require(MachineProfile.preset("desktop-rtx4090"))
    let subject = PlanSubject(shape, context: 512, threads: 16)
    let planner = try Planner(subject, profile: profile, trace: nil)
    var request = Planner.Request(memory: 0, tokens: 64)
    request.memory = planner.minimumBudget(request) + 256 << 20
    let without = try planner.plan(request)
    #expect(without.device == nil)
    var last = without.prediction.tokensPerSecond
    for memory in [1 << 30, 2 << 30, 8 << 30] {
      request.deviceMemory = memory
      let plan = try planner.plan(request)
      let device = try #require(plan.device)
      #expect(device.usedBytes <= memory && device.holdsDense)
      #expect(plan.prediction.tokensPerSecond > last)
      last = plan.prediction.tokensPerSecond
    }
    #expect(try planner.plan(request).device?.expertCount == 16 * 64)
  }

  @Test func aTrillionParametersArePlannedFor() throws {
    let shape = try #require(PlanShape(named: "kimi-k2", type: "Q4_K"))
    #expect(shape.fault == nil)
    let subject = PlanSubject(shape, context: 4096, threads: 32)
    #expect(subject.work.layers == 60 && subject.work.experts == 384)
    #expect(subject.model.fileBytes > 500 << 30 && subject.model.fileBytes < 620 << 30)
    let planner = try Planner(
      subject, profile: #require(MachineProfile.preset("workstation")), trace: nil)
    let plan = try planner.plan(Planner.Request(memory: 48 << 30))
    #expect((0.1...0.95).contains(plan.prediction.hitRate))
    #expect(plan.prediction.binding == .drive)
  }

  @Test func whatIsNoShapeIsNamed() throws {
    var shape = try #require(PlanShape(named: "tiny", type: "Q4_K"))
    #expect(shape.fault == nil)
    shape.expertsPerToken = 9
    #expect(shape.fault?.contains("experts_per_token is 9") == true)
    shape = try #require(PlanShape(named: "tiny", type: "Q9_Z"))
    #expect(shape.fault?.contains("type is 'Q9_Z'") == true)
    #expect(PlanShape(named: "gigantic", type: "Q4_K") == nil)
  }

  @Test func theErrorsOfRunsAreKept() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: folder) }
    var log = PredictionLog(folder: folder.path)
    #expect(log.medianError == nil)
    for index in 1...70 {
      try log.append(
        PredictionLog.Entry(
          model: "m", memory: 1, date: "2026-01-01T00:00:00Z",
          predictedTokensPerSecond: index % 2 == 0 ? 11 : 9, measuredTokensPerSecond: 10))
    }
    let again = PredictionLog(folder: folder.path)
    #expect(again.entries.count == 64)
    #expect(abs((again.medianError ?? 0) - 0.1) < 1e-9)
    try Data("no log".utf8).write(to: folder.appendingPathComponent("predictions.json"))
    #expect(PredictionLog(folder: folder.path).entries.isEmpty)
    #expect(PredictionLog(folder: folder.path).refusal?.contains("predictions.json") == true)
    #expect(again.refusal == nil)
  }
}

internal import ExpertRuntime
public import Placement
internal import Replay
public import Residency
public import Routing

/// Finds how to run a model on a machine, and says what to expect.
///
/// Hits are not guessed from a curve: the policy that the runtime has is replayed over a trace of routing,
/// in the slots that the budget makes, and every token is timed by the simulation of the disk's queue and
/// the processor that `stoker replay` uses, with rates that `CostModel` takes from the machine's profile.
public struct Planner {
  /// What is planned for.
  public struct Request: Sendable {
    /// Bytes of host memory for everything.
    public var memory: Int
    /// Bytes of an accelerator's memory; nil: no accelerator.
    public var deviceMemory: Int?
    /// Tokens of the prompt, and tokens after it.
    public var promptTokens: Int
    public var tokens: Int
    /// Ways to read that may be chosen.
    public var reads: [ReadKind] = [.direct]
    /// Whether experts may be read ahead; nil: if that is faster.
    public var prefetch: Bool?

    public init(memory: Int, promptTokens: Int = 128, tokens: Int = 256) {
      self.memory = memory
      self.promptTokens = promptTokens
      self.tokens = tokens
    }
  }

  public let subject: PlanSubject
  public let profile: MachineProfile
  private let cost: CostModel
  private let trace: RoutingTrace?
  private let recent: RecentRouting?
  private let prior: RoutingPrior
  /// How far off the hit rate may be, as a share of the misses: what the prior differs from real traces by, and
  /// what one text does from another. A trace is taken for what is going to be run.
  var missError: Double { trace != nil ? 0 : recent != nil ? 0.15 : 0.3 }
  /// Tokens that recent routing is of at least, for a plan to go by it.
  static let enoughTokens = 64
  /// The same of each of some sequences.
  private static let enoughTokensOfSequence = 8
  /// Tokens of a trace that are replayed at most: enough to know its hits, few enough to be quick.
  private static let routedExpertLimit = 400_000

  /// - Parameters:
  ///   - profile: without `fault`.
  ///   - trace: a trace of the model's routing; nil: `recent` stands for one.
  ///   - recent: the routing of the tokens that the model decoded last; nil, or of a model of another shape:
  ///     `prior` stands for a trace, or what is supposed of the model's numbers.
  /// - Throws: `StokerError.trace` if the trace is of another model; `TraceError`.
  public init(
    _ subject: PlanSubject, profile: MachineProfile, trace: TraceSource?,
    recent: RecentRouting? = nil, prior: RoutingPrior? = nil
  ) throws {
    self.subject = subject
    self.profile = profile
    self.prior = prior ?? RoutingPrior(topK: subject.work.topK, of: subject.work.experts)
    cost = CostModel(profile: profile, work: subject.work)
    let own = subject.work
    func isOwn(_ geometry: RoutingGeometry) -> Bool {
      geometry.layerCount == own.layers && geometry.expertCount == own.experts
        && geometry.topK == own.topK
    }
    self.recent = recent.flatMap {
      isOwn($0.geometry) && $0.tokenCount >= Self.enoughTokensOfSequence * subject.batch ? $0 : nil
    }
    guard let trace else {
      self.trace = nil
      return
    }
    let its = trace.header.geometry
    guard isOwn(its) else {
      throw StokerError.trace(
        reason: "it is of \(its.layerCount) layers of \(its.expertCount) experts, top-\(its.topK); "
          + "the model has \(own.layers) of \(own.experts), top-\(own.topK)")
    }
    self.trace = try Self.beginning(of: trace)
  }

  /// The events of a trace up to so many routed experts, whole tokens.
  private static func beginning(of source: TraceSource) throws -> RoutingTrace {
    if let whole = source.resident, whole.accessCount <= routedExpertLimit { return whole }
    struct Enough: Error {}
    var result = RoutingTrace(header: source.header)
    var event = TraceEvent()
    do {
      try source.forEachPart { part, _ in
        for index in 0..<part.eventCount {
          if part.layer(of: index) == 0, result.accessCount >= routedExpertLimit { throw Enough() }
          part.read(index, into: &event)
          result.append(event)
        }
      }
    } catch is Enough {}
    return result
  }

  /// The same planner for a machine with other figures, which have no `fault`.
  public func replacing(_ profile: MachineProfile) throws -> Planner {
    try Planner(
      subject, profile: profile, trace: trace.map(TraceSource.init), recent: recent, prior: prior)
  }

  /// The trace up to so many decoded tokens: what is cold at first weighs as much as in the run. As large a
  /// prompt as it begins with stays.
  private static func beginning(of trace: RoutingTrace, tokens: Int) -> RoutingTrace {
    var result = RoutingTrace(header: trace.header)
    var event = TraceEvent()
    var decoded = 0
    for index in 0..<trace.eventCount {
      if trace.phase(of: index) == .decode, trace.layer(of: index) == 0 {
        decoded += 1
        if decoded > tokens { break }
      }
      trace.read(index, into: &event)
      result.append(event)
    }
    return result
  }

  /// The fastest plan; one that reads ahead only where that is clearly faster.
  /// - Throws: `RuntimeError.budgetTooSmall` naming the smallest budget if the budget is below it.
  public func plan(_ request: Request) throws -> Plan {
    func worth(_ plan: Plan) -> Double {
      plan.prediction.tokensPerSecond / (plan.choice.prefetch ? Self.prefetchPrice : 1)
    }
    let candidates = try choices(request).compactMap { try plan(request, $0) }
    guard let best = candidates.max(by: { worth($0) < worth($1) }) else {
      if request.prefetch == true {
        // There is nothing to read ahead, or no room for it.
        var without = request
        without.prefetch = false
        return try plan(without)
      }
      throw RuntimeError.budgetTooSmall(
        budget: request.memory, minimum: minimumBudget(request))
    }
    var chosen = best
    chosen.alternatives = candidates.map {
      Plan.Alternative(
        choice: $0.choice, slots: $0.slots, tokensPerSecond: $0.prediction.tokensPerSecond)
    }.sorted { $0.tokensPerSecond > $1.tokensPerSecond }
    return chosen
  }

  /// The fewest bytes that the model runs with as `request` allows it to be read.
  public func minimumBudget(_ request: Request) -> Int {
    readable(request).map {
      subject.needs(direct: $0 == .direct, prefetch: false).memory.minimumBudget
    }.min() ?? 0
  }

  /// The plan, with what a little more of memory or a faster drive would bring.
  public func advisedPlan(_ request: Request) throws -> Plan {
    var advised = try plan(request)
    var more = request
    more.memory += 1 << 30
    var advice = [("1 GiB more memory", try plan(more))]
    let faster = try replacing(profile.scalingDisk(by: 2))
    advice.append(("a drive twice as fast", try faster.plan(request)))
    advised.advice = advice.map {
      Plan.Advice(change: $0.0, tokensPerSecond: $0.1.prediction.tokensPerSecond)
    }
    return advised
  }

  /// How much faster a run has to be for reading ahead: about as little as a prediction can tell apart, and
  /// without it more of the memory is for residents.
  private static let prefetchPrice = 1.01

  /// How much faster reads through the page cache have to be to be chosen over direct ones: they cost the
  /// processor a copy, and what they leave there is memory beside the budget.
  private static let pageCachePrice = 1.25

  /// The ways to read that may be chosen and were measured: where a drive has no direct reads, buffered ones.
  /// Where both may be, the slots are the same, and the drive's rate decides.
  private func readable(_ request: Request) -> [ReadKind] {
    let measured = profile.readKinds
    let allowed = request.reads.filter(measured.contains)
    guard !allowed.isEmpty else { return [measured.contains(.buffered) ? .buffered : .direct] }
    guard allowed.contains(.direct), allowed.contains(.buffered),
      let direct = cost.steadyBytesPerSecond(.direct),
      let buffered = cost.steadyBytesPerSecond(.buffered)
    else { return allowed }
    let slower: ReadKind = buffered > Self.pageCachePrice * direct ? .direct : .buffered
    return allowed.filter { $0 != slower }
  }

  private func choices(_ request: Request) -> [Plan.Choice] {
    readable(request).flatMap { kind in
      // Copying out of the page cache is work of the same processor: nothing is gained by doing it early. And
      // only single tokens are predicted.
      (kind == .cached || subject.batch > 1 ? [false] : [false, true])
        .filter { request.prefetch == nil || request.prefetch == $0 }
        .map { Plan.Choice(reads: kind, prefetch: $0) }
    }
  }

  /// The plan of one choice; nil if it does not fit.
  private func plan(_ request: Request, _ choice: Plan.Choice) throws -> Plan? {
    let needs = subject.needs(direct: choice.reads == .direct, prefetch: choice.prefetch)
    guard request.memory >= needs.memory.minimumBudget,
      let slots = slotPlan(needs, capacity: request.memory - needs.memory.fixed, choice)
    else { return nil }
    let all = subject.work.layers * subject.work.experts
    let holdsAll = slots.slotCount == all
    guard !choice.prefetch || slots.stagingCount > 0,
      let simulation = try simulate(request, choice, needs, slots)
    else { return nil }
    let resident = Double(slots.slotCount) / Double(all)
    guard
      let prompt = cost.prompt(
        tokens: max(1, request.promptTokens), reads: choice.reads, touched: simulation.touched,
        resident: holdsAll ? 1 : resident)
    else { return nil }
    let staged = slots.stagingCount * slots.classes.reduce(0) { $0 + $1.byteCount }
    var plan = Plan(
      model: subject.model, machine: profile.machine, measured: profile.date,
      basis: basis,
      memory: request.memory,
      parts: [
        .init(name: Plan.processPart, bytes: needs.memory.process),
        .init(name: "dense weights", bytes: needs.memory.denseWeights),
        .init(name: "key-value cache", bytes: needs.memory.keyValueCache),
        .init(name: "activations", bytes: needs.memory.activations),
        .init(name: "expert slots", bytes: slots.byteCount - staged),
        .init(name: "staging slots", bytes: staged),
      ],
      context: subject.context, promptTokens: request.promptTokens, tokens: request.tokens,
      choice: choice, slots: slots.slotCount,
      stagingSlots: slots.stagingSlotCount,
      threads: profile.machine.threads, chunkTokens: subject.work.chunkTokens,
      waveBytes: slots.wave * (slots.classes.last?.byteCount ?? 0), device: nil,
      prediction: prediction(
        simulation, prompt: prompt, choice: choice,
        peakMemory: needs.memory.fixed + slots.byteCount),
      alternatives: [])
    if subject.batch > 1 { plan.batch = subject.batch }
    try placeOnDevice(&plan, request, simulation)
    return plan
  }

  private func slotPlan(
    _ needs: PlanSubject.Needs, capacity: Int, _ choice: Plan.Choice
  ) -> SlotPlan? {
    let usable = capacity >= needs.memory.allSlots ? nil : max(0, capacity) / 4096 * 4096
    let plan = SlotPlan(
      expertByteCounts: needs.slotByteCounts, expertsPerLayer: subject.work.experts,
      topK: subject.work.topK, capacity: usable)
    guard choice.prefetch else { return plan }
    return plan?.withStaging(
      expertByteCounts: needs.slotByteCounts, expertsPerLayer: subject.work.experts,
      topK: subject.work.topK)
  }

  /// What a replay in simulated time came to.
  struct Simulation {
    var row: ReplayRow
    var hardware: HardwareProfile
    /// What is decoded together.
    var step: DecodeStep
    /// The positions that a token looks back on, at the mean.
    var positions: Double
    /// The experts of a mean layer that so many tokens touch together.
    var touched: (Int) -> Double
    /// The routing that was replayed.
    var routing: RoutingTrace

    /// The different experts that a step needs, all layers of `work` together.
    func expertCount(_ work: ModelWork) -> Double {
      Double(step.tokens * work.layers * work.topK) / step.tokensPerExpert
    }
  }

  private func simulate(
    _ request: Request, _ choice: Plan.Choice, _ needs: PlanSubject.Needs, _ slots: SlotPlan
  ) throws -> Simulation? {
    let positions = Double(request.promptTokens) + Double(request.tokens) / 2
    var routing =
      trace.map { Self.beginning(of: $0, tokens: subject.batch * request.tokens) }
      ?? supposedTrace(request)
    guard let cut = routing.cut(into: subject.batch) else {
      throw StokerError.trace(
        reason: "it has too few decoded tokens to be those of \(subject.batch) sequences")
    }
    routing = cut
    if choice.prefetch, routing.header.predictionDistances.isEmpty {
      let all = Double(subject.work.layers * subject.work.experts)
      let recall = subject.missRecall(residentShare: Double(slots.slotCount) / all)
      routing = routing.predicting(recall: recall)
    }
    routing.setSizes(
      expertByteCounts: subject.work.expertByteCounts, slotByteCounts: needs.slotByteCounts)
    var options = ReplayOptions()
    options.policies = [.nextUse]
    options.capacities = [.bytes(slots.capacity)]
    options.showsGap = false
    options.batch = subject.batch
    let step = try step(routing, options)
    guard
      let hardware = cost.hardware(reads: choice.reads, positions: positions, step: step)
    else { return nil }
    options.hardware = hardware
    if choice.prefetch {
      options.predictor = .recorded
      options.stagedCount = slots.stagingSlotCount
    }
    let row = try Comparison(routing, name: subject.work.name, options: options).rows()[0]
    guard row.times != nil else { return nil }
    let unions = TouchedExperts(routing)
    return Simulation(
      row: row, hardware: hardware, step: step, positions: positions,
      touched: { unions.count(tokens: $0) }, routing: routing)
  }

  /// What is decoded together, by how many different experts a replay finds that it needs.
  private func step(_ routing: RoutingTrace, _ options: ReplayOptions) throws -> DecodeStep {
    guard subject.batch > 1 else { return DecodeStep() }
    let row = try Comparison(routing, name: subject.work.name, options: options).rows()[0]
    let tokens = Double(row.logicalAccesses) / Double(max(1, row.accesses))
    return DecodeStep(tokens: subject.batch, tokensPerExpert: max(1, tokens))
  }

  /// Where the hits come from, in words.
  private var basis: String {
    if let trace { return "trace of \(trace.header.model): \(trace.header.workload)" }
    guard let recent else { return prior.summary }
    return "no trace: as the \(recent.tokenCount) tokens that this model decoded here last"
  }

  /// A trace of what the model did last, or of what is supposed of it.
  private func supposedTrace(_ request: Request) -> RoutingTrace {
    let header = TraceHeader(
      model: subject.work.name,
      geometry: RoutingGeometry(
        expertCount: subject.work.experts, topK: subject.work.topK,
        expertByteCounts: subject.work.expertByteCounts),
      hasWeights: false)
    let perToken = subject.work.layers * subject.work.topK
    let wanted = subject.batch * request.tokens
    let fewest = Self.enoughTokensOfSequence * subject.batch
    let tokens = max(fewest, min(wanted, Self.routedExpertLimit / 4 / perToken))
    if let recent {
      return recent.trace(
        header, promptTokens: request.promptTokens, chunk: subject.work.chunkTokens,
        tokens: tokens)
    }
    return prior.trace(
      header, promptTokens: min(request.promptTokens, tokens), chunk: subject.work.chunkTokens,
      tokens: tokens)
  }
}

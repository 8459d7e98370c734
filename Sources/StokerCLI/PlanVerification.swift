import ArgumentParser
import Placement
import Routing
import Stoker

/// `stoker plan --verify`: runs what is planned, and puts both side by side.
struct PlanVerification {
  let modelPath: String
  let request: PlanArguments

  /// What was predicted, or measured.
  struct Figures: Encodable {
    var timeToFirstToken: Double
    var tpotMean: Double
    var tokensPerSecond: Double
    var hitRate: Double
    var bytesPerToken: Double

    init(_ prediction: Prediction) {
      timeToFirstToken = prediction.timeToFirstToken
      tpotMean = prediction.tpotMean
      tokensPerSecond = prediction.tokensPerSecond
      hitRate = prediction.hitRate
      bytesPerToken = prediction.bytesPerToken
    }

    /// - Parameter samples: the tokens before which the machine was sampled, which leaves nothing in the caches
    ///   of what those after it need. Those are not counted, where there are enough others.
    init(_ statistics: RunStatistics, samples: [Int]) {
      timeToFirstToken = statistics.timeToFirstToken ?? 0
      let all = statistics.decodeSeconds
      let disturbed = Set(samples.flatMap { $0..<$0 + PlanVerification.settlingTokens })
      let others = all.indices.filter { !disturbed.contains($0) }.map { all[$0] }
      let counted = others.count > all.count / 2 ? others : all
      tpotMean = counted.isEmpty ? 0 : counted.reduce(0, +) / Double(counted.count)
      tokensPerSecond = counted.isEmpty ? 0 : 1 / tpotMean
      hitRate = statistics.experts.decode.hitRate ?? 1
      bytesPerToken = statistics.readBytesPerToken ?? 0
    }
  }

  /// A budget, as it was predicted and as it was.
  struct Row: Encodable {
    let memory: Int
    let slots: Int
    let experts: Int
    let choice: Plan.Choice
    /// From the profile as it was measured once.
    let blind: Figures
    /// With the drive and the processor as they were during the run, by samples between its tokens.
    let probed: Figures
    let measured: Figures
    /// The rates of the drive and of products over those of the profile.
    let diskRatio: Double
    let computeRatio: Double
  }

  func rows() throws -> [Row] {
    let file = try request.running.open(modelPath)
    var request = request
    request.promptTokens = try prompt(file).count
    let planner = try request.planner(modelPath: modelPath)
    let memories = request.memories.isEmpty ? [nil] : request.memories.map { Optional($0) }
    var rows: [Row] = []
    for memory in memories {
      rows.append(try row(file, planner, try request.plannerRequest(planner, memory: memory)))
      if Interrupt.isRequested { throw ExitCode(130) }
    }
    return rows
  }

  private func row(
    _ file: ModelFile, _ planner: Planner, _ wanted: Planner.Request
  ) throws -> Row {
    let plan = try planner.plan(wanted)
    var options = request.running.options(context: plan.context)
    options.obey(plan)
    if plan.choice.reads == .cached { try fillPageCache(with: file) }
    let model = try loadModel(file, options)
    let probe = try MachineProbe(model, profile: planner.profile, reads: plan.choice.reads)
    func samplePrompt() throws { for _ in 0..<Self.promptSamples { try probe.sample(.prefill) } }
    try samplePrompt()
    var last: ContinuousClock.Instant?
    var (token, samples) = (0, [Int]())
    let generation = try model.generate(
      GenerationRequest(
        prompt: try prompt(file), maxTokens: request.maxTokens,
        ignoresEnd: true),
      isCancelled: { Interrupt.isRequested },
      onToken: { _ in
        if last == nil { try samplePrompt() }
        defer { token += 1 }
        if let last, token < samples.last! + Self.sampleTokens,
          ContinuousClock.now - last < Self.samplePeriod
        {
          return
        }
        try probe.sample(.decode)
        last = ContinuousClock.now
        samples.append(token)
      })
    if generation.statistics.cancelled { throw ExitCode(130) }
    var same = wanted
    same.reads = [plan.choice.reads]
    same.prefetch = plan.choice.prefetch
    func predicted(_ phase: Phase) throws -> Figures {
      Figures(try planner.replacing(probe.profile(phase)).plan(same).prediction)
    }
    var probed = try predicted(.decode)
    probed.timeToFirstToken = try predicted(.prefill).timeToFirstToken
    let ratios = probe.ratios(.decode)
    return Row(
      memory: wanted.memory, slots: plan.slots, experts: plan.model.layers * plan.model.experts,
      choice: plan.choice, blind: Figures(plan.prediction), probed: probed,
      measured: Figures(generation.statistics, samples: samples), diskRatio: ratios.disk,
      computeRatio: ratios.compute)
  }

  /// Between two samples of the machine, whichever is shorter.
  private static let samplePeriod = Duration.milliseconds(200)
  private static let sampleTokens = 64
  /// Tokens after a sample until the caches hold what a model needs again.
  fileprivate static let settlingTokens = 8
  /// Samples before the prompt, and after it.
  private static let promptSamples = 4

  private func fillPageCache(with file: ModelFile) throws {
    var progress = ProgressLine("filling the page cache")
    defer { progress.clear() }
    try file.fillPageCache { done, total in
      progress.draw(done: done, of: total, detail: formatBytes(done))
      if Interrupt.isRequested { throw ExitCode(130) }
    }
  }

  /// The prompt that was given, or text of as many tokens as were asked for.
  private func prompt(_ file: ModelFile) throws -> [Int32] {
    if let promptFile = request.promptFile {
      return file.tokenizer.encodePrompt(bytes: try readFile(promptFile))
    }
    let text =
      "The old harbour lay quiet in the morning light. Boats came in one by one, and the men on the "
      + "quay talked about the weather, the price of fish and the war that was over at last. "
    var tokens: [Int32] = []
    while tokens.count < request.promptTokens { tokens += file.tokenizer.encodePrompt(text) }
    return Array(tokens.prefix(request.promptTokens))
  }

  static func table(_ rows: [Row]) -> String {
    func error(_ predicted: Double, _ measured: Double) -> String {
      measured > 0 ? signedPercent(predicted / measured - 1) : "-"
    }
    return formatTable(
      [
        "memory", "slots", "reads", "tokens/s", "blind", "error", "probed", "error", "TPOT",
        "probed",
        "first token", "probed", "error", "hits", "predicted", "per token", "predicted",
      ],
      rows.map { row in
        let (m, b, p) = (row.measured, row.blind, row.probed)
        return [
          formatBytes(row.memory), "\(row.slots)/\(row.experts)",
          row.choice.reads.rawValue + (row.choice.prefetch ? ", ahead" : ""),
          formatFixed(m.tokensPerSecond, digits: 2), formatFixed(b.tokensPerSecond, digits: 2),
          error(b.tokensPerSecond, m.tokensPerSecond), formatFixed(p.tokensPerSecond, digits: 2),
          error(p.tokensPerSecond, m.tokensPerSecond), milliseconds(m.tpotMean),
          milliseconds(p.tpotMean), "\(formatFixed(m.timeToFirstToken, digits: 2)) s",
          "\(formatFixed(p.timeToFirstToken, digits: 2)) s",
          error(p.timeToFirstToken, m.timeToFirstToken), percent(m.hitRate), percent(p.hitRate),
          formatBytes(Int(m.bytesPerToken)), formatBytes(Int(p.bytesPerToken)),
        ]
      })
  }
}

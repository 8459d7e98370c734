import ArgumentParser
import Placement
import Replay
import Residency
import Routing
import Stoker

/// The live half of `stoker replay`: a trace's routing through a real model, and the simulation of the
/// same beside it.
struct LiveComparison {
  let modelPath: String
  let arguments: RunningArguments
  let policies: [PolicyName]
  let capacities: [ReplayCapacity]
  let hardware: HardwareProfile?
  /// What is read ahead by; nil: nothing is.
  let predictor: ReplayPredictor?
  /// Sequences that are decoded together; more than one are measured and not simulated, as the figures of a
  /// machine are those of single tokens.
  let batch: Int
  /// Runs of each cell; the one whose measured speed is the median is reported.
  let repeats: Int

  /// What one run came to, measured and simulated.
  struct Row: Encodable {
    let trace: String
    let policy: String
    let capacityBytes: Int
    let capacityShare: Double
    let batch: Int
    /// Of steps, which decode a token of each sequence, where these are several.
    let measured: TokenTimes
    /// Tokens per second, of all sequences together.
    let tokensPerSecond: Double
    var simulated: TokenTimes?
    /// Simulated over measured tokens per second, less 1.
    var error: Double?
    /// Measured and simulated tokens per second of every run.
    var runs: [[Double?]] = []
    let measuredHitRate: Double
    let simulatedHitRate: Double
    let measuredStallShare: Double
    let simulatedStallShare: Double?
    let bytesPerToken: Double
    /// What the bytes would take if nothing but reading them took time.
    let readBoundTokensPerSecond: Double?
    /// What was read ahead, measured and simulated; nil without a predictor.
    let prefetch: PrefetchLedger?
    let simulatedPrefetch: PrefetchAccount?
    let hardware: HardwareProfile?
  }

  /// Replays `trace`, which users call `name`, at each capacity with each policy.
  func rows(_ trace: RoutingTrace, name: String) throws -> [Row] {
    let file = try ModelFile(
      path: modelPath, folders: arguments.modelDir, expertsPerToken: trace.header.geometry.topK)
    try file.validateShape(of: trace)
    guard let trace = trace.cut(into: batch) else {
      throw InputError(
        path: name, reason: "it has too few decoded tokens to be those of \(batch) sequences")
    }
    let steps = (0..<trace.eventCount).lazy.map { Int(trace.step(of: $0)) + 1 }.max() ?? 1
    var options = arguments.options(context: min(max(steps, batch), file.contextLength, 4096))
    // The model's own states say nothing of the trace's routing: what predicts is the trace.
    options.prefetch = predictor == nil ? .off : .auto
    options.predictor = .gateReuse
    let requirements = try file.requirements(options)
    // Counted once: it grows with every model.
    options.processMemory = requirements.process
    var rows: [Row] = []
    for capacity in capacities {
      let byteCount = capacity.byteCount(of: requirements.allSlots)
      let room = requirements.fullBudget - requirements.allSlots + byteCount
      for policy in policies {
        var options = options
        options.memory = room
        options.policy = policy
        var runs: [Row] = []
        for _ in 0..<repeats {
          runs.append(try row(trace, name: name, file: file, options: options))
        }
        rows.append(Self.median(runs))
      }
    }
    return rows
  }

  /// The run of median speed, its simulated speed and error being the medians too.
  private static func median(_ runs: [Row]) -> Row {
    var row = runs.sorted { $0.tokensPerSecond < $1.tokensPerSecond }[runs.count / 2]
    row.runs = runs.map { [$0.tokensPerSecond, $0.simulated?.tokensPerSecond] }
    let simulated = runs.compactMap(\.simulated).sorted { $0.tokensPerSecond < $1.tokensPerSecond }
    guard !simulated.isEmpty else { return row }
    row.simulated = simulated[simulated.count / 2]
    row.error = row.simulated!.tokensPerSecond / row.tokensPerSecond - 1
    return row
  }

  private func row(
    _ trace: RoutingTrace, name: String, file: ModelFile, options: ModelOptions
  ) throws -> Row {
    // What measuring makes resident, the replay must not find.
    let profile =
      batch > 1 ? nil : try hardware ?? loadModel(file, options).measureProfile(options)
    let model = try loadModel(file, options)
    if predictor != nil, model.configuration.stagingSlots == 0 {
      Terminal.note(
        "\(name): nothing is read ahead in \(formatBytes(model.configuration.slotMemory)): every expert is "
          + "resident, or there are too few slots to spare one of \(SlotPlan.slotsPerStaged)")
    }
    var sized = trace
    let sizes = model.expertSizes
    sized.setSizes(
      expertByteCounts: sizes.expertByteCounts, slotByteCounts: sizes.slotByteCounts)
    var progress = ProgressLine("\(name), live")
    let live = try model.replay(
      sized, batch: batch, by: predictor, isCancelled: { Interrupt.isRequested },
      progress: { progress.draw(done: $0, of: $1) })
    progress.clear()
    if Interrupt.isRequested { throw ExitCode(130) }

    var simulation = ReplayOptions()
    simulation.policies = [options.policy]
    simulation.capacities = [.bytes(model.configuration.slotMemory)]
    simulation.hardware = profile
    simulation.predictor = predictor
    simulation.batch = batch
    simulation.stagedCount = model.configuration.stagingSlots
    let simulated = try Comparison(sized, name: name, options: simulation).rows()[0]
    guard let measured = TokenTimes(TimeHistogram(live.stepSeconds)) else {
      throw InputError(path: name, reason: "the trace has no decoded token to time")
    }
    let seconds = live.stepSeconds.reduce(0, +)
    let tokensPerSecond = Double(live.tokenCount) / seconds
    let bytesPerToken = Double(live.missedByteCount) / Double(live.tokenCount)
    return Row(
      trace: name, policy: options.policy.name, capacityBytes: simulated.capacityBytes,
      capacityShare: simulated.capacityShare, batch: batch, measured: measured,
      tokensPerSecond: tokensPerSecond, simulated: simulated.times,
      error: simulated.times.map { $0.tokensPerSecond / tokensPerSecond - 1 },
      measuredHitRate: Double(live.hits) / Double(max(1, live.accesses)),
      simulatedHitRate: simulated.hitRate,
      measuredStallShare: live.stallSeconds / seconds,
      simulatedStallShare: simulated.stallShare, bytesPerToken: bytesPerToken,
      readBoundTokensPerSecond: bytesPerToken > 0
        ? profile.map { $0.readBytesPerSecond / bytesPerToken } : nil,
      prefetch: predictor == nil ? nil : live.prefetch, simulatedPrefetch: simulated.prefetch,
      hardware: profile)
  }

  /// The rows for people.
  static func table(_ rows: [Row]) -> String {
    var head = [
      "memory", "policy", "hits", "tokens/s", "simulated", "error", "p50", "simulated", "p95",
      "simulated", "stall", "simulated", "read bound",
    ]
    if rows.contains(where: { $0.prefetch != nil }) {
      head += ["read ahead", "simulated", "needed", "in time", "simulated"]
    }
    return formatTable(
      head,
      rows.map { row in
        var cells = [
          formatBytes(row.capacityBytes), row.policy, percent(row.measuredHitRate),
          formatFixed(row.tokensPerSecond, digits: 2),
          row.simulated.map { formatFixed($0.tokensPerSecond, digits: 2) } ?? "-",
          row.error.map { percent($0) } ?? "-",
          milliseconds(row.measured.tpotP50Seconds),
          row.simulated.map { milliseconds($0.tpotP50Seconds) } ?? "-",
          milliseconds(row.measured.tpotP95Seconds),
          row.simulated.map { milliseconds($0.tpotP95Seconds) } ?? "-",
          percent(row.measuredStallShare), row.simulatedStallShare.map { percent($0) } ?? "-",
          row.readBoundTokensPerSecond.map { formatFixed($0, digits: 2) } ?? "-",
        ]
        if let found = row.prefetch, let expected = row.simulatedPrefetch {
          cells += [
            formatBytes(found.issued.byteCount), formatBytes(Int(expected.issuedBytes)),
            found.accuracy.map { percent($0) } ?? "-", found.timeliness.map { percent($0) } ?? "-",
            expected.neededBytes > 0 ? percent(expected.inTimeBytes / expected.neededBytes) : "-",
          ]
        }
        return cells
      })
  }
}

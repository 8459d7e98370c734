import ArgumentParser
import FoundationEssentials
import Placement
import Residency
import Stoker

/// The plan that a run follows, and what became of its prediction.
struct RunPlan {
  private(set) var plan: Plan
  /// Where it was read from; nil if the run made it.
  private let path: String?
  /// What plans anew; nil where this machine has not been measured.
  private var planner: Planner?
  private var watch: DriftWatch?
  /// What was predicted last, after something had changed; nil if nothing has.
  private var predicted: Double?
  /// Whether a drift may begin or end reading ahead: not where the user has said, nor under a recording,
  /// which is replayed in slots that stay.
  var switchesPrefetch = true
  private let start = ContinuousClock.now
  /// Decoded tokens from which on a run's speed says something.
  private static let enoughTokens = 16

  /// The plan in a file, for a run of `file` on this machine; made anew if it is for another machine or a
  /// shorter context, which is told.
  /// - Parameter recent: what the model has routed last; nil if that is not to be gone by.
  /// - Throws: `InputError` if it is for another model.
  init(
    path: String, file: ModelFile, needed: Int, tokens: Int, running: RunningArguments,
    recent: RecentRouting?
  ) throws {
    self.path = path
    plan = try Self.read(path)
    var options = running.options(context: max(needed, plan.context))
    options.threads = running.threads ?? plan.threads
    let subject = try PlanSubject(file, options: options)
    if let difference = subject.model.difference(from: plan.model) {
      throw PlanError(path: path, reason: difference)
    }
    let here = try MachineIdentity.here(folder: folderOf(file.path), threads: options.threads)
    var reason = here.difference(from: plan.machine)
    if needed > plan.context {
      reason = "it is for a context of \(plan.context), this run needs \(needed)"
    }
    var refusal: String?
    if let own = MachineFile.own(refusal: &refusal), here.difference(from: own.machine) == nil {
      planner = try Planner(subject, profile: own, trace: nil, recent: recent)
    }
    defer { watch = DriftWatch(plan.prediction) }
    guard let reason else { return }
    Terminal.note("'\(path)' is planned anew: \(reason)")
    guard let planner else {
      throw PlanError(
        path: path,
        reason: "\(reason), and \(refusal ?? "this machine has not been measured to plan anew"); "
          + "run 'stoker calibrate' first")
    }
    var request = Planner.Request(
      memory: plan.memory, promptTokens: max(1, needed - tokens), tokens: max(1, tokens))
    request.reads = [plan.choice.reads]
    plan = try planner.plan(request)
  }

  /// - Throws: `InputError` naming the file and what is wrong with it; `PlanError` if it is for several sequences.
  private static func read(_ path: String) throws -> Plan {
    let plan = try PlanFile.read(path)
    if let batch = plan.batch, batch > 1 {
      throw PlanError(
        path: path,
        reason: "it is for \(batch) sequences that are decoded together, and a run decodes one; "
          + "plan without --batch")
    }
    return plan
  }

  /// The plan that a run makes for itself; nil if this machine has not been measured, which is told where
  /// `explains`, or if no plan can be made of the options, which the run itself will say.
  /// - Parameter recent: what the model has routed last; nil if that is not to be gone by.
  init?(
    file: ModelFile, options: ModelOptions, promptTokens: Int, tokens: Int,
    recent: RecentRouting?, explains: Bool
  ) throws {
    var refusal: String?
    guard let own = MachineFile.own(refusal: &refusal) else {
      if let refusal {
        Terminal.note("no speed is predicted: \(refusal); 'stoker calibrate' measures anew")
      } else if explains {
        Terminal.note("no speed is predicted: 'stoker calibrate' has not been run")
      }
      return nil
    }
    let here = try MachineIdentity.here(folder: folderOf(file.path), threads: options.threads)
    if let difference = here.difference(from: own.machine) {
      if explains { Terminal.note("no speed is predicted: the machine's profile: \(difference)") }
      return nil
    }
    if explains, let staleness = MachineFile.staleness(of: own) { Terminal.note(staleness) }
    let subject = try PlanSubject(file, options: options)
    let memory = options.memory ?? min(Machine.defaultMemoryBudget, subject.fullBudget)
    var request = Planner.Request(
      memory: memory, promptTokens: max(1, promptTokens), tokens: max(1, tokens))
    request.reads = readKinds(
      direct: options.direct, pageCache: Machine.defaultMemoryBudget - memory,
      experts: subject.work.totalExpertByteCount)
    switch options.prefetch {
    case .auto: break
    case .off: request.prefetch = false
    case .depth: request.prefetch = true
    }
    let planner = try Planner(subject, profile: own, trace: nil, recent: recent)
    guard let found = try? planner.plan(request) else { return nil }
    plan = found
    path = nil
    self.planner = planner
    watch = DriftWatch(found.prediction)
  }

  /// One line of what to expect.
  var line: String { "plan: \(PlanReport(plan).line)" }

  // MARK: - While it runs

  /// Looks between two tokens whether anything has changed: the plan's file, or what the machine or the
  /// routing are like. Where it has, what follows is done, and told.
  mutating func step(_ model: MoEModel) {
    if path != nil, Reload.take() { Terminal.note(reload(model)) }
    let total = model.expertStatistics
    let issued = total.totalPrefetch.issued.byteCount
    let elapsed = ContinuousClock.now - start
    let drift = watch?.note(
      DriftWatch.Observation(
        seconds: elapsed / .seconds(1), stallSeconds: Double(total.diskWaitNanoseconds) / 1e9,
        readBytes: Double(total.decode.demandedByteCount + issued),
        readSeconds: Double(total.diskBusyNanoseconds) / 1e9, hits: total.decode.hits,
        accesses: total.decode.hits + total.decode.misses))
    if let drift { Terminal.note(replan(after: drift, model)) }
  }

  /// Reads the plan's file again and obeys it.
  /// - Returns: what came of it, in words.
  private mutating func reload(_ model: MoEModel) -> String {
    do {
      let new = try Self.read(path!)
      if let difference = plan.model.difference(from: new.model) {
        throw PlanError(path: path!, reason: difference)
      }
      try model.setMemory(new.memory)
      try model.setReadsAhead(new.choice.prefetch)
      plan = new
      watch = DriftWatch(new.prediction)
      return "plan: read again: \(formatBytes(new.memory)), \(model.configuration.slots) slots"
    } catch {
      return "plan: \(error); going on as before"
    }
  }

  /// Plans for what the machine has become, and begins or ends reading ahead if that is better now.
  private mutating func replan(after drift: DriftWatch.Drift, _ model: MoEModel) -> String {
    var changes: [String] = []
    func factor(_ name: String, _ value: Double) {
      if value != 1 { changes.append("\(name) at \(percent(value)) of what was expected") }
    }
    factor("the drive is", drift.disk)
    factor("the processor is", drift.compute)
    if let hits = drift.hits {
      changes.append("\(percent(hits.seen)) hits, \(percent(hits.expected)) expected")
    }
    var text = "plan: \(changes.joined(separator: ", "))"
    guard let planner, drift.disk != 1 || drift.compute != 1 else { return text }
    do {
      let profile = planner.profile.scalingDisk(by: drift.disk).scalingCompute(by: drift.compute)
      let changed = try planner.replacing(profile)
      self.planner = changed
      var request = Planner.Request(
        memory: plan.memory, promptTokens: plan.promptTokens, tokens: plan.tokens)
      request.reads = [plan.choice.reads]
      let new = try changed.plan(request)
      text +=
        "; \(formatFixed(new.prediction.tokensPerSecond, digits: 2)) tokens/s predicted from here"
      if switchesPrefetch, new.choice.prefetch != model.readsAhead,
        !model.configuration.holdsEveryExpert
      {
        try model.setReadsAhead(new.choice.prefetch)
        text +=
          model.readsAhead ? ", experts are read ahead now" : ", none is read ahead any more"
      }
      predicted = new.prediction.tokensPerSecond
    } catch {
      text += "; \(error)"
    }
    return text
  }

  // MARK: - Afterwards

  /// Puts the prediction beside the measurement, in words; nil if too little was measured.
  ///
  /// - Parameter folder: where the errors of this machine's runs are kept; nil: nowhere.
  func outcome(_ statistics: RunStatistics, folder: String?) -> String? {
    guard statistics.decodeSeconds.count >= Self.enoughTokens, !statistics.cancelled,
      let measured = statistics.tokensPerSecond
    else { return nil }
    let predicted = plan.prediction.tokensPerSecond
    let entry = PredictionLog.Entry(
      model: plan.model.name, memory: plan.memory, date: Date().formatted(.iso8601),
      predictedTokensPerSecond: predicted, measuredTokensPerSecond: measured)
    var text =
      "plan: \(formatFixed(predicted, digits: 2)) tokens/s predicted, "
      + "\(formatFixed(measured, digits: 2)) measured (\(signedPercent(entry.error)))"
    if let last = self.predicted {
      text += ", \(formatFixed(last, digits: 2)) predicted since something changed"
    }
    guard let folder else { return text }
    var log = PredictionLog(folder: folder)
    if let refusal = log.refusal { text += "; \(refusal)" }
    do {
      try log.append(entry)
    } catch {
      text += "; \(error)"
    }
    if let median = log.medianError {
      let runs = log.entries.count
      text +=
        "; off by \(percent(median)) at the median of \(runs) \(runs == 1 ? "run" : "runs") here"
    }
    return text
  }
}

/// A plan that a run cannot follow.
struct PlanError: Error, CustomStringConvertible {
  let path: String
  let reason: String
  var description: String { "the plan in '\(path)' cannot be obeyed: \(reason)" }
}

import ArgumentParser
import FoundationEssentials
import Placement
import Stoker

/// The plan that a run follows, and what became of its prediction.
struct RunPlan {
  private(set) var plan: Plan
  /// Decoded tokens from which on a run's speed says something.
  private static let enoughTokens = 16

  /// The plan in a file, for a run of `file` on this machine; made anew if it is for another machine or a
  /// shorter context, which is told.
  /// - Throws: `InputError` if it is for another model.
  init(path: String, file: ModelFile, needed: Int, tokens: Int, running: RunningArguments) throws {
    plan = try PlanFile.read(path)
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
    guard let reason else { return }
    Terminal.note("'\(path)' is planned anew: \(reason)")
    guard let own = try MachineFile.own(), here.difference(from: own.machine) == nil else {
      throw PlanError(
        path: path,
        reason: "\(reason), and this machine has not been measured to plan anew; run "
          + "'stoker calibrate' first")
    }
    var request = Planner.Request(
      memory: plan.memory, promptTokens: max(1, needed - tokens), tokens: max(1, tokens))
    request.reads = [plan.choice.reads]
    plan = try Planner(subject, profile: own, trace: nil).plan(request)
  }

  /// The plan that a run makes for itself; nil if this machine has not been measured, which is told where
  /// `explains`, or if no plan can be made of the options, which the run itself will say.
  init?(
    file: ModelFile, options: ModelOptions, promptTokens: Int, tokens: Int, explains: Bool
  ) throws {
    guard let own = try MachineFile.own() else {
      if explains { Terminal.note("no speed is predicted: 'stoker calibrate' has not been run") }
      return nil
    }
    let here = try MachineIdentity.here(folder: folderOf(file.path), threads: options.threads)
    if let difference = here.difference(from: own.machine) {
      if explains { Terminal.note("no speed is predicted: the machine's profile: \(difference)") }
      return nil
    }
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
    guard let found = try? Planner(subject, profile: own, trace: nil).plan(request) else {
      return nil
    }
    plan = found
  }

  /// One line of what to expect.
  var line: String { "plan: \(PlanReport(plan).line)" }

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
    guard let folder else { return text }
    var log = PredictionLog(folder: folder)
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

import Placement
import Stoker

/// A plan, for people.
struct PlanReport {
  private let plan: Plan

  init(_ plan: Plan) { self.plan = plan }

  /// The whole page.
  var text: String {
    let p = plan.prediction
    var rows: [(String, String)] = [
      (
        "model",
        "\(plan.model.name), \(formatBytes(plan.model.fileBytes)): \(plan.model.layers) layers of "
          + "\(plan.model.experts) experts, top-\(plan.model.topK)"
      ),
      (
        "machine",
        "\(plan.machine.processor), \(plan.machine.threads) threads; \(plan.machine.drive)"
          + (plan.measured.map { ", measured \($0)" } ?? ", nominal figures")
      ),
      ("routing", plan.basis),
      ("memory", "\(formatBytes(p.peakMemory)) of \(formatBytes(plan.memory)):"),
    ]
    for part in plan.parts where part.bytes > 0 {
      rows.append(("  \(part.name)", formatBytes(part.bytes)))
    }
    rows += [
      (
        "experts",
        experts
      )
    ]
    if let device = plan.device {
      rows.append(
        (
          "accelerator",
          "\(device.name): \(formatBytes(device.usedBytes)) of \(formatBytes(device.memory)), "
            + "\(device.expertCount) experts\(device.holdsDense ? " and what every token uses" : ""); "
            + "\(percent(device.hitRate)) of a token's experts are there. "
            + (device.fetchFromTokens.map { "Fetching an expert pays from \($0) tokens on" }
              ?? "Fetching an expert does not pay")
        ))
    }
    rows += [
      (
        "speed",
        "\(formatFixed(p.tokensPerSecond, digits: 2)) tokens/s (±\(formatFixed(100 * p.uncertainty, digits: 0)) %)"
          + (plan.batch.map { " of \($0) sequences together" } ?? "")
          + "; first token after \(formatFixed(p.timeToFirstToken, digits: 2)) s with a prompt of "
          + "\(plan.promptTokens) tokens"
      ),
      (
        plan.batch == nil ? "a token" : "a step",
        "\(milliseconds(p.tpotMean)) at the mean, p95 \(milliseconds(p.tpotP95)): waiting for reads "
          + "\(milliseconds(p.stallSeconds)), experts \(milliseconds(p.expertSeconds)), other matrices "
          + "\(milliseconds(p.denseSeconds)), looking back \(milliseconds(p.contextSeconds)), the rest "
          + milliseconds(p.otherSeconds)
      ),
      ("  waiting", waiting),
      (
        "hits",
        "\(percent(p.hitRate)) of experts are resident; \(formatBytes(Int(p.bytesPerToken))) read per token"
      ),
      (
        "what binds",
        "\(Self.words(p.binding)); \(formatFixed(p.overlapBound, digits: 2)) tokens/s if all overlapped"
      ),
    ]
    for advice in plan.advice {
      rows.append(
        (
          advice.change,
          "\(formatFixed(advice.tokensPerSecond, digits: 2)) tokens/s "
            + "(\(Self.change(advice.tokensPerSecond, from: p.tokensPerSecond)))"
        ))
    }
    for other in plan.alternatives where other.choice != plan.choice {
      rows.append(
        (
          "instead",
          "\(formatFixed(other.tokensPerSecond, digits: 2)) tokens/s "
            + "(\(Self.change(other.tokensPerSecond, from: p.tokensPerSecond))): "
            + "\(other.slots) slots, \(other.choice.summary)"
        ))
    }
    let width = (rows.map(\.0.count).max() ?? 0) + 2
    return rows.map { $0.0.padding(to: width) + $0.1 }.joined(separator: "\n")
  }

  /// One line: the placement, the speed, what binds.
  var line: String {
    let p = plan.prediction
    let speed =
      "\(formatFixed(p.tokensPerSecond, digits: 2)) tokens/s predicted "
      + "(±\(formatFixed(100 * p.uncertainty, digits: 0)) %)"
    return "\(experts) in \(formatBytes(plan.memory)); \(speed), \(Self.words(p.binding)) binds"
  }

  /// What is waited for.
  private var waiting: String {
    let stalls = plan.prediction.stalls
    guard stalls.total > 0 else { return "for nothing" }
    func part(_ seconds: Double) -> String {
      "\(milliseconds(seconds)) (\(percent(seconds / stalls.total)))"
    }
    return "for experts that had to go \(part(stalls.evictedSeconds)), for those not needed before "
      + "\(part(stalls.firstUseSeconds)), for reads ahead that are late \(part(stalls.lateSeconds))"
  }

  /// How many experts fit and how the others are read.
  private var experts: String {
    let all = plan.model.layers * plan.model.experts
    return plan.slots == all
      ? "every expert resident" : "\(plan.slots) of \(all) experts, \(plan.choice.summary)"
  }

  static func words(_ binding: Prediction.Binding) -> String {
    switch binding {
    case .drive: "the drive"
    case .memory: "memory bandwidth"
    case .processor: "the processor"
    case .device: "the accelerator"
    }
  }

  /// How much more or less, in percent.
  private static func change(_ value: Double, from base: Double) -> String {
    signedPercent(value / base - 1)
  }

  /// Plans side by side.
  static func comparison(_ plans: [(String, Plan)]) -> String {
    func row(_ name: String, _ value: (Plan) -> String) -> [String] {
      [name] + plans.map { value($0.1) }
    }
    let rows = [
      row("model") { $0.model.name },
      row("machine") { $0.machine.processor },
      row("memory") { formatBytes($0.memory) },
      row("experts that fit") { "\($0.slots) of \($0.model.layers * $0.model.experts)" },
      row("reads") { $0.choice.reads.rawValue + ($0.choice.prefetch ? ", ahead" : "") },
      row("sequences") { "\($0.batch ?? 1)" },
      row("context") { "\($0.context)" },
      row("hit rate") { percent($0.prediction.hitRate) },
      row("read per token") { formatBytes(Int($0.prediction.bytesPerToken)) },
      row("tokens/s") { formatFixed($0.prediction.tokensPerSecond, digits: 2) },
      row("uncertainty") { percent($0.prediction.uncertainty) },
      row("p95 of a token") { milliseconds($0.prediction.tpotP95) },
      row("first token") { "\(formatFixed($0.prediction.timeToFirstToken, digits: 2)) s" },
      row("what binds") { words($0.prediction.binding) },
    ]
    return formatTable([""] + plans.map(\.0), rows)
  }
}

import ArgumentParser
import Placement
import Replay
import Stoker

/// What `stoker plan --sweep` goes through.
enum SweepKind: String, ExpressibleByArgument, CaseIterable {
  case memory, disk, context
}

/// Plans for a range of one quantity.
struct PlanSweep {
  let kind: SweepKind
  let modelPath: String?
  let request: PlanArguments

  /// A plan at one value of the quantity.
  struct Row: Encodable {
    /// Bytes of memory, bytes per second of the drive or positions.
    let value: Double
    let plan: Plan
    /// Whether the curve bends most here: beyond, more brings less.
    var isKnee = false
  }

  func rows() throws -> [Row] {
    let planner = try request.planner(modelPath: modelPath)
    let machine = planner.profile
    var rows: [Row] = []
    var progress = ProgressLine("planning")
    defer { progress.clear() }
    let steps = 12
    func add(_ value: Double, _ step: Int, _ plan: Plan) throws {
      rows.append(Row(value: value, plan: plan))
      progress.draw(done: step, of: steps)
      if Interrupt.isRequested { throw ExitCode(130) }
    }
    switch kind {
    case .memory:
      let low = planner.minimumBudget(try request.plannerRequest(planner, memory: 0))
      let high = planner.subject.fullBudget
      for step in 0...steps {
        let memory = low + Int(Double(high - low) * Double(step) / Double(steps))
        try add(
          Double(memory), step, planner.plan(request.plannerRequest(planner, memory: memory)))
      }
    case .disk:
      let base = CostModel(profile: machine, work: planner.subject.work)
      for step in 0...steps {
        let factor = 0.125 * Double(1 << (step / 2)) * (step % 2 == 0 ? 1 : 2.0.squareRoot())
        let scaled = try planner.replacing(machine.scalingDisk(by: factor))
        let plan = try scaled.plan(request.plannerRequest(planner))
        let rate = base.steadyBytesPerSecond(plan.choice.reads) ?? 0
        try add(rate * factor, step, plan)
      }
    case .context:
      for step in 0...steps {
        let context = 512 << step
        if let modelPath, context > (try request.running.open(modelPath).contextLength) { break }
        if context > 1 << 20 { break }
        let longer = try request.planner(
          modelPath: modelPath, context: context, machine: machine)
        var wanted = try request.plannerRequest(longer, memory: request.memories.first)
        wanted.promptTokens = max(1, min(wanted.promptTokens, context - 1))
        guard wanted.memory >= longer.minimumBudget(wanted) else { break }
        try add(Double(context), step, longer.plan(wanted))
      }
    }
    markKnee(&rows)
    return rows
  }

  /// The knee is where the curve lies farthest above the straight line between its ends.
  private func markKnee(_ rows: inout [Row]) {
    guard rows.count > 2, let first = rows.first, let last = rows.last else { return }
    let (x0, x1) = (first.value, last.value)
    let (y0, y1) = (
      first.plan.prediction.tokensPerSecond, last.plan.prediction.tokensPerSecond
    )
    func above(_ row: Row) -> Double {
      row.plan.prediction.tokensPerSecond - y0 - (row.value - x0) / (x1 - x0) * (y1 - y0)
    }
    let best = rows.indices.max { above(rows[$0]) < above(rows[$1]) }!
    if above(rows[best]) > 0.02 * max(y0, y1) { rows[best].isKnee = true }
  }

  private static func value(_ row: Row, _ kind: SweepKind) -> String {
    switch kind {
    case .memory: formatBytes(Int(row.value))
    case .disk: "\(formatBytes(Int(row.value)))/s"
    case .context: "\(Int(row.value))"
    }
  }

  static func table(_ rows: [Row], kind: SweepKind) -> String {
    let cells = cells(rows, kind)
    return formatTable(cells.head, cells.rows)
  }

  private static func cells(_ rows: [Row], _ kind: SweepKind) -> (head: [String], rows: [[String]])
  {
    (
      [
        kind == .disk ? "drive" : kind.rawValue, "slots", "hits", "read per token", "tokens/s",
        "first token", "binds", "reads", "",
      ],
      rows.map { row in
        let p = row.plan.prediction
        return [
          value(row, kind), "\(row.plan.slots)", percent(p.hitRate),
          formatBytes(Int(p.bytesPerToken)),
          "\(formatFixed(p.tokensPerSecond, digits: 2)) ±\(formatFixed(100 * p.uncertainty, digits: 0)) %",
          "\(formatFixed(p.timeToFirstToken, digits: 2)) s", PlanReport.words(p.binding),
          row.plan.choice.reads.rawValue + (row.plan.choice.prefetch ? ", ahead" : ""),
          row.isKnee ? "the knee" : "",
        ]
      }
    )
  }

  /// The curves as a page.
  static func page(_ rows: [Row], kind: SweepKind) -> String {
    let scale: (unit: String, divisor: Double)
    switch kind {
    case .memory: scale = ("GiB of memory", Double(1 << 30))
    case .disk: scale = ("GB/s of the drive", 1e9)
    case .context: scale = ("positions of the context", 1)
    }
    let plan = rows.first?.plan
    return PlanPage(
      title: "Plan for \(plan?.model.name ?? "")",
      lead: "\(plan?.machine.processor ?? ""), \(plan?.machine.drive ?? ""). \(plan?.basis ?? "").",
      xLabel: scale.unit,
      points: rows.map { row in
        let p = row.plan.prediction
        return PlanPage.Point(
          x: row.value / scale.divisor, tokensPerSecond: p.tokensPerSecond,
          bound: p.overlapBound, hitRate: p.hitRate, firstTokenSeconds: p.timeToFirstToken,
          isKnee: row.isKnee)
      }, table: cells(rows, kind)
    ).html
  }
}

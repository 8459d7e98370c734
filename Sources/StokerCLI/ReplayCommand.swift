import ArgumentParser
import Placement
import Replay
import Residency
import Routing
import Stoker

/// `stoker replay`: policies and capacities compared on routing traces.
struct ReplayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay", abstract: "Compares cache policies and memory sizes on routing traces.",
    discussion: """
      No model is needed: a trace says which experts each token was routed to. Replay is event-atomic: \
      what is resident is settled when a layer begins, its experts are then classified, served, \
      admitted, and only then is anything evicted. The gap is (m - m_MIN) / m over the misses, MIN \
      being the clairvoyant optimum with bypass; of it, the share that lies in admitting everything is \
      'admission'.

      Where a trace was recorded by 'stoker run', the policies that 'run' has are replayed as it runs \
      them: over slots, prompts passing through a window. A recorded run, replayed with its policy and \
      the bytes of its slots ('run --stats' prints both), has the same hits and misses.

      Policies: \(PolicyName.allCases.map(\.name).joined(separator: ", ")). The last seven know the \
      future: MIN with so many tokens of it, with forced admission, and with bypass. static, hybrid and \
      layer-quota learn from the beginning of the trace, --fit of it, which then counts for no policy.

      Example: stoker replay qwen.route.csv --policy lru,next-use,min --memory 2GiB,25%,50%
      """)

  @Argument(help: "Traces in any format that 'stoker trace' reads; ESFT's as a folder.")
  var traces: [String]

  @Option(
    help: ArgumentHelp(
      "The policies.",
      discussion: "Default: lru,lfu,lfru,arc,next-use,min; with --live next-use.",
      valueName: "a,b,c"))
  var policy: PolicyList?

  @Option(
    help: ArgumentHelp(
      "Memory for experts: sizes, or shares of all experts.",
      discussion: "Default: 12.5%,25%,37.5%,50%; with --html more, for the curves.",
      valueName: "1GiB,25%"))
  var memory: CapacityList?

  @Option(help: "One pool of memory over all layers (global), or an equal share each (layer).")
  var scope: ReplayScope = .global

  @Flag(
    help: "Leave out MIN and the gap to it: their future is all that grows with a trace's length.")
  var noGap = false

  @Option(
    help: ArgumentHelp(
      "Sequences that are decoded together; more than one need the trace in memory.",
      discussion: "With --live a trace of fewer is cut into as many, and nothing is simulated.",
      valueName: "count"))
  var batch: Int = 1

  @Option(help: "What is counted: decode, prefill or all.")
  var phase: ReplayPhase = .decode

  @Option(
    help: ArgumentHelp(
      "Print the hit rate of every so many decoded tokens too: how it follows a changing workload.",
      valueName: "tokens"))
  var window: Int?

  @Option(
    help: ArgumentHelp(
      "The part of each trace that fitted policies learn from.",
      discussion: "Default: 50% where one of them is asked for, else 0%.", valueName: "share"))
  var fit: Percentage?

  @Option(
    help: ArgumentHelp(
      "Replay only so many of the layers, in so much of the memory: quicker, not exact.",
      valueName: "share"))
  var sample: Percentage?

  @Option(
    help: ArgumentHelp(
      "Time decoding on this machine: a JSON file as --save-hardware writes it.",
      discussion: "What a token takes follows from a simulation of the disk's queue and the "
        + "processor, layer by layer.", valueName: "file"))
  var hardware: HardwareFile?

  @Option(
    help: ArgumentHelp(
      "Read experts ahead by this predictor, with --hardware or --live.",
      discussion: "One of \(ReplayPredictor.names.joined(separator: ", ")). recorded are the "
        + "predictions of 'stoker run --record-candidates'; control is the trace itself, as if every "
        + "prediction came true.", valueName: "predictor"))
  var predictor: ReplayPredictor?

  @Option(
    help: ArgumentHelp(
      "Run this model with the trace's routing and compare what is simulated with what is measured.",
      discussion: "Its layers, experts and slots are the ones replayed; each token is routed to as "
        + "many experts as in the trace. Without --hardware the machine is measured before each run.",
      valueName: "model.gguf"))
  var live: String?

  @Option(
    help: ArgumentHelp(
      "Times that --live measures and runs everything; medians are printed.", valueName: "count"))
  var repeats: Int = 1

  @Option(
    help: ArgumentHelp(
      "Write the hardware profile that --live has measured.", valueName: "file"))
  var saveHardware: String?

  @Flag(help: "Print a JSON array of rows.")
  var json = false

  @Option(help: ArgumentHelp("Write the rows as comma-separated values too.", valueName: "file"))
  var csv: String?

  @Option(
    help: ArgumentHelp(
      "Write a page of curves, a heat map and a histogram too, complete in itself.",
      valueName: "file"))
  var html: String?

  @OptionGroup var arguments: TraceInputArguments
  @OptionGroup var running: RunningArguments

  private var capacities: [ReplayCapacity] {
    if let memory { return memory.capacities }
    return
      (html == nil
      ? [0.125, 0.25, 0.375, 0.5] : [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.375, 0.5, 0.625, 0.75])
      .map { .share($0) }
  }

  private var policies: [PolicyName] {
    policy?.policies
      ?? (live == nil ? [.lru, .lfu, .lfru, .arc, .nextUse, .min] : [.nextUse])
  }

  func validate() throws {
    guard (1...99).contains(repeats) else { throw ValidationError("--repeats must be 1 to 99.") }
    guard window ?? 1 > 0 else { throw ValidationError("--window must be more than 0.") }
    guard (1...4096).contains(batch) else { throw ValidationError("--batch must be 1 to 4096.") }
    guard predictor == nil || ((hardware != nil || live != nil) && scope == .global) else {
      throw ValidationError("--predictor needs --hardware or --live, and one pool of memory.")
    }
    guard sample == nil || (hardware == nil && live == nil && sample!.share > 0) else {
      throw ValidationError(
        "--sample must be above 0%, and goes with neither --hardware nor --live: times need all layers."
      )
    }
    guard batch == 1 || hardware == nil else {
      throw ValidationError("--hardware times one sequence at a time: it needs --batch 1.")
    }
    if live != nil {
      guard scope == .global, phase == .decode, csv == nil, html == nil, fit == nil else {
        throw ValidationError(
          "--live decodes over one pool: --scope, --phase, --fit, --csv and --html do not go with it."
        )
      }
      guard batch == 1 || (predictor == nil && saveHardware == nil) else {
        throw ValidationError("--predictor and --save-hardware are for one sequence at a time.")
      }
      guard policies.allSatisfy(\.canRun) else {
        throw ValidationError("--live runs \(PolicyName.runnableNames).")
      }
    } else if saveHardware != nil {
      throw ValidationError("--save-hardware needs --live, which measures.")
    }
    guard scope == .global || !policies.contains(where: \.isOracle) else {
      throw ValidationError("Oracles know the future of one pool: they need --scope global.")
    }
    if let fit, fit.share == 0, policies.contains(where: \.isFitted) {
      throw ValidationError("static, hybrid and layer-quota need a --fit above 0%.")
    }
  }

  func run() throws {
    Interrupt.listen()
    if let live { return try compareLive(live) }
    var options = ReplayOptions()
    options.policies = policies
    options.hardware = try hardware?.read()
    options.predictor = predictor
    options.window = window
    options.layerShare = sample?.share
    options.capacities = capacities
    options.scope = scope
    options.batch = batch
    options.phase = phase
    options.showsGap = !noGap
    options.fitShare = fit?.share ?? (policies.contains(where: \.isFitted) ? 0.5 : 0)
    var rows: [ReplayRow] = []
    var page = ReplayPage()
    for path in traces {
      let trace = try open(path)
      let comparison = try Comparison(trace, name: path, options: options)
      guard comparison.futureByteCount <= Machine.defaultMemoryBudget else {
        throw InputError(
          path: path,
          reason: "MIN knows the future of \(trace.accessCount) routed experts, which takes "
            + "\(formatBytes(comparison.futureByteCount)) of memory, and this process may use "
            + "\(formatBytes(Machine.defaultMemoryBudget)). With --no-gap and without min among the "
            + "policies memory does not grow with the trace")
      }
      var progress = ProgressLine(path)
      let found = try comparison.rows { done in
        if Interrupt.isRequested { throw ExitCode(130) }
        progress.draw(done: Int(1000 * done), of: 1000)
      }
      progress.clear()
      if html != nil {
        try page.append(found, of: trace, name: path, machine: options.hardware?.name)
      }
      rows += found
    }
    if let csv { try writeCSV(rows, to: csv) }
    if let html { try writeFile(page.html, to: html) }
    try json ? Terminal.printJSON(rows) : Terminal.print(table(rows))
  }

  private func open(_ path: String) throws -> TraceSource {
    let trace = try arguments.open([path])
    guard predictor != .recorded || !trace.header.predictionDistances.isEmpty else {
      throw InputError(
        path: path,
        reason: "it has no predictions; record them with 'stoker run --record-candidates'")
    }
    return trace
  }

  private func compareLive(_ model: String) throws {
    let comparison = LiveComparison(
      modelPath: model, arguments: running, policies: policies, capacities: capacities,
      hardware: try hardware?.read(), predictor: predictor, batch: batch, repeats: repeats)
    var rows: [LiveComparison.Row] = []
    for path in traces { rows += try comparison.rows(open(path).loaded(), name: path) }
    if let saveHardware, let profile = rows.last?.hardware { try profile.write(to: saveHardware) }
    try json ? Terminal.printJSON(rows) : Terminal.print(LiveComparison.table(rows))
  }

  private func table(_ rows: [ReplayRow]) -> String {
    var head = [
      "memory", "of experts", "policy", "hit rate", "read per token", "gap to MIN", "admission",
    ]
    if traces.count > 1 { head.insert("trace", at: 0) }
    if batch > 1 { head.append("union/memory") }
    if hardware != nil { head += ["tokens/s", "TPOT p50", "p95", "p99", "stall"] }
    if window != nil { head.append("by window, %") }
    if predictor != nil { head += ["read ahead", "needed", "in time"] }
    return formatTable(
      head,
      rows.map { row in
        var cells = [
          formatBytes(row.capacityBytes), percent(row.capacityShare), row.policy,
          percent(row.hitRate), formatBytes(Int(row.bytesPerToken)),
          row.gapToMIN.map { formatFixed($0, digits: 3) } ?? "-",
          row.admissionShareOfGap.map { percent($0) } ?? "-",
        ]
        if traces.count > 1 { cells.insert(row.trace, at: 0) }
        if let times = row.times {
          cells += [
            formatFixed(times.tokensPerSecond, digits: 2), milliseconds(times.tpotP50Seconds),
            milliseconds(times.tpotP95Seconds), milliseconds(times.tpotP99Seconds),
            percent(row.stallShare ?? 0),
          ]
        } else if hardware != nil {
          cells += Array(repeating: "-", count: 5)
        }
        if let rates = row.windowHitRates {
          cells.append(rates.map { formatFixed(100 * $0, digits: 0) }.joined(separator: " "))
        }
        if let prefetch = row.prefetch {
          let issued = max(1, prefetch.issuedBytes)
          cells += [
            formatBytes(Int(prefetch.issuedBytes)), percent(prefetch.neededBytes / issued),
            percent(prefetch.inTimeBytes / issued),
          ]
        } else if predictor != nil {
          cells += Array(repeating: "-", count: 3)
        }
        if batch > 1 { cells.append(formatFixed(row.meanUnionOverCapacity, digits: 2)) }
        return cells
      })
  }

  private func writeCSV(_ rows: [ReplayRow], to path: String) throws {
    var text =
      "trace,policy,scope,batch,phase,capacity_bytes,accesses,hits,hit_rate,bytes_read,"
      + "logical_accesses,logical_hit_rate,gap_to_min\n"
    for row in rows {
      let trace =
        row.trace.contains { ",\"\n".contains($0) }
        ? "\"\(row.trace.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\""))\""
        : row.trace
      text +=
        "\(trace),\(row.policy),\(row.scope),\(row.batch),\(row.phase),\(row.capacityBytes),"
        + "\(row.accesses),\(row.hits),\(row.hitRate),\(row.bytesRead),\(row.logicalAccesses),"
        + "\(row.logicalHitRate),\(row.gapToMIN.map { "\($0)" } ?? "")\n"
    }
    try writeFile(text, to: path)
  }
}

extension ReplayScope: ExpressibleByArgument {}

/// Policies by their names.
struct PolicyList: ExpressibleByArgument {
  let policies: [PolicyName]

  init(policies: [PolicyName]) { self.policies = policies }

  init?(argument: String) {
    let names = argument.split(separator: ",", omittingEmptySubsequences: false)
    let policies = names.compactMap { PolicyName(name: String($0)) }
    guard policies.count == names.count, Set(policies).count == policies.count else { return nil }
    self.policies = policies
  }

  var defaultValueDescription: String { policies.map(\.name).joined(separator: ",") }
}

/// A share from 0 % to 100 %: 50% or 0.5.
struct Percentage: ExpressibleByArgument {
  let share: Double

  init?(argument: String) {
    let isPercent = argument.hasSuffix("%")
    guard let number = Double(isPercent ? argument.dropLast() : argument[...]) else { return nil }
    share = isPercent ? number / 100 : number
    guard (0...1).contains(share) else { return nil }
  }
}

/// Sizes in bytes, or shares of all experts.
struct CapacityList: ExpressibleByArgument {
  let capacities: [ReplayCapacity]

  init(capacities: [ReplayCapacity]) { self.capacities = capacities }

  init?(argument: String) {
    let words = argument.split(separator: ",", omittingEmptySubsequences: false)
    capacities = words.compactMap { word in
      if word.hasSuffix("%") { return Percentage(argument: String(word)).map { .share($0.share) } }
      return ByteSize(argument: String(word)).map { .bytes($0.byteCount) }
    }
    guard capacities.count == words.count else { return nil }
  }

  var defaultValueDescription: String {
    capacities.map { capacity in
      switch capacity {
      case .bytes(let count): formatBytes(count)
      case .share(let share): "\(formatFixed(100 * share, digits: 1))%"
      }
    }.joined(separator: ",")
  }
}

extension ReplayPredictor: ExpressibleByArgument {
  package init?(argument: String) { self.init(name: argument) }
}

import ArgumentParser
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

  @Option(help: ArgumentHelp("The policies.", valueName: "a,b,c"))
  var policy: PolicyList = PolicyList(policies: [.lru, .lfu, .lfru, .arc, .nextUse, .min])

  @Option(
    help: ArgumentHelp(
      "Memory for experts: sizes, or shares of all experts.", valueName: "1GiB,25%"))
  var memory: CapacityList = CapacityList(capacities: [0.125, 0.25, 0.375, 0.5].map { .share($0) })

  @Option(help: "One pool of memory over all layers (global), or an equal share each (layer).")
  var scope: ReplayScope = .global

  @Option(help: ArgumentHelp("Sequences that are decoded together.", valueName: "count"))
  var batch: Int = 1

  @Option(help: "What is counted: decode, prefill or all.")
  var phase: ReplayPhase = .decode

  @Option(
    help: ArgumentHelp(
      "The part of each trace that fitted policies learn from.",
      discussion: "Default: 50% where one of them is asked for, else 0%.", valueName: "share"))
  var fit: Percentage?

  @Flag(help: "Print a JSON array of rows.")
  var json = false

  @Option(help: ArgumentHelp("Write the rows as comma-separated values too.", valueName: "file"))
  var csv: String?

  @OptionGroup var arguments: TraceInputArguments

  func validate() throws {
    guard (1...4096).contains(batch) else { throw ValidationError("--batch must be 1 to 4096.") }
    guard scope == .global || !policy.policies.contains(where: \.isOracle) else {
      throw ValidationError("Oracles know the future of one pool: they need --scope global.")
    }
    if let fit, fit.share == 0, policy.policies.contains(where: \.isFitted) {
      throw ValidationError("static, hybrid and layer-quota need a --fit above 0%.")
    }
  }

  func run() throws {
    Interrupt.listen()
    var options = ReplayOptions()
    options.policies = policy.policies
    options.capacities = memory.capacities
    options.scope = scope
    options.batch = batch
    options.phase = phase
    options.fitShare = fit?.share ?? (policy.policies.contains(where: \.isFitted) ? 0.5 : 0)
    var rows: [ReplayRow] = []
    for path in traces {
      let comparison = try Comparison(arguments.open([path]), name: path, options: options)
      var progress = ProgressLine(path)
      rows += comparison.rows { done in
        progress.draw(done: done, of: comparison.replayCount)
        return !Interrupt.isRequested
      }
      progress.clear()
      if Interrupt.isRequested { throw ExitCode(130) }
    }
    if let csv { try writeCSV(rows, to: csv) }
    try json ? Terminal.printJSON(rows) : Terminal.print(table(rows))
  }

  private func table(_ rows: [ReplayRow]) -> String {
    var head = [
      "memory", "of experts", "policy", "hit rate", "read per token", "gap to MIN", "admission",
    ]
    if traces.count > 1 { head.insert("trace", at: 0) }
    if batch > 1 { head.append("union/memory") }
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

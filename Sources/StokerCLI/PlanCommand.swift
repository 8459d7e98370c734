import ArgumentParser
import Placement
import Replay
import Routing
import Stoker

/// `stoker plan`: what fits where, and what speed to expect.
struct PlanCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan",
    abstract: "Says what fits where, what speed to expect, and what limits it.",
    discussion: """
      Nothing is run: a replay of a routing trace through the runtime's own policy, in the slots that the \
      memory makes, is timed with the figures of 'stoker calibrate'. Without --trace it is what earlier \
      runs of the model routed last, or, where there are none, made up from what real models' routing is \
      like; the uncertainty says so. Record a trace of your own with 'stoker run --record'.

      Examples:
        stoker plan model.gguf --memory 4GiB --trace routing.moetrace
        stoker plan model.gguf --sweep memory --html plan.html
        stoker plan --shape kimi-k2 --memory 64GiB --hardware workstation
        stoker plan model.gguf --memory 2GiB,4GiB --verify
        stoker plan --compare a.json b.json
      """)

  @Argument(help: "A GGUF file (any of its files, if split), or a folder of safetensors files.")
  var model: String?

  @OptionGroup var request: PlanArguments

  @Option(
    help: ArgumentHelp(
      "Plan for a range of this instead: a table, and curves with --html.",
      valueName: "memory|disk|context"))
  var sweep: SweepKind?

  @Option(
    help: ArgumentHelp(
      "Write the curves of --sweep as a page, complete in itself.", valueName: "file.html"))
  var html: String?

  @Flag(
    help: ArgumentHelp(
      "Run what is planned, and print what was predicted beside what was measured.",
      discussion: """
        The machine is sampled between tokens; those just after a sample, which find the caches emptied, \
        are not counted where there are enough others.
        """))
  var verify = false

  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp("Put plans that --output wrote side by side.", valueName: "plan.json"))
  var compare: [String] = []

  @Option(help: ArgumentHelp("Write the plan, for 'run --plan'.", valueName: "plan.json"))
  var output: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    let subjects = [model != nil, request.shape != nil, !compare.isEmpty].filter { $0 }.count
    guard subjects == 1 else {
      throw ValidationError("Give one of a model, --shape and --compare.")
    }
    guard !verify || model != nil else { throw ValidationError("--verify needs a model.") }
    guard !verify || request.batch == 1 else {
      throw ValidationError("--verify runs one sequence; see 'stoker replay --live --batch'.")
    }
    guard [verify, sweep != nil, output != nil].filter({ $0 }).count <= 1 else {
      throw ValidationError("--verify, --sweep and --output exclude each other.")
    }
    guard html == nil || sweep != nil else { throw ValidationError("--html needs --sweep.") }
    guard verify || request.memories.count <= 1 else {
      throw ValidationError("Several sizes of --memory need --verify; see --sweep memory.")
    }
  }

  func run() throws {
    Interrupt.listen()
    if !compare.isEmpty { return try printComparison() }
    if verify {
      let verification = PlanVerification(modelPath: model!, request: request)
      let rows = try verification.rows()
      return try json ? Terminal.printJSON(rows) : Terminal.print(PlanVerification.table(rows))
    }
    if let sweep {
      let rows = try PlanSweep(kind: sweep, modelPath: model, request: request).rows()
      if let html { try writeFile(PlanSweep.page(rows, kind: sweep), to: html) }
      return try json
        ? Terminal.printJSON(rows) : Terminal.print(PlanSweep.table(rows, kind: sweep))
    }
    let planner = try request.planner(modelPath: model)
    let plan = try planner.advisedPlan(try request.plannerRequest(planner))
    if let output { try writeFile(Terminal.json(plan) + "\n", to: output) }
    try json ? Terminal.printJSON(plan) : Terminal.print(PlanReport(plan).text)
  }

  private func printComparison() throws {
    let plans = try compare.map { ($0, try PlanFile.read($0)) }
    if json { return try Terminal.printJSON(plans.map(\.1)) }
    try Terminal.print(PlanReport.comparison(plans))
  }
}

/// A plan in a file.
enum PlanFile {
  /// - Throws: `InputError` naming the file and what is wrong with it.
  static func read(_ path: String) throws -> Plan {
    let plan = try readJSON(
      Plan.self, path: path, of: "plan", version: Plan.currentVersion)
    if let fault = plan.fault {
      throw InputError(path: path, reason: "no possible plan: \(fault)")
    }
    return plan
  }
}

/// What is planned for.
struct PlanArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Plan for a model without a file: \(PlanShape.names.joined(separator: ", ")), or a JSON file.",
      discussion:
        "The file has layers, hidden_size, heads, key_value_heads, head_dimension, experts, "
        + "experts_per_token, expert_feed_forward_size, vocabulary, type and a name.",
      valueName: "name|file"))
  var shape: String?

  @Option(
    help: ArgumentHelp(
      "The element type of a named shape's matrices. Default: Q4_K, gpt-oss MXFP4.",
      valueName: "type"))
  var type: String?

  @Option(
    help: ArgumentHelp(
      "Memory for everything; several, with commas, for --verify.",
      discussion: "Default: what the machine has available, less a reserve.", valueName: "size"))
  var memory: SizeList?

  @Option(
    help: ArgumentHelp(
      "Memory of an accelerator, of the machine that --hardware names; planned for only.",
      valueName: "size"))
  var deviceMemory: ByteSize?

  @Option(
    help: ArgumentHelp(
      "Plan for a machine by its datasheet: \(MachineProfile.presetNames.joined(separator: ", ")).",
      valueName: "preset"))
  var hardware: String?

  @Option(
    help: ArgumentHelp(
      "Plan for the machine of this profile.",
      discussion: "Default: that of 'stoker calibrate', which is run if there is none.",
      valueName: "file.json"))
  var profile: String?

  @Option(
    help: ArgumentHelp(
      "A trace of the model's routing, of any format 'stoker trace' reads.",
      discussion: "Default: the tokens that 'stoker run' decoded last with the model, if it has.",
      valueName: "file"))
  var trace: String?

  @Flag(help: "Do not plan by what earlier runs of the model have routed.")
  var noHistory = false

  @Option(
    help: ArgumentHelp(
      "Positions of the key-value cache.", discussion: "Default: prompt and generated tokens.",
      valueName: "tokens"))
  var context: Int?

  @Option(
    help: ArgumentHelp(
      "Sequences that are decoded together, by a host with a model of its own; planned for only.",
      discussion: "Each has its --context; a trace of fewer is cut into as many.",
      valueName: "count"))
  var batch: Int = 1

  @Option(help: ArgumentHelp("Tokens of the prompt.", valueName: "count"))
  var promptTokens: Int = 128

  @Option(
    help: ArgumentHelp(
      "The prompt that --verify runs, in place of some text of --prompt-tokens.", valueName: "file")
  )
  var promptFile: String?

  @Option(help: ArgumentHelp("Tokens to generate after it.", valueName: "count"))
  var maxTokens: Int = 256

  @Option(help: "Whether experts are read ahead: auto weighs both.")
  var prefetch: PlanPrefetch = .auto

  @OptionGroup var running: RunningArguments
  @OptionGroup var traceInput: TraceInputArguments

  var memories: [Int] { memory?.byteCounts ?? [] }

  func validate() throws {
    guard (1...1 << 24).contains(promptTokens) else {
      throw ValidationError("--prompt-tokens must be 1 or more.")
    }
    guard (1...1 << 24).contains(maxTokens) else {
      throw ValidationError("--max-tokens must be 1 or more.")
    }
    guard (1...ModelOptions.chunkTokenCount).contains(batch) else {
      throw ValidationError("--batch must be 1 to \(ModelOptions.chunkTokenCount).")
    }
    guard batch == 1 || (deviceMemory == nil && prefetch != .on) else {
      throw ValidationError(
        "--batch goes with neither --device-memory nor --prefetch on: those are planned for one sequence."
      )
    }
    guard profile == nil || hardware == nil else {
      throw ValidationError("--profile and --hardware exclude each other.")
    }
    guard deviceMemory == nil || hardware != nil else {
      throw ValidationError("--device-memory needs a --hardware with an accelerator.")
    }
  }

  /// The profile of the machine to plan for.
  func machine(modelPath: String?) throws -> MachineProfile {
    if let profile { return try MachineFile.read(profile) }
    if let hardware {
      guard let preset = MachineProfile.preset(hardware) else {
        throw ValidationError(
          "There is no --hardware '\(hardware)'; there are "
            + "\(MachineProfile.presetNames.joined(separator: ", ")).")
      }
      return preset
    }
    let folder = modelPath.map { folderOf($0) } ?? "."
    let here = try MachineIdentity.here(folder: folder, threads: running.threads)
    var refusal: String?
    if let own = MachineFile.own(refusal: &refusal) {
      guard let difference = here.difference(from: own.machine) else {
        if let staleness = MachineFile.staleness(of: own) { Terminal.note(staleness) }
        return own
      }
      Terminal.note("the machine's profile is not used: \(difference); measuring anew")
    } else {
      let reason = refusal ?? "this machine has not been measured"
      Terminal.note("\(reason); 'stoker calibrate' is run first")
    }
    return try Calibrate.measureAndKeep(folder: folder, threads: running.threads)
  }

  private func planShape() throws -> PlanShape {
    let name = shape ?? ""
    let found: PlanShape
    if let named = PlanShape(named: name, type: type) {
      found = named
    } else if name.hasSuffix(".json") {
      found = try readJSON(PlanShape.self, path: name, of: "shape of a model")
    } else {
      throw ValidationError(
        "There is no --shape '\(name)'; there are \(PlanShape.names.joined(separator: ", ")), or a file "
          + "that ends in .json.")
    }
    if let fault = found.fault {
      throw InputError(path: name, reason: "no possible shape: \(fault)")
    }
    return found
  }

  func planner(
    modelPath: String?, context: Int? = nil, machine: MachineProfile? = nil
  ) throws -> Planner {
    let context = context ?? self.context ?? promptTokens + maxTokens
    func openTrace() throws -> TraceSource? { try trace.map { try traceInput.open([$0]) } }
    guard let modelPath else {
      let machine = try machine ?? self.machine(modelPath: nil)
      let subject = PlanSubject(
        try planShape(), context: context, threads: machine.machine.threads, batch: batch)
      return try Planner(subject, profile: machine, trace: try openTrace())
    }
    let file = try running.open(modelPath)
    var options = running.options(context: min(context, file.contextLength))
    // As a run counts itself, which neither calibrates nor has read anything else before.
    options.processMemory = try file.requirements(options).process
    let machine = try machine ?? self.machine(modelPath: modelPath)
    options.threads = running.threads ?? machine.machine.threads
    let folder = noHistory ? nil : ModelOptions.userHistoryFolder
    let together = try file.work(options).chunkTokens
    guard batch <= together else {
      throw ValidationError(
        "--batch \(batch) is more than the \(together) tokens that pass through this model together; "
          + "give a --context of as many.")
    }
    return try Planner(
      PlanSubject(file, options: options, batch: batch), profile: machine, trace: openTrace(),
      recent: folder.flatMap { file.recentRouting(in: $0, onRefusal: Terminal.note) })
  }

  /// What is asked of `planner`, with so much memory or what was given or what there is.
  func plannerRequest(_ planner: Planner, memory: Int? = nil) throws -> Planner.Request {
    let own =
      planner.profile.isNominal
      ? planner.profile.machine.memoryBytes * 7 / 8 : Machine.defaultMemoryBudget
    let memory = memory ?? memories.first ?? min(own, planner.subject.fullBudget)
    var request = Planner.Request(
      memory: memory, promptTokens: promptTokens, tokens: maxTokens)
    request.deviceMemory = deviceMemory?.byteCount
    request.reads = readKinds(
      direct: running.direct, pageCache: own - memory,
      experts: planner.subject.work.totalExpertByteCount)
    switch prefetch {
    case .auto: break
    case .on: request.prefetch = true
    case .off: request.prefetch = false
    }
    return request
  }
}

/// The ways to read that `direct` leaves.
///
/// Where it is left open the page cache is not counted on: the faster way to the drive is wanted. Where the
/// page cache is asked for, it answers once it has had the time to fill, if it has room beside the budget for
/// all experts; else the drive does, through it.
func readKinds(direct: DirectPolicy, pageCache: Int, experts: Int) -> [ReadKind] {
  switch direct {
  case .auto: [.direct, .buffered]
  case .on: [.direct]
  case .off: [pageCache >= experts ? .cached : .buffered]
  }
}

/// Whether a plan reads ahead.
enum PlanPrefetch: String, ExpressibleByArgument, CaseIterable { case auto, on, off }

/// Sizes as people write them, with commas.
struct SizeList: ExpressibleByArgument {
  let byteCounts: [Int]

  init?(argument: String) {
    let sizes = argument.split(separator: ",").map { ByteSize(argument: String($0)) }
    guard !sizes.isEmpty, sizes.allSatisfy({ $0 != nil }) else { return nil }
    byteCounts = sizes.compactMap { $0?.byteCount }
  }
}

/// The folder that a file lies in.
func folderOf(_ path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

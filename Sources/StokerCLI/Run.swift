import ArgumentParser
import Placement
import Stoker

/// Options of how tokens are chosen.
struct SamplingArguments: ParsableArguments {
  @Option(help: "Flattens (above 1) or sharpens the distribution; 0 takes the likeliest token.")
  var temperature: Float = 0.8

  @Option(help: "Keep the K likeliest tokens; 0 keeps all.")
  var topK: Int = 40

  @Option(help: "Keep the fewest tokens whose probabilities reach P; 1 keeps all.")
  var topP: Float = 0.95

  @Option(help: "Drop tokens below P times the likeliest; 0 drops none.")
  var minP: Float = 0.05

  @Option(help: "Divide the scores of recent tokens by this; 1 changes nothing.")
  var repetitionPenalty: Float = 1

  @Option(help: "The same seed gives the same text.")
  var seed: UInt64 = 0

  var parameters: SamplingParameters {
    SamplingParameters(
      temperature: temperature, topK: topK, topP: topP, minP: minP,
      repetitionPenalty: repetitionPenalty, seed: seed)
  }
}

/// `stoker run`: generates text.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Generates text, within a memory budget.",
    discussion: """
      Text streams to standard output as it is generated; '--stats' adds an account on standard \
      error. With '--json' the text, its token ids and the account are one JSON object at the end.

      Example: stoker run model.gguf --memory 4GiB --prompt "The sea" --max-tokens 64 --stats
      """)

  @Argument(help: "A GGUF file (any of its files, if split), or a folder of safetensors files.")
  var model: String

  @Option(help: "The text to continue.")
  var prompt: String?

  @Option(help: ArgumentHelp("A file with the text to continue.", valueName: "file"))
  var promptFile: String?

  @Option(help: ArgumentHelp("The prompt as token ids.", valueName: "1,2,3"))
  var tokenIds: TokenList?

  @Option(help: "The most tokens to generate.")
  var maxTokens: Int = 128

  @Option(
    help: ArgumentHelp(
      "Decode these tokens instead of sampling any: for benchmarks and recordings.",
      valueName: "4,5,6"))
  var forcedIds: TokenList?

  @Option(
    help: ArgumentHelp(
      "Record the routing of every token here, as a trace for 'stoker replay'.",
      discussion: "A trace of the same model that is there already is gone on with.",
      valueName: "file.moetrace"))
  var record: String?

  @Flag(help: "Record the router's scores of all experts too, a byte each.")
  var recordScores = false

  @Flag(help: "Record what the scores were predicted to be too: three bytes for each expert.")
  var recordCandidates = false

  @Flag(
    help: ArgumentHelp(
      "Neither go by which experts earlier runs used, at the start and in the plan, nor keep it of this one.",
      discussion: "A run with --record keeps to that too, so that its replay begins as it did. "
        + "Histories are in $XDG_CACHE_HOME/stoker or ~/.cache/stoker."))
  var noHistory = false

  @Option(
    help: ArgumentHelp(
      "Run as a plan of 'stoker plan --output' says.",
      discussion: "Without one a run plans for itself, where 'stoker calibrate' has measured this "
        + "machine: it says what speed to expect, and afterwards how far off that was.",
      valueName: "plan.json"))
  var plan: String?

  @Flag(help: "Go on after an end-of-text token.")
  var ignoreEnd = false

  @Flag(help: "Print statistics at the end.")
  var stats = false

  @Flag(help: "Print one JSON object instead of text.")
  var json = false

  @OptionGroup var sampling: SamplingArguments
  @OptionGroup var arguments: ModelArguments

  func validate() throws {
    let given = [prompt != nil, promptFile != nil, tokenIds != nil].filter { $0 }.count
    guard given == 1 else {
      throw ValidationError("Give one of --prompt, --prompt-file and --token-ids.")
    }
    guard record != nil || !(recordScores || recordCandidates) else {
      throw ValidationError("--record-scores and --record-candidates need --record.")
    }
    guard plan == nil || arguments.memory == nil && arguments.context == nil else {
      throw ValidationError("--plan says what --memory and --context are.")
    }
    guard maxTokens >= 0 else { throw ValidationError("--max-tokens must be 0 or more.") }
  }

  func run() throws {
    Interrupt.listen()
    let file = try arguments.open(model)
    let ids = try promptTokens(file)
    let needed = positions(prompt: ids, andThen: forcedIds?.ids.count ?? maxTokens, in: file)
    var options = arguments.options(context: needed)
    // Before histories and plans, which take memory for a moment, so that the slots are the same with them.
    options.processMemory = try file.requirements(options).process
    let folder = noHistory ? nil : ModelOptions.userHistoryFolder
    // Where it cannot be used, the model says so when it is opened.
    let recent = record == nil ? folder.flatMap { file.recentRouting(in: $0) } : nil
    let tokens = forcedIds?.ids.count ?? maxTokens
    var planned: RunPlan?
    if let plan {
      planned = try RunPlan(
        path: plan, file: file, needed: needed, tokens: tokens, running: arguments.running,
        recent: recent)
      options.obey(planned!.plan)
      Reload.listen()
    } else {
      planned = try RunPlan(
        file: file, options: options, promptTokens: ids.count, tokens: tokens, recent: recent,
        explains: stats)
      if let choice = planned?.plan.choice {
        // What it costs to be ready to read ahead is only paid where reading ahead is expected to pay.
        if options.prefetch == .auto, !choice.prefetch { options.prefetch = .off }
        if options.direct == .auto, choice.reads != .direct { options.direct = .off }
      }
    }
    // What planning took is not counted as the process.
    Machine.giveBackFreedMemory()
    planned?.switchesPrefetch = record == nil && arguments.prefetch == .auto
    if let planned, !json { Terminal.note(planned.line) }
    if record == nil { options.historyFolder = folder }
    let loaded = try loadModel(file, options)
    if let record {
      let recorder = try RoutingRecorder(
        path: record, model: loaded, scores: recordScores, predictions: recordCandidates)
      noteTornEnd(of: record, byteCount: recorder.cutByteCount, "were cut off")
      loaded.recorder = recorder
    }
    let request = GenerationRequest(
      prompt: ids, maxTokens: maxTokens, sampling: sampling.parameters, forced: forcedIds?.ids,
      ignoresEnd: ignoreEnd)
    var decoder = StreamingDecoder(file.tokenizer)
    let generation = try loaded.generate(
      request, isCancelled: { Interrupt.isRequested },
      onToken: { token in
        if !json { try Terminal.write(Array(try decoder.append(token).utf8)) }
        planned?.step(loaded)
      })
    if json {
      try Terminal.printJSON(
        try GenerationReport(generation, tokenizer: file.tokenizer, plan: planned?.plan))
    } else {
      try Terminal.print(decoder.flush())
      if stats || generation.statistics.cancelled {
        Terminal.note(StatisticsTable(generation.statistics).text)
      }
    }
    let outcome = planned?.outcome(generation.statistics, folder: folder)
    if let outcome, !json { Terminal.note(outcome) }
    do {
      try loaded.saveHistory()
    } catch {
      // It costs the next run some reads, and this one nothing.
      Terminal.note("\(error)")
    }
    // Last, so that a disk that is full costs the trace and not the text.
    try loaded.recorder?.finish()
  }

  private func promptTokens(_ file: ModelFile) throws -> [Int32] {
    if let tokenIds { return tokenIds.ids }
    if let prompt { return file.tokenizer.encodePrompt(bytes: Array(prompt.utf8)) }
    return file.tokenizer.encodePrompt(bytes: try readFile(promptFile ?? ""))
  }
}

/// Loads a model with a progress line.
func loadModel(_ file: ModelFile, _ options: ModelOptions) throws -> MoEModel {
  var progress = ProgressLine("reading experts")
  defer { progress.clear() }
  return try MoEModel(file, options: options, logger: makeLogger()) { done, total in
    progress.draw(done: done, of: total, detail: formatBytes(done))
  }
}

/// A generation as JSON.
struct GenerationReport: Encodable {
  let text: String
  let tokenIds: [Int32]
  let statistics: StatisticsReport
  /// What was planned and predicted; nil if nothing was.
  let plan: Plan?

  init(_ generation: Generation, tokenizer: Tokenizer, plan: Plan? = nil) throws {
    self.plan = plan
    text = String(decoding: try tokenizer.decode(generation.tokens), as: UTF8.self)
    tokenIds = generation.tokens
    statistics = StatisticsReport(generation.statistics)
  }
}

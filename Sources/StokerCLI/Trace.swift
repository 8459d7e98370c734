import ArgumentParser
import Glibc
import Replay
import Routing
import Stoker

/// `stoker trace`: looks at routing traces and changes them.
struct Trace: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Looks at routing traces, imports and edits them.",
    discussion: """
      A trace says which experts each token was routed to at each layer. Stoker's own format is \
      .moetrace; other formats, known by what is in the file and plain or gzipped, are read by every \
      command that reads traces: Stoker's JSON lines, route_trace v1 CSV, JSON lines of tokens \
      ("experts" or "layers"), expert fingerprints ("router_data"), and ESFT's folders of one file per \
      layer.
      """,
    subcommands: [
      TraceInfo.self, TraceImportCommand.self, TraceExport.self, TraceMerge.self, TraceSlice.self,
      TracePermute.self,
    ])
}

/// What a file of another format may not say.
struct TraceInputArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Experts of a layer, where the file does not say.",
      discussion: "Default: one more than the highest id.", valueName: "count"))
  var experts: Int?

  @Option(
    help: ArgumentHelp(
      "Bytes of an expert, where the file does not say.", discussion: "Default: 1MiB.",
      valueName: "size"))
  var expertBytes: ByteSize?

  func validate() throws {
    guard (1...RoutingGeometry.maximumExpertCount).contains(experts ?? 1) else {
      throw ValidationError("--experts must be 1 to \(RoutingGeometry.maximumExpertCount).")
    }
    guard (1...RoutingGeometry.maximumExpertByteCount).contains(expertBytes?.byteCount ?? 1) else {
      throw ValidationError("--expert-bytes must be 1 byte to 1 TiB.")
    }
  }

  /// Reads a trace; `path` may be a folder of ESFT's files.
  func open(_ paths: [String]) throws -> TraceSource {
    let files = paths.flatMap { TraceImport.filesIfFolder($0) }
    guard !files.isEmpty else {
      throw InputError(path: paths.joined(separator: " "), reason: "the folder has no file")
    }
    var progress = ProgressLine("reading")
    defer { progress.clear() }
    let source = try TraceImport.open(
      files,
      options: TraceImportOptions(
        expertCount: experts, expertByteCount: expertBytes?.byteCount)
    ) { done, total in
      // Nothing has been begun that could be lost.
      if Interrupt.isRequested { Glibc.exit(130) }
      progress.draw(done: done, of: total, detail: formatBytes(done))
    }
    noteTornEnd(of: files[0], byteCount: source.tornByteCount, "are left out")
    return source
  }
}

/// Says that the end of a trace is no whole block, and what becomes of it.
func noteTornEnd(of path: String, byteCount: Int, _ fate: String) {
  guard byteCount > 0 else { return }
  Terminal.note(
    "'\(path)': its last \(byteCount) bytes are no whole block, as after a recording that was cut "
      + "short; they \(fate)")
}

/// `stoker trace import`.
struct TraceImportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Makes a .moetrace file of a trace in another format.",
    discussion: "Example: stoker trace import esft/intent --output intent.moetrace")

  @Argument(help: "The trace: a file, or ESFT's files or their folder.")
  var input: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write.", valueName: "file"))
  var output: String

  @Option(help: "The model's name.")
  var model: String?

  @Option(help: "What was processed, in words.")
  var workload: String?

  @OptionGroup var arguments: TraceInputArguments

  func run() throws {
    let source = try arguments.open(input)
    var header = source.header
    header.model = model ?? header.model
    header.workload = workload ?? header.workload
    let written = try source.write(to: output, header: header)
    guard written.events > 0 else {
      throw InputError(path: input[0], reason: "it has no event; nothing was written")
    }
    noteWritten(written, to: output)
  }
}

/// `stoker trace merge`.
struct TraceMerge: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "merge", abstract: "Joins traces of one model; their sequences are numbered anew.")

  @Argument(help: "Two traces or more.")
  var inputs: [String]

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write.", valueName: "file"))
  var output: String

  @OptionGroup var arguments: TraceInputArguments

  func validate() throws {
    guard inputs.count > 1 else { throw ValidationError("Give two traces or more.") }
  }

  func run() throws {
    let sources = try inputs.map { try arguments.open([$0]) }
    noteWritten(try TraceSource.merge(sources, names: inputs, to: output), to: output)
  }
}

/// `stoker trace slice`.
struct TraceSlice: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "slice", abstract: "Keeps a part of a trace.",
    discussion:
      "Example: stoker trace slice all.moetrace --sequences 0-9 --phase decode -o ten.moetrace")

  @Argument(help: "A trace.")
  var input: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write.", valueName: "file"))
  var output: String

  @Option(help: ArgumentHelp("Keep these sequences.", valueName: "0-9"))
  var sequences: NumberRange?

  @Option(help: ArgumentHelp("Keep these positions of each sequence.", valueName: "0-255"))
  var positions: NumberRange?

  @Option(help: "Keep this phase: decode, prefill or all.")
  var phase: ReplayPhase = .all

  @OptionGroup var arguments: TraceInputArguments

  func run() throws {
    let written = try arguments.open([input]).write(to: output) { sequence, step, phase in
      sequences?.range.contains(sequence) ?? true && positions?.range.contains(step) ?? true
        && (self.phase == .all || self.phase.rawValue == phase.rawValue)
    }
    guard written.events > 0 else {
      throw ValidationError("'\(input)' has nothing in what was asked for; nothing was written.")
    }
    noteWritten(written, to: output)
  }
}

/// `stoker trace permute`.
struct TracePermute: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "permute", abstract: "Puts the decoded tokens of a trace in random order.",
    discussion: """
      The control of a replay: what a policy loses on the permuted trace, it had from the order of \
      time. Each token keeps its experts at all layers; prompts stay as they are.
      """)

  @Argument(help: "A trace.")
  var input: String

  @Option(name: .shortAndLong, help: ArgumentHelp("The file to write.", valueName: "file"))
  var output: String

  @Option(help: "The same seed gives the same order.")
  var seed: UInt64 = 0

  @OptionGroup var arguments: TraceInputArguments

  func run() throws {
    let permuted = try TraceSource(arguments.open([input]).loaded().permuted(seed: seed))
    noteWritten(try permuted.write(to: output), to: output)
  }
}

/// `stoker trace export`.
struct TraceExport: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Prints a trace as JSON lines.",
    discussion: "traces/README.md documents the lines; 'stoker trace import' reads them back.")

  @Argument(help: "A trace.")
  var input: String

  @OptionGroup var arguments: TraceInputArguments

  func run() throws {
    let source = try arguments.open([input])
    let geometry = source.header.geometry
    var lines = TraceLines.header(source.header)
    try source.forEachEvent { event in
      lines += TraceLines.line(event, topK: geometry.topK, experts: geometry.expertCount)
      if lines.count > 1 << 20 {
        try Terminal.write(lines)
        lines.removeAll(keepingCapacity: true)
      }
    }
    try Terminal.write(lines)
  }
}

extension ReplayPhase: ExpressibleByArgument {}

/// Numbers from one to another, both included: 3 or 0-9.
struct NumberRange: ExpressibleByArgument {
  let range: ClosedRange<Int>

  init?(argument: String) {
    let parts = argument.split(separator: "-", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let first = Int(parts[0]), let last = Int(parts.last!),
      first >= 0, first <= last
    else { return nil }
    range = first...last
  }
}

/// Says what was written to `path`.
private func noteWritten(_ written: (events: Int, accesses: Int), to path: String) {
  Terminal.note("\(path): \(written.events) events, \(written.accesses) routed experts")
}

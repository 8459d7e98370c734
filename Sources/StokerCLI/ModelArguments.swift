public import ArgumentParser
public import Residency
public import Stoker

/// A number of bytes as people write it: 4GiB, 1.5G, 512MiB, 300000.
struct ByteSize: ExpressibleByArgument {
  let byteCount: Int

  init?(argument: String) {
    let units: [(String, Int)] = [("k", 10), ("m", 20), ("g", 30), ("t", 40)]
    var text = argument.lowercased()
    var shift = 0
    for suffix in ["ib", "b"] where text.hasSuffix(suffix) {
      text.removeLast(suffix.count)
      break
    }
    if let unit = units.first(where: { text.hasSuffix($0.0) }) {
      text.removeLast()
      shift = unit.1
    }
    guard let number = Double(text), number >= 0, number.isFinite else { return nil }
    let bytes = number * Double(1 << shift)
    guard bytes < Double(1 << 60) else { return nil }
    byteCount = Int(bytes)
  }
}

extension PolicyName: ExpressibleByArgument {
  public init?(argument: String) { self.init(name: argument) }
  public var defaultValueDescription: String { name }
  public static var allValueStrings: [String] { allCases.filter(\.canRun).map(\.name) }
}

extension PrefetchMode: ExpressibleByArgument {
  public init?(argument: String) {
    switch argument {
    case "auto": self = .auto
    case "off": self = .off
    default:
      guard let depth = Int(argument), depth > 0 else { return nil }
      self = .depth(depth)
    }
  }

  public var defaultValueDescription: String { "\(self)" }
}

extension PredictorKind: ExpressibleByArgument {}
extension ReadEngineKind: ExpressibleByArgument {}
extension DirectPolicy: ExpressibleByArgument {}
extension KeyValueType: ExpressibleByArgument {}

/// How a model is run, its memory apart.
struct RunningArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Threads that compute.",
      discussion: "Default: the processors this process may use, by affinity and quota.",
      valueName: "count"))
  var threads: Int?

  @Option(help: "How experts are read: auto takes io_uring where the kernel allows it.")
  var io: ReadEngineKind = .auto

  @Option(help: "Whether reads pass by the page cache (O_DIRECT).")
  var direct: DirectPolicy = .auto

  @Option(
    help: ArgumentHelp(
      "Another folder, on another drive, with files of the model under the same names.",
      discussion: """
        May be given several times. Files of a split model need not lie together then; experts of files \
        of which there are copies are read from all drives in turn.
        """, valueName: "folder"))
  var modelDir: [String] = []

  @Option(help: "How keys and values are stored. Default: f32 for F32 models, else f16.")
  var kvType: KeyValueType?

  @Flag(help: "Compare every expert that is read with its checksums, which packed files have.")
  var verifyReads = false

  /// Opens a model.
  func open(_ path: String) throws -> ModelFile { try ModelFile(path: path, folders: modelDir) }

  /// The options for a model.
  func options(context: Int?) -> ModelOptions {
    ModelOptions(
      context: context, threads: threads, keyValueType: kvType, io: io, direct: direct,
      verifiesReads: verifyReads)
  }
}

/// Options of every command that runs a model.
struct ModelArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Memory for everything: weights, key-value cache, experts, the process itself.",
      discussion: "For example 4GiB. Default: what the machine (and its control group) has "
        + "available, less a reserve.", valueName: "size"))
  var memory: ByteSize?

  @Option(
    help: ArgumentHelp(
      "Positions of the key-value cache.", discussion: "Default: what the command needs.",
      valueName: "tokens"))
  var context: Int?

  @Option(
    help: ArgumentHelp(
      "Which expert goes when room is needed.", valueName: "policy"))
  var policy: PolicyName = .nextUse

  @Option(
    help: ArgumentHelp(
      "Read experts before the router asks for them: auto, off, or at most so many of a layer.",
      discussion: "auto reads what pays, and nothing while nothing does.",
      valueName: "auto|off|count"))
  var prefetch: PrefetchMode = .auto

  @Option(
    help: ArgumentHelp(
      "How the routing is predicted.",
      discussion: "Default: fitted, if 'stoker fit-predictor' has been run; else corrected."))
  var predictor: PredictorKind?

  @OptionGroup var running: RunningArguments

  /// Opens a model.
  func open(_ path: String) throws -> ModelFile { try running.open(path) }

  /// The options for a model; `context` is used where none was given.
  func options(context needed: Int? = nil) -> ModelOptions {
    var options = running.options(context: context ?? needed)
    options.memory = memory?.byteCount
    options.policy = policy
    options.prefetch = prefetch
    options.predictor = predictor
    return options
  }
}

/// The positions that a prompt and `count` tokens after it need, as far as the model has them; what
/// is more is refused when it comes to running it.
func positions(prompt: [Int32], andThen count: Int, in file: ModelFile) -> Int {
  let (sum, overflow) = prompt.count.addingReportingOverflow(count)
  return min(overflow ? .max : max(1, sum), file.contextLength)
}

/// Token ids as people write them: 1,2,3.
struct TokenList: ExpressibleByArgument {
  let ids: [Int32]

  init?(argument: String) {
    var ids: [Int32] = []
    for part in argument.split(whereSeparator: { $0 == "," || $0.isWhitespace }) {
      guard let id = Int32(part) else { return nil }
      ids.append(id)
    }
    self.ids = ids
  }

  var defaultValueDescription: String { ids.map(String.init).joined(separator: ",") }
}

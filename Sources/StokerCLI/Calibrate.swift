import ArgumentParser
import FoundationEssentials
import Placement
import Stoker

/// `stoker calibrate`: what this machine does.
struct Calibrate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures this machine, in about a minute: what 'plan' and 'run' predict from.",
    discussion: """
      Reads from the drive by size, number at a time and way (past the page cache, through it, out of \
      it), memory by threads, products with weights of every type by number of tokens, reading and \
      products at the same time, and a small model for what layers take besides. All of it three times, \
      so that every figure has a spread: half of what lies between its largest and smallest round.

      A file of 2 GiB is written to the folder for it and is gone afterwards. Give the folder that \
      holds your models, as speeds are the drive's. The profile goes to $XDG_CACHE_HOME/stoker or \
      ~/.cache/stoker, as machine.json, where other commands look for it.
      """)

  @Option(
    help: ArgumentHelp(
      "A folder on the drive that holds the model.", discussion: "Default: the current one.",
      valueName: "folder"))
  var directory = "."

  @Option(
    help: ArgumentHelp(
      "Where the profile goes.", discussion: "Default: where other commands look for it.",
      valueName: "file.json"))
  var output: String?

  @Option(
    help: ArgumentHelp(
      "Threads that compute.", discussion: "Default: those this process may use.",
      valueName: "count"))
  var threads: Int?

  @Flag(help: "One short round with a small file: figures that mean little, in seconds.")
  var trial = false

  @Flag(help: "Print the profile as JSON instead of tables.")
  var json = false

  func run() throws {
    Interrupt.listen()
    let profile = try Self.measureAndKeep(
      folder: directory, threads: threads, effort: trial ? .trial : .whole, output: output)
    if json { return try Terminal.printJSON(profile) }
    try Terminal.print(MachineTable(profile).text)
  }

  /// Measures with a progress line, and writes the profile to `output` or to where commands look for it.
  static func measureAndKeep(
    folder: String, threads: Int?, effort: Calibration.Effort = .whole, output: String? = nil
  ) throws -> MachineProfile {
    let calibration = try Calibration(folder: folder, threads: threads, effort: effort)
    var progress = ProgressLine("measuring this machine")
    defer { progress.clear() }
    let profile: MachineProfile
    do {
      profile = try calibration.run(
        progress: { progress.draw(done: Int($0 * 1000), of: 1000, detail: $1) },
        isCancelled: { Interrupt.isRequested })
    } catch StokerError.cancelled {
      throw ExitCode(130)
    }
    guard let path = output ?? MachineFile.ownPath else { return profile }
    if output == nil { try makeFolder(of: path) }
    try writeFile(Terminal.json(profile) + "\n", to: path)
    Terminal.note("the machine's profile is in \(path)")
    return profile
  }

  private static func makeFolder(of path: String) throws {
    let folder = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
      .joined(separator: "/")
    do {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw OutputError(name: "'\(folder)'", reason: "the folder cannot be made")
    }
  }
}

/// A machine's profile, for people.
struct MachineTable {
  private let profile: MachineProfile

  init(_ profile: MachineProfile) { self.profile = profile }

  var text: String {
    var parts = [profile.name + (profile.isNominal ? " (nominal)" : "")]
    if let date = profile.date { parts[0] += ", measured \(date)" }
    for kind in profile.readKinds { parts.append(disk(kind)) }
    parts += [
      products,
      "\nmemory             "
        + profile.memory.map {
          "\(rate($0.bytesPerSecond)) with \($0.threads) \($0.threads == 1 ? "thread" : "threads")"
        }.joined(separator: ", "),
      "reading meanwhile  " + meanwhile(profile.contention) + "; in prompts "
        + meanwhile(profile.promptContention),
      "a layer besides    \(microseconds(profile.layerSeconds)); a token \(microseconds(profile.tokenSeconds)); "
        + "choosing one of 100,000 tokens \(microseconds(profile.samplingSeconds * 1e5))",
      "reading ahead      handing in reads keeps the processor \(microseconds(profile.handInSeconds)) and "
        + "\(microseconds(profile.readHandInSeconds)) for each, a prediction "
        + microseconds(profile.predictionSeconds),
      "looking back       \(rate(profile.contextBytesPerSecond)) of keys and values; in prompts "
        + "\(rate(profile.promptContextBytesPerSecond)), counted for each token",
      "in a model         products keep \(share(profile.decodeEfficiency)) of their rate, in prompts "
        + share(profile.promptEfficiency),
      "a prompt's token   \(formatFixed(profile.promptValueSeconds.value * 1e9, digits: 2)) ns for "
        + "each value and layer",
    ]
    parts += profile.notes.map { "note               \($0)" }
    return parts.joined(separator: "\n")
  }

  private func meanwhile(_ contention: Contention) -> String {
    "reads keep \(share(contention.readShare)) of their rate, products "
      + share(contention.computeShare)
  }

  private func disk(_ kind: ReadKind) -> String {
    let rows = profile.disk.filter { $0.kind == kind }
    let depths = Set(rows.map(\.depth)).sorted()
    let blocks = Set(rows.map(\.blockBytes)).sorted()
    let title: String
    switch kind {
    case .direct: title = "drive, past the page cache"
    case .buffered: title = "drive, through the page cache"
    case .cached: title = "page cache"
    }
    return
      "\n\(title): bytes/s with so many reads always under way, and the time of so many at once\n"
      + formatTable(
        ["block"] + depths.flatMap { ["\($0)", "at once"] },
        blocks.map { block in
          [formatBytes(block)]
            + depths.flatMap { depth -> [String] in
              guard let cell = rows.first(where: { $0.blockBytes == block && $0.depth == depth })
              else { return ["-", "-"] }
              return [rate(cell.bytesPerSecond), microseconds(cell.burstSeconds)]
            }
        })
  }

  private var products: String {
    let tokens = Set(profile.products.map(\.tokens)).sorted()
    let types = Set(profile.products.map(\.type)).sorted()
    // The machine's own first.
    let own = profile.machine.kernels
    let others = Set(profile.products.map(\.kernels)).subtracting([own]).sorted()
    return
      "\nproducts: bytes of weights/s by number of tokens, weights out of memory (c: out of cache)\n"
      + formatTable(
        ["type"] + tokens.map(String.init),
        types.flatMap { type in
          ([own] + others).flatMap { set in
            [false, true].compactMap { isCached -> [String]? in
              let row = profile.products.filter {
                $0.type == type && $0.kernels == set && $0.isCached == isCached
              }
              guard !row.isEmpty else { return nil }
              return [type + (isCached ? " c" : "") + (set == own ? "" : ", \(set)")]
                + tokens.map { count in
                  row.first { $0.tokens == count }.map { rate($0.bytesPerSecond) } ?? "-"
                }
            }
          }
        })
  }

  private func rate(_ figure: Figure) -> String {
    formatBytes(Int(figure.value)) + spread(figure)
  }

  private func microseconds(_ figure: Figure) -> String {
    "\(formatFixed(figure.value * 1e6, digits: figure.value < 1e-5 ? 1 : 0)) us" + spread(figure)
  }

  private func share(_ figure: Figure) -> String {
    "\(formatFixed(100 * figure.value, digits: 0)) %" + spread(figure)
  }

  /// The spread in percent, where there is one.
  private func spread(_ figure: Figure) -> String {
    figure.spread > 0 ? " ±\(formatFixed(100 * figure.spread, digits: 0))" : ""
  }
}

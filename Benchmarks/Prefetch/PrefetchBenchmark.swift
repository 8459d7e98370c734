import ArgumentParser
import ExpertRuntime
import Foundation
import Logging
import Models
import Placement
import Stoker

/// Decodes the same tokens with prefetch and without, a few at a time in turn, in one process.
@main
struct PrefetchBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Decode speed with prefetch against without, as a table.",
    discussion: """
      Two models of the same file and budget decode the same 16 tokens one after the other, in alternating \
      order. The ratio is the median over these blocks; 'idle' is the disk's idle time without \
      prefetch; 'bound' is the share reached of 1 / max(bytes / bandwidth, time without waiting).
      """)

  @Argument(help: "GGUF files.")
  var models: [String]

  @Option(
    help: """
      A copy of the model, for the side with prefetch to read: buffered reads of both sides then do not \
      find each other's bytes in a page cache that is kept small.
      """)
  var twin: String?

  @Option(help: "Shares of the experts that fit in memory, in percent.")
  var shares = "15,25,50,75"

  @Option(help: "Tokens to decode in each cell.")
  var tokens = 256

  @Option(help: "A text to take the tokens from; without one they are arbitrary.")
  var text: String?

  @Option(help: "on, off or both: whether reads pass by the page cache.")
  var direct = "both"

  @Option(help: "Experts of a layer to read ahead at the most, whether it pays or not; else auto.")
  var depth: Int?

  @Option(
    help: """
      gate-reuse, corrected or fitted; or control: what the side without prefetch has just been routed to, \
      which is what perfect predictions would win.
      """)
  var predictor: String?

  @Option(help: "With --predictor control: the share of it that is predicted, 0 to 1.")
  var recall = 1.0

  @Option(
    help: """
      What 'stoker calibrate' has written: the side with prefetch does what 'stoker run' plans on such a \
      machine. Where it plans none, both sides are the same and are not run.
      """)
  var profile: String?

  @Option(
    help: """
      Where 'stoker run' keeps histories: what it has decoded last with a model is what is planned by, as by \
      the next 'stoker run'. Without it plans suppose what routing is like.
      """)
  var history: String?

  func validate() throws {
    guard (0...1).contains(recall) else { throw ValidationError("--recall must be 0 to 1.") }
    guard recall == 1 || isControlled else {
      throw ValidationError("--recall needs --predictor control.")
    }
  }

  func run() throws {
    print(
      "| model | experts in memory | reads | off tokens/s | auto tokens/s | ratio | idle | bound | hits | used | in time | predictor |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for path in models {
      let file = try ModelFile(path: path)
      for share in shares.split(separator: ",").compactMap({ Double($0) }) {
        for policy in direct == "both"
          ? [DirectPolicy.on, .off] : [DirectPolicy(rawValue: direct)!]
        {
          try measure(file, share: share / 100, direct: policy)
        }
      }
    }
  }

  /// Tokens before anything is timed: whole blocks.
  private static let untimedTokens = 3 * Cell.blockTokens

  private var isControlled: Bool { predictor == "control" }

  private func measure(_ file: ModelFile, share: Double, direct: DirectPolicy) throws {
    var options = ModelOptions(context: tokens + 64, direct: direct)
    options.predictor = isControlled ? .gateReuse : predictor.flatMap(PredictorKind.init)
    let needs = try file.requirements(options)
    options.processMemory = needs.process
    options.memory = needs.minimumBudget - needs.minimumSlots + Int(share * Double(needs.allSlots))
    options.memory = max(options.memory!, needs.minimumBudget)
    let logger = Logger(label: "benchmark")
    let name = file.path.split(separator: "/").last.map(String.init) ?? file.path
    if let profile, try !plansPrefetch(file, options, profile: profile) {
      let reads = direct == .on ? "direct" : "buffered"
      print(
        "| \(name) | \(Int(share * 100)) % | \(reads) | - | - | 1 (none planned) | - | - | - | - | - | - |"
      )
      return
    }
    options.prefetch = .off
    let off = try Cell(file, options, logger)
    options.prefetch = depth.map(PrefetchMode.depth) ?? .auto
    let auto = try Cell(twin.map { try ModelFile(path: $0) } ?? file, options, logger)
    if isControlled { auto.predict(by: off, recall: recall) }
    let ids = try tokenIDs(file)
    for (index, first) in stride(from: 0, to: ids.count, by: Cell.blockTokens).enumerated() {
      for cell in isControlled || index % 2 == 0 ? [off, auto] : [auto, off] {
        for position in first..<min(first + Cell.blockTokens, ids.count) {
          try cell.decode(ids[position], at: position, isTimed: position >= Self.untimedTokens)
        }
      }
    }
    let ratios = zip(off.blocks, auto.blocks).map { $0 / $1 }.sorted()
    let ledger = auto.experts.totalPrefetch
    func number(_ value: Double?, _ digits: Int = 2) -> String {
      guard let value else { return "-" }
      let scale = [1.0, 10, 100, 1000][digits]
      return "\((value * scale).rounded() / scale)"
    }
    let busy = Double(off.experts.diskBusyNanoseconds) / 1e9
    let columns = [
      name, "\(Int(share * 100)) %", direct == .on ? "direct" : "buffered",
      number(off.tokensPerSecond), number(auto.tokensPerSecond),
      number(ratios[ratios.count / 2], 3), number(1 - busy / off.seconds),
      number(auto.shareOfBound), number(auto.experts.decode.hitRate), number(ledger.accuracy),
      number(ledger.timeliness),
      number(Double(auto.experts.predictionNanoseconds) / 1e9 / auto.seconds, 3),
    ]
    print("| " + columns.joined(separator: " | ") + " |")
  }

  /// Whether a run with `options` would read ahead, by its own plan.
  private func plansPrefetch(
    _ file: ModelFile, _ options: ModelOptions, profile: String
  ) throws -> Bool {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let machine = try decoder.decode(
      MachineProfile.self, from: Data(contentsOf: URL(fileURLWithPath: profile)))
    let planner = try Planner(
      PlanSubject(file, options: options), profile: machine, trace: nil,
      recent: history.flatMap { file.recentRouting(in: $0) })
    var request = Planner.Request(memory: options.memory!, promptTokens: 1, tokens: tokens)
    request.reads = [options.direct == .off ? .cached : .direct]
    return try planner.plan(request).choice.prefetch
  }

  private func tokenIDs(_ file: ModelFile) throws -> [Int32] {
    let count = tokens + Self.untimedTokens
    guard let text else { return (0..<count).map { Int32($0 * 7919 % 4096) } }
    var ids = file.tokenizer.encodePrompt(
      bytes: Array(try Data(contentsOf: URL(fileURLWithPath: text))))
    if ids.count > count { ids.removeSubrange(count...) }
    return ids
  }
}

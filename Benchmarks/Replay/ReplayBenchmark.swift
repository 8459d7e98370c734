import ArgumentParser
import Replay
import Residency
import Routing
import Stoker
import TestSupport

/// How fast policies replay, and how far from MIN they stay on the traces of real models.
@main
struct ReplayBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures replays: accesses per second and the gap to MIN.",
    discussion: "The gaps need the folder of traces, whose README names its files.")

  @Option(help: "Routed experts of the trace that speed is measured on.")
  var accesses = 10_000_000

  @Option(help: "Replays of each policy; the median counts.")
  var runs = 5

  @Option(help: "The folder of traces of real models.")
  var traces = "../shared/traces"

  func run() throws {
    try printSpeed()
    print("\n")
    try printGaps()
    print("\n")
    try printForesight()
    print("\n")
    try printHistories()
    print("\n")
    try PriorTable.show(Self.files.map { (name: $0.0, path: "\(traces)/\($0.1)") })
  }

  /// What it would bring to know the routing of the layers to come when room is made.
  private func printForesight() throws {
    print(
      "Gap to MIN of `next-use` if it knew the routing of the next layers exactly, mean of 25 %,")
    print("37.5 % and 50 % of the experts.\n")
    print(
      "| trace | nothing | 1 layer | 2 layers | 4 layers | a whole token |\n|---|---|---|---|---|---|"
    )
    for (name, file) in Self.files
    where ["OLMoE", "gpt-oss misc", "DeepSeek intent"].contains(name) {
      let trace = try TraceImport.read(TraceImport.filesIfFolder("\(traces)/\(file)"))
      let replay = Replay(trace)
      let geometry = replay.geometry
      let future = try replay.future()
      var events: [[Int32]] = []
      try replay.forEachEvent { _, union in events.append(union.event.experts) }
      var gaps = [0, 1, 2, 4, geometry.layerCount].map { (distance: $0, gap: 0.0) }
      for share in Self.shares {
        let capacity = Int(Double(geometry.totalByteCount) * share)
        let least = try replay.run(
          capacity: capacity, policy: MINPolicy(future: future, geometry: geometry, mayBypass: true)
        ).decode.misses
        for index in gaps.indices {
          let policy = Foresight(
            geometry: geometry, events: events, distance: gaps[index].distance)
          let misses = try replay.run(capacity: capacity, policy: policy).decode.misses
          gaps[index].gap += Double(misses - least) / Double(misses) / Double(Self.shares.count)
        }
      }
      print(
        "| \(name) | \(gaps.map { formatFixed($0.gap, digits: 4) }.joined(separator: " | ")) |")
    }
  }

  /// What the slots are filled with before the first token of a sequence.
  private enum Filling: CaseIterable {
    case nothing
    /// The experts that other sequences have used most.
    case mostUsed
    /// The experts that were resident after the last of these.
    case residents
  }

  /// The hit rates of the first tokens of sequences that each begin with free slots, and with slots filled
  /// by the history of other sequences.
  private func printHistories() throws {
    let heads = [16, 64, 256]
    print(
      "Hit rates of `next-use` over the first tokens of each sequence in the second half of a trace,"
    )
    print(
      "beginning with nothing resident -> with what the first half used most -> with what was resident"
    )
    print("at its end.\n")
    print(
      "| trace | of the experts | " + heads.map { "\($0) tokens" }.joined(separator: " | ") + " |")
    print("|---|---|" + String(repeating: "---|", count: heads.count))
    for (name, file) in Self.files where ["gpt-oss mmlu", "DeepSeek intent"].contains(name) {
      let trace = try TraceImport.read(TraceImport.filesIfFolder("\(traces)/\(file)"))
      for share in [0.15, 0.25, 0.5, 0.75] {
        let cells = heads.map { tokens in
          Filling.allCases.map { filling in
            let rate = Self.hitRate(trace, share: share, tokens: tokens, filling: filling)
            return formatFixed(100 * rate, digits: 1)
          }.joined(separator: " -> ")
        }
        print(
          "| \(name) | \(formatFixed(100 * share, digits: 0)) % | \(cells.joined(separator: " | ")) |"
        )
      }
    }
  }

  private static func hitRate(
    _ trace: RoutingTrace, share: Double, tokens: Int, filling: Filling
  ) -> Double {
    let geometry = trace.header.geometry
    let last = trace.sequence(of: trace.eventCount - 1)
    let capacity = Int(Double(geometry.totalByteCount) * share)
    var builder = EventBuilder(geometry: geometry, hasWeights: trace.header.hasWeights)
    var history = RoutingHistory(
      model: "", routers: "", layerCount: geometry.layerCount, expertCount: geometry.expertCount)
    func empty() -> ResidentSet {
      ResidentSet(
        geometry: geometry, capacity: capacity,
        policy: PolicyName.nextUse.make(geometry: geometry, capacity: capacity))
    }
    var set = empty()
    var before = empty()
    var (sequence, events, hits, accesses) = (Int32(-1), 0, 0, 0)
    var missed: [Int32] = []
    for index in 0..<trace.eventCount {
      builder.form([Int32(index)], of: trace)
      guard trace.sequence(of: index) > last / 2 else {
        history.note(builder.event)
        _ = before.serve(builder.event, missed: &missed)
        continue
      }
      if trace.sequence(of: index) != sequence {
        (sequence, events) = (trace.sequence(of: index), 0)
        set = empty()
        if filling != .nothing {
          set.begin(with: history)
          for expert in history.byLikelihood.reversed()
          where filling == .mostUsed || before.table.contains(expert) {
            guard set.admit(expert, pass: builder.event.pass) else { break }
          }
        }
      }
      events += 1
      guard events <= tokens * geometry.layerCount else { continue }
      let served = set.serve(builder.event, missed: &missed)
      hits += served.hits
      accesses += served.hits + served.misses
    }
    return Double(hits) / Double(max(1, accesses))
  }

  /// OLMoE-1B-7B's shape with half of each token's experts those of the token before.
  private func printSpeed() throws {
    let trace = randomTrace(
      layers: 16, experts: 64, topK: 8, tokens: accesses / 128, seed: 1)
    print(
      "Speed, one thread: \(trace.accessCount) accesses, 16 layers of 64 experts, top-8, a quarter")
    print("of the experts resident; MIN with the making of its future.\n")
    print("| policy | million accesses/s | seconds | hit rate |\n|---|---|---|---|")
    for policy in PolicyName.allCases where !policy.isFitted {
      var seconds: [Double] = []
      var rate = 0.0
      for _ in 0..<max(1, runs) {
        let replay = Replay(trace)
        let start = ContinuousClock.now
        let capacity = replay.geometry.totalByteCount / 4
        let counts = try replay.run(
          capacity: capacity,
          policy: policy.make(
            geometry: replay.geometry, capacity: capacity,
            future: policy.isOracle ? try replay.future() : nil, uses: [])
        ).decode
        seconds.append((ContinuousClock.now - start) / .seconds(1))
        rate = counts.hitRate
      }
      let median = seconds.sorted()[seconds.count / 2]
      print(
        "| \(policy.name) | \(formatFixed(Double(trace.accessCount) / median / 1e6, digits: 1)) "
          + "| \(formatFixed(median, digits: 2)) | \(formatFixed(100 * rate, digits: 1)) % |")
    }
  }

  private static let files = [
    ("OLMoE", "waste/trace_olmoe_299.jsonl"),
    ("gpt-oss misc", "gpt-oss/gpt-oss-20b-misc.jsonl.gz"),
    ("gpt-oss mmlu", "gpt-oss/gpt-oss-20b-mmlu-20seq.jsonl.gz"),
    ("DeepSeek intent", "esft/intent"), ("DeepSeek translation", "esft/translation"),
    ("Qwen3", "bigmoe/qwen.route.csv"), ("Gemma", "bigmoe/gemma.route.csv"),
  ]
  private static let shares = [0.25, 0.375, 0.5]

  private func printGaps() throws {
    var options = ReplayOptions()
    options.policies = PolicyName.allCases.filter { !$0.isFitted && $0 != .min }
    options.capacities = Self.shares.map { .share($0) }
    print(
      "Gap to MIN, (m - m_MIN) / m over decode misses, mean of 25 %, 37.5 % and 50 % of the experts;"
    )
    print("the last column is the mean of OLMoE, gpt-oss and DeepSeek, each model counting once.\n")
    var gaps: [PolicyName: [Double]] = [:]
    for (_, file) in Self.files {
      let trace = try TraceImport.open(TraceImport.filesIfFolder("\(traces)/\(file)"))
      let rows = try Comparison(trace, name: file, options: options).rows()
      for policy in options.policies {
        let own = rows.filter { $0.policy == policy.name }.compactMap(\.gapToMIN)
        gaps[policy, default: []].append(own.reduce(0, +) / Double(own.count))
      }
    }
    print("| policy | \(Self.files.map(\.0).joined(separator: " | ")) | mean |")
    print("|---|" + String(repeating: "---|", count: Self.files.count + 1))
    for policy in options.policies {
      let own = gaps[policy]!
      let mean = (own[0] + (own[1] + own[2]) / 2 + (own[3] + own[4]) / 2) / 3
      print(
        "| \(policy.name) | "
          + (own + [mean]).map { formatFixed($0, digits: 3) }.joined(separator: " | ") + " |")
    }
  }
}

import ArgumentParser
import Glibc
import Replay
import Routing
import Stoker

/// `stoker trace info`: what a trace shows.
struct TraceInfo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info", abstract: "Says what a trace holds and how its model routes.",
    discussion: """
      Reuse is the share of a token's experts that the token before it used too. Foretold is the share \
      that how often experts went together, learned from the first half of the trace, foretells from \
      the token's experts at the layer before. The LRU curve is the decode hit rate by the share of the \
      experts that memory holds, in one pool over all layers, from one pass over the trace.
      """)

  @Argument(help: "A trace: a file, or ESFT's files or their folder.")
  var input: [String]

  @Flag(help: "Print JSON.")
  var json = false

  @Flag(help: "List every layer.")
  var layers = false

  @OptionGroup var arguments: TraceInputArguments

  func run() throws {
    let trace = try arguments.open(input)
    var progress = ProgressLine("analysing")
    let statistics = try TraceStatistics(trace) { progress.draw(done: Int(667 * $0), of: 1000) }
    let curve = try LRUCurve(trace) { progress.draw(done: Int(667 + 333 * $0), of: 1000) }
    progress.clear()
    if json { return try Terminal.printJSON(TraceReport(trace.header, statistics, curve)) }
    let geometry = trace.header.geometry
    let sizes = Set(geometry.expertByteCounts).sorted().map { formatBytes($0) }
    var rows: [(String, String)] = [
      ("model", trace.header.model),
      (
        "geometry",
        "\(geometry.layerCount) layers of \(geometry.expertCount) experts, top-\(geometry.topK)"
      ),
      (
        "experts",
        "\(formatBytes(geometry.totalByteCount)) (\(sizes.joined(separator: ", ")) each); one token "
          + "uses \(formatBytes(geometry.tokenByteCount))"
      ),
      (
        "tokens",
        "\(statistics.prefillTokens) prefill, \(statistics.decodeTokens) decode, in "
          + "\(statistics.sequences) \(statistics.sequences == 1 ? "sequence" : "sequences")"
      ),
      ("routed experts", "\(statistics.routedExperts)"),
      ("weights", trace.header.hasWeights ? "yes" : "no"),
      ("router scores", trace.header.hasScores ? "yes" : "no"),
      (
        "predictions",
        trace.header.predictionDistances.isEmpty
          ? "no"
          : "at distance "
            + trace.header.predictionDistances.map(String.init).joined(separator: ", ")
      ),
      ("read ahead", Self.account(statistics.prefetch)),
      ("hottest fifth", "\(percent(statistics.hottestFifthShare)) of the routed experts"),
      (
        "entropy",
        "\(formatFixed(statistics.entropyBits, digits: 2)) bits of "
          + formatFixed(log2(Double(geometry.expertCount)), digits: 2)
      ),
      (
        "reuse",
        "\(percent(statistics.reuse)) from the token before, by chance "
          + percent(statistics.chanceOfReuse)
      ),
      ("foretold", statistics.predictability.map { "\(percent($0)) from the layer before" } ?? "-"),
      (
        "working set",
        statistics.workingSet.map { "\($0.tokens): \(percent($0.shareOfExperts))" }
          .joined(separator: ", ")
      ),
    ]
    rows.append(
      (
        "LRU curve",
        curve.points.filter { LRUCurve.shown.contains($0.shareOfExperts) }
          .map { "\(percent($0.shareOfExperts)): \(percent($0.hitRate))" }.joined(separator: ", ")
      ))
    if !trace.header.workload.isEmpty { rows.append(("workload", trace.header.workload)) }
    if !trace.header.provenance.isEmpty { rows.append(("provenance", trace.header.provenance)) }
    try Terminal.print(rows.map { $0.0.padding(to: 18) + $0.1 }.joined(separator: "\n"))
    if layers { try Terminal.print(layerTable(statistics)) }
  }

  private static func account(_ ledger: PrefetchLedger) -> String {
    func share(_ value: Double?) -> String { value.map { percent($0) } ?? "-" }
    guard !ledger.isEmpty else { return "nothing" }
    return "\(formatBytes(ledger.issued.byteCount)), \(share(ledger.accuracy)) needed, "
      + "\(share(ledger.timeliness)) of that in time"
  }

  private func layerTable(_ statistics: TraceStatistics) -> String {
    let head = ["layer", "tokens", "used", "hottest fifth", "entropy", "reuse", "foretold"]
    let rows = statistics.layers.enumerated().map { index, layer in
      [
        "\(index)", "\(layer.tokens)", "\(layer.usedExperts)", percent(layer.hottestFifthShare),
        formatFixed(layer.entropyBits, digits: 2), percent(layer.reuse),
        layer.predictability.map { percent($0) } ?? "-",
      ]
    }
    return "\n" + formatTable(head, rows)
  }
}

/// The hit rate of LRU by memory.
private struct LRUCurve {
  struct Point: Encodable {
    let shareOfExperts: Double
    let capacityBytes: Int
    let hitRate: Double
  }

  static let shown = [0.0625, 0.125, 0.25, 0.5, 0.75]
  let points: [Point]

  init(_ trace: TraceSource, progress: ReplayProgress) throws {
    let total = Double(trace.header.geometry.totalByteCount)
    let shares = (1...64).map { Double($0) / 64 }
    let capacities = shares.map { Int((total * $0).rounded()) }
    let rates = try MissRatioCurve(Replay(trace), progress: progress).hitRates(at: capacities)
    points = shares.indices.map {
      Point(shareOfExperts: shares[$0], capacityBytes: capacities[$0], hitRate: rates[$0])
    }
  }
}

/// A trace's account as JSON.
private struct TraceReport: Encodable {
  let model: String
  let layers: Int
  let experts: Int
  let expertsPerToken: Int
  let expertBytes: [Int]
  let hasWeights: Bool
  let hasScores: Bool
  let predictionDistances: [Int]
  let workload: String
  let provenance: String
  let statistics: TraceStatistics
  let lruCurve: [LRUCurve.Point]

  init(_ header: TraceHeader, _ statistics: TraceStatistics, _ curve: LRUCurve) {
    lruCurve = curve.points
    model = header.model
    layers = header.geometry.layerCount
    experts = header.geometry.expertCount
    expertsPerToken = header.geometry.topK
    expertBytes = header.geometry.expertByteCounts
    hasWeights = header.hasWeights
    hasScores = header.hasScores
    predictionDistances = header.predictionDistances
    workload = header.workload
    provenance = header.provenance
    self.statistics = statistics
  }
}

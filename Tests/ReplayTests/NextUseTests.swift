import Replay
import Residency
import Routing
import Testing

/// Our policy on the traces of real models.
@Suite(.enabled(if: SharedTraces.arePresent, "needs ../shared")) struct NextUseTests {
  private static let shares = [0.05, 0.125, 0.25, 0.375, 0.5]

  private static func rows(
    _ paths: [String], _ policies: [PolicyName], _ shares: [Double]
  ) throws -> [ReplayRow] {
    var options = ReplayOptions()
    options.policies = policies
    options.capacities = shares.map { .share($0) }
    return try Comparison(TraceImport.open(paths), name: paths[0], options: options)
      .rows()
  }

  private static let traces = [
    [SharedTraces.path("waste/trace_olmoe_299.jsonl")],
    [SharedTraces.path("gpt-oss/gpt-oss-20b-misc.jsonl.gz")],
    [SharedTraces.path("gpt-oss/gpt-oss-20b-mmlu-20seq.jsonl.gz")],
    SharedTraces.esft("intent"), SharedTraces.esft("translation"),
    [SharedTraces.path("bigmoe/qwen.route.csv")], [SharedTraces.path("bigmoe/gemma.route.csv")],
  ]

  /// Never more than half a point of hit rate behind the two that most engines have, not even below one
  /// token's working set, where LRU hits nothing.
  @Test(arguments: traces) func losesToNeitherRecencyNorFrequency(_ paths: [String]) throws {
    let rows = try Self.rows(paths, [.lru, .lfu, .nextUse], Self.shares)
    for share in Self.shares.indices {
      let own = rows[3 * share..<3 * share + 3]
      let rates = Dictionary(uniqueKeysWithValues: own.map { ($0.policy, $0.hitRate) })
      let best = max(rates["lru"]!, rates["lfu"]!)
      #expect(rates["next-use"]! >= best - 0.005, "\(Self.shares[share]): \(rates)")
    }
    #expect(rows[2].hitRate > 0.15)
  }

  /// Its mean gap to MIN where the models' traces are long enough to tell: below every textbook
  /// policy's.
  @Test func itsGapIsTheSmallest() throws {
    var gaps: [String: Double] = [:]
    for paths in Self.traces.prefix(5) {
      for row in try Self.rows(paths, [.lru, .decayedLFU, .lfru, .nextUse], [0.25, 0.375, 0.5]) {
        gaps[row.policy, default: 0] += row.gapToMIN! / 15
      }
    }
    #expect(gaps["next-use"]! < 0.46)
    #expect(gaps["next-use"]! < gaps.filter { $0.key != "next-use" }.values.min()! - 0.03)
  }
}

import Foundation
import Replay
import Residency
import Routing
import Testing

/// The published replays of the two CSV traces (Helldez/BigMoeOnEdge 2d4f2b1), at every budget.
@Suite(.enabled(if: SharedTraces.arePresent, "needs ../shared")) struct GoldenCurveTests {
  private struct Row {
    let budget: Int
    let policy: String
    let hitRate: Double
    let readMiB: Double
  }

  private static func curve(_ name: String) throws -> [Row] {
    let text = try String(
      contentsOfFile: SharedTraces.path("bigmoe/\(name)-curve.csv"), encoding: .utf8)
    return text.split(separator: "\n").dropFirst().map { line in
      let fields = line.split(separator: ",")
      return Row(
        budget: Int(fields[0])!, policy: String(fields[1]), hitRate: Double(fields[3])!,
        readMiB: Double(fields[4])!)
    }
  }

  @Test(arguments: ["qwen", "gemma"]) func curvesAreThePublishedOnes(_ name: String) throws {
    let trace = try TraceImport.read([SharedTraces.path("bigmoe/\(name).route.csv")])
    let replay = Replay(trace)
    let future = try replay.future()
    let geometry = trace.header.geometry
    var compared = 0
    for row in try Self.curve(name) {
      let policy: any EvictionPolicy
      switch row.policy {
      // The published optimum admits every expert.
      case "belady": policy = MINPolicy(future: future, geometry: geometry, mayBypass: false)
      case "lru": policy = LRUPolicy(geometry: geometry)
      case "lfu": policy = LFUPolicy(geometry: geometry)
      default: continue
      }
      let counts = try replay.run(capacity: row.budget << 20, policy: policy)
      let readMiB = Double(counts.prefill.byteCount + counts.decode.byteCount) / 0x1p20
      #expect(
        abs(100 * counts.decode.hitRate - row.hitRate) <= 0.4, "\(row.policy) at \(row.budget) MiB")
      #expect(abs(readMiB / row.readMiB - 1) <= 0.01, "\(row.policy) at \(row.budget) MiB")
      compared += 1
    }
    #expect(compared >= 30)
  }
}

import Foundation
import Residency
import Routing
import TestSupport
import Testing

@testable import Replay

/// Some layers stand for all.
@Suite struct SampleTests {
  private static func rows(
    _ trace: RoutingTrace, _ policies: [PolicyName], share: Double?
  ) throws -> [ReplayRow] {
    var options = ReplayOptions()
    options.policies = policies
    options.capacities = [0.125, 0.25, 0.375, 0.5, 0.75].map { .share($0) }
    options.layerShare = share
    return try Comparison(trace, name: "t", options: options).rows()
  }

  @Test func allLayersAreExact() throws {
    let trace = randomTrace(
      layers: 6, experts: 16, topK: 2, tokens: 80, sequences: 2, promptTokens: 5, seed: 9)
    let policies: [PolicyName] = [.lru, .nextUse, .min]
    for (full, sampled) in zip(
      try Self.rows(trace, policies, share: nil), try Self.rows(trace, policies, share: 1))
    {
      #expect(sampled.sampledLayers == 6 && full.sampledLayers == nil)
      #expect(full.hits == sampled.hits && full.bytesRead == sampled.bytesRead)
      #expect(full.gapToMIN == sampled.gapToMIN)
    }
  }

  @Test func aSampleIsCountedAndItsBytesAreScaledUp() throws {
    let trace = randomTrace(
      layers: 6, experts: 16, topK: 2, tokens: 80, byteCounts: [10, 30, 10, 30, 10, 30], seed: 9)
    let sample = LayerSample(geometry: trace.header.geometry, share: 0.3)
    #expect(sample.layerCount == 2)
    for row in try Self.rows(trace, [.lru], share: 0.3) {
      #expect(row.accesses == 2 * 2 * 80 && row.sampledLayers == 2)
      let layers = (0..<6).filter { sample.isChosen[$0] }
      let bytes = layers.reduce(0) { $0 + [10, 30, 10, 30, 10, 30][$1] }
      #expect(abs(sample.byteShare - Double(bytes) / 120) < 1e-9)
      #expect(row.hits < row.accesses && row.bytesPerToken > 0)
    }
  }

  @Test(.enabled(if: SharedTraces.arePresent, "needs ../shared"), arguments: ["olmoe", "misc"])
  func halfOfTheLayersIsCloseToAll(_ name: String) throws {
    let path =
      name == "olmoe" ? "waste/trace_olmoe_299.jsonl" : "gpt-oss/gpt-oss-20b-misc.jsonl.gz"
    let trace = try TraceImport.read([SharedTraces.path(path)])
    let policies: [PolicyName] = [.lru, .lfu, .s3FIFO, .nextUse]
    let pairs = zip(
      try Self.rows(trace, policies, share: nil), try Self.rows(trace, policies, share: 0.5))
    let errors = pairs.map { abs($0.hitRate - $1.hitRate) }
    #expect(errors.reduce(0, +) / Double(errors.count) < 0.015, "\(errors)")
    #expect(errors.max()! < 0.04, "\(errors)")
  }

  /// The content of a CSV trace, its weights included, in a tenth of the bytes.
  @Test(.enabled(if: SharedTraces.arePresent, "needs ../shared"), arguments: ["qwen", "gemma"])
  func aTraceIsATenthOfItsCSV(_ name: String) throws {
    let csv = SharedTraces.path("bigmoe/\(name).route.csv")
    let trace = try TraceImport.read([csv])
    let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: file) }
    try trace.write(to: file.path)
    let (large, small) = (
      try Data(contentsOf: URL(fileURLWithPath: csv)).count, try Data(contentsOf: file).count
    )
    #expect(trace.header.hasWeights)
    #expect(10 * small <= large, "\(small) bytes of \(large)")
  }
}

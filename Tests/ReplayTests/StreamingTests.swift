import Foundation
import Placement
import Residency
import Routing
import TestSupport
import Testing

@testable import Replay

/// Traces that are read part by part give what the same traces give in memory.
@Suite struct StreamingTests {
  private static let hardware = HardwareProfile(
    name: "test", readBytesPerSecond: 1e6, readLatencySeconds: 1e-4,
    computeBytesPerSecond: 1e8,
    layerSeconds: 1e-3, tokenSeconds: 1e-3)

  /// A trace of several parts, as a file that is read part by part and in memory.
  private static func withSources(
    _ body: (_ streamed: TraceSource, _ resident: TraceSource) throws -> Void
  ) throws {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: file) }
    let trace = randomTrace(
      layers: 6, experts: 32, topK: 4, tokens: 2000, sequences: 3, hasWeights: true,
      byteCounts: [500, 700, 500, 900, 500, 500], promptTokens: 50, seed: 21)
    try trace.write(to: file.path)
    let streamed = try TraceSource(path: file.path, residentByteCount: 0, partByteCount: 1)
    var parts = 0
    try streamed.forEachPart { part, _ in
      #expect(part.eventCount < trace.eventCount)
      parts += 1
    }
    #expect(parts > 1)
    #expect(streamed.resident == nil && streamed.eventCounts == TraceSource(trace).eventCounts)
    try body(streamed, TraceSource(path: file.path))
  }

  @Test func replaysAreTheSame() throws {
    try Self.withSources { streamed, resident in
      var options = ReplayOptions()
      options.policies = [.lru, .nextUse, .static, .layerQuota, .minWindow(4)]
      options.capacities = [.share(0.3)]
      options.fitShare = 0.4
      options.window = 1000
      let rows = try Comparison(resident, name: "t", options: options).rows()
      #expect(try Comparison(streamed, name: "t", options: options).rows() == rows)
      #expect(rows.allSatisfy { $0.gapToMIN! > 0 && $0.hits > 0 })
      options.showsGap = false
      options.policies = [.lru]
      let plain = try Comparison(streamed, name: "t", options: options)
      #expect(plain.futureByteCount == 0)
      let row = try #require(plain.rows().first)
      #expect(row.hits == rows[0].hits && row.gapToMIN == nil)
      options.layerShare = 0.5
      #expect(
        try Comparison(streamed, name: "t", options: options).rows()
          == Comparison(resident, name: "t", options: options).rows())
    }
  }

  @Test func timesBatchesCurvesAndAnalysesAreTheSame() throws {
    try Self.withSources { streamed, resident in
      var options = ReplayOptions()
      options.policies = [.lru]
      options.capacities = [.share(0.3)]
      options.hardware = Self.hardware
      options.predictor = .history(.previousToken)
      let timed = try Comparison(resident, name: "t", options: options).rows()
      #expect(try Comparison(streamed, name: "t", options: options).rows() == timed)
      #expect(timed[0].prefetch!.issuedBytes > 0)
      options.hardware = nil
      options.predictor = nil
      options.batch = 3
      #expect(
        try Comparison(streamed, name: "t", options: options).rows()
          == Comparison(resident, name: "t", options: options).rows())
      let capacities = [10_000, 50_000]
      #expect(
        try MissRatioCurve(Replay(streamed)).hitRates(at: capacities)
          == MissRatioCurve(Replay(resident)).hitRates(at: capacities))
      let encoder = JSONEncoder()
      #expect(
        try encoder.encode(TraceStatistics(streamed)).count
          == encoder.encode(TraceStatistics(resident)).count)
      let (a, b) = (try TraceStatistics(streamed), try TraceStatistics(resident))
      #expect(a.reuse == b.reuse && a.predictability == b.predictability)
      #expect(a.layers.map(\.tokens) == b.layers.map(\.tokens))
      let (c, d) = (try ReuseProfile(streamed), try ReuseProfile(resident))
      #expect(c.uses == d.uses && c.distances == d.distances)
    }
  }

  /// A file that shrinks between two passes is told; one that grows is read as far as it went.
  @Test func filesThatChangeAreTold() throws {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: file) }
    let trace = randomTrace(layers: 2, experts: 8, topK: 2, tokens: 20_000, seed: 3)
    try trace.write(to: file.path)
    let source = try TraceSource(path: file.path, residentByteCount: 0, partByteCount: 1)
    let writer = try TraceWriter(appendingTo: file.path, header: trace.header)
    var event = TraceEvent()
    trace.read(0, into: &event)
    try writer.append(event)
    try writer.finish()
    var events = 0
    try source.forEachPart { part, _ in events += part.eventCount }
    #expect(events == trace.eventCount)
    let handle = try FileHandle(forWritingTo: file)
    try handle.truncate(atOffset: 100_000)
    #expect(throws: TraceError.self) { try source.forEachPart { _, _ in } }
  }
}

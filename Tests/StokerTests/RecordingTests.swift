import Foundation
import Logging
import Testing

@testable import Stoker

/// Recording a run says what it routed to, and changes nothing.
@Suite struct RecordingTests {
  private static func model() throws -> MoEModel {
    let file = try ModelFile(path: Fixtures.demo)
    return try MoEModel(
      file, options: ModelOptions(context: 128, threads: 2), logger: Logger(label: "test"))
  }

  private static let request = GenerationRequest(
    prompt: [5, 9, 300, 17, 41, 8, 1000], maxTokens: 24,
    sampling: SamplingParameters(temperature: 0), ignoresEnd: true)

  private static func scratch() -> String {
    FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
  }

  @Test func everyRoutingIsRecordedOnce() throws {
    let path = Self.scratch()
    defer { try? FileManager.default.removeItem(atPath: path) }
    let model = try Self.model()
    let plain = try model.generate(Self.request)
    for _ in 0..<2 {
      let recorder = try RoutingRecorder(path: path, model: model, workload: "a test")
      model.recorder = recorder
      #expect(try model.generate(Self.request).tokens == plain.tokens)
      try recorder.finish()
    }
    model.recorder = nil
    let after = try model.generate(Self.request)
    let trace = try RoutingTrace(path: path)
    let geometry = trace.header.geometry
    #expect(trace.header.workload == "a test")
    #expect(try geometry.totalByteCount == model.file.summary().expertBytes)
    // A prompt in one chunk, and each decoded token: an event per layer, twice.
    let steps = 1 + after.statistics.decodeSeconds.count
    #expect(trace.eventCount == 2 * steps * geometry.layerCount)
    var first = TraceEvent()
    var second = TraceEvent()
    for index in 0..<trace.eventCount / 2 {
      trace.read(index, into: &first)
      trace.read(index + trace.eventCount / 2, into: &second)
      #expect(first.sequence == 0 && second.sequence == 1)
      second.sequence = 0
      #expect(first == second)
    }
    // The runtime counted the same experts: with every one resident, all are hits.
    var accesses = (prefill: 0, decode: 0)
    for index in 0..<trace.eventCount / 2 {
      let count = Set(trace.experts(of: index)).count
      switch trace.phase(of: index) {
      case .prefill: accesses.prefill += count
      case .decode: accesses.decode += count
      }
    }
    #expect(after.statistics.experts.prefill.hits == accesses.prefill)
    #expect(after.statistics.experts.decode.hits == accesses.decode)
  }

  @Test func anotherModelsTraceIsLeftAlone() throws {
    let path = Self.scratch()
    defer { try? FileManager.default.removeItem(atPath: path) }
    let other = TraceHeader(
      model: "another", geometry: RoutingGeometry(expertCount: 4, topK: 1, expertByteCounts: [1]),
      hasWeights: true)
    try RoutingTrace(header: other).write(to: path)
    let before = try Data(contentsOf: URL(fileURLWithPath: path))
    let model = try Self.model()
    #expect(throws: TraceError.self) { try RoutingRecorder(path: path, model: model) }
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
  }
}

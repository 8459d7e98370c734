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

  /// The chosen experts are those that the recorded scores put first.
  @Test func scoresAreThoseTheRouterChoseBy() throws {
    let path = Self.scratch()
    let lines = Self.scratch()
    defer { for file in [path, lines] { try? FileManager.default.removeItem(atPath: file) } }
    let model = try Self.model()
    let recorder = try RoutingRecorder(path: path, model: model, scores: true)
    model.recorder = recorder
    _ = try model.generate(Self.request)
    try recorder.finish()
    let trace = try RoutingTrace(path: path)
    let (topK, experts) = (trace.header.geometry.topK, trace.header.geometry.expertCount)
    #expect(trace.header.hasScores && trace.eventCount > 0)
    var text = TraceLines.header(trace.header)
    var event = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      text += TraceLines.line(event, topK: topK)
      for token in 0..<event.experts.count / topK {
        let scores = event.scores[token * experts..<(token + 1) * experts].map {
          TraceScore.probability(of: $0)
        }
        #expect(abs(scores.reduce(0, +) - 1) < 0.03)
        let chosen = event.experts[token * topK..<(token + 1) * topK].map { scores[Int($0)] }
        let others = scores.indices.filter {
          !event.experts[token * topK..<(token + 1) * topK].contains(UInt16($0))
        }.map { scores[$0] }
        #expect(chosen.min()! >= others.max()!)
      }
    }
    // And back from JSON lines.
    try Data(text).write(to: URL(fileURLWithPath: lines))
    let imported = try TraceImport.open([lines])
    var other = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      imported.read(index, into: &other)
      #expect(event.scores == other.scores && event.experts == other.experts)
    }
    // Another kind of trace is not appended to.
    #expect(throws: TraceError.self) { try RoutingRecorder(path: path, model: model) }
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

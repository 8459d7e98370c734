import Foundation
import Logging
import Placement
import Replay
import Residency
import Routing
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

  /// What is read ahead is in the trace, layer by layer, but for what becomes of it after a layer's last
  /// event.
  @Test func theLedgerOfPrefetchIsRecorded() throws {
    let path = Self.scratch()
    defer { try? FileManager.default.removeItem(atPath: path) }
    let file = try ModelFile(path: Fixtures.demo)
    var options = ModelOptions(processMemory: 32 << 20, context: 128, threads: 2)
    let needs = try file.requirements(options)
    options.memory = needs.fullBudget - needs.allSlots / 2
    options.prefetch = .depth(4)
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let recorder = try RoutingRecorder(path: path, model: model)
    model.recorder = recorder
    let live = try model.generate(Self.request).statistics.experts
    try recorder.finish()
    let statistics = try TraceStatistics(TraceSource(path: path))
    #expect(statistics.prefetch.issued.count > 0 && statistics.prefetch.inTime.byteCount > 0)
    #expect(statistics.prefetchOfLayers.count == live.prefetch.count)
    for (recorded, ledger) in zip(statistics.prefetchOfLayers, live.prefetch) {
      #expect(abs(recorded.issued.count - ledger.issued.count) <= 8)
      let needed = (
        recorded.inTime.count + recorded.late.count, ledger.inTime.count + ledger.late.count
      )
      #expect((0...8).contains(needed.1 - needed.0), "\(needed)")
    }
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
      text += TraceLines.line(event, topK: topK, experts: experts)
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
    let imported = try TraceImport.read([lines])
    var other = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      imported.read(index, into: &other)
      #expect(event.scores == other.scores && event.experts == other.experts)
    }
    // Another kind of trace is not appended to.
    #expect(throws: TraceError.self) { try RoutingRecorder(path: path, model: model) }
  }

  /// Predictions are recorded for decoded tokens, come back from JSON lines, and are what replays
  /// prefetch by: the better they are, the less is waited for.
  @Test func predictionsAreRecordedAndReplayed() throws {
    let (path, lines) = (Self.scratch(), Self.scratch())
    defer { for file in [path, lines] { try? FileManager.default.removeItem(atPath: file) } }
    let model = try Self.model()
    let plain = try model.generate(Self.request)
    let recorder = try RoutingRecorder(path: path, model: model, predictions: true)
    model.recorder = recorder
    #expect(try model.generate(Self.request).tokens == plain.tokens)
    try recorder.finish()
    let trace = try RoutingTrace(path: path)
    let (geometry, distances) = (trace.header.geometry, trace.header.predictionDistances)
    #expect(distances == [0, 1, 2])
    var text = TraceLines.header(trace.header)
    var event = TraceEvent()
    var found = 0
    var chosen = 0
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      text += TraceLines.line(event, topK: geometry.topK, experts: geometry.expertCount)
      guard event.phase == .decode else {
        #expect(event.predictions.isEmpty)
        continue
      }
      try #require(event.predictions.count == 3 * geometry.expertCount)
      for (place, distance) in distances.enumerated() {
        let row = event.predictions[
          place * geometry.expertCount..<(place + 1) * geometry.expertCount]
        // Nothing is predicted from before the first layer.
        #expect(row.allSatisfy { $0 == 255 } == (event.layer < distance))
        guard distance == 0 else { continue }
        let codes = Array(row)
        let order = codes.indices.sorted { codes[$0] < codes[$1] }.prefix(geometry.topK)
        found += order.count { event.experts.contains(UInt16($0)) }
        chosen += geometry.topK
      }
    }
    #expect(Double(found) > 0.6 * Double(chosen))
    try Data(text).write(to: URL(fileURLWithPath: lines))
    let imported = try TraceImport.read([lines])
    var other = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      imported.read(index, into: &other)
      #expect(event == other || event.weights != other.weights)
      #expect(event.predictions == other.predictions)
    }
    var options = ReplayOptions()
    options.policies = [.nextUse]
    options.capacities = [.share(0.3)]
    options.hardware = HardwareProfile(
      name: "", readBytesPerSecond: 1e9, readLatencySeconds: 1e-4, computeBytesPerSecond: 8e9,
      layerSeconds: 1e-4, tokenSeconds: 1e-4)
    func row(_ predictor: ReplayPredictor?) throws -> ReplayRow {
      options.predictor = predictor
      return try #require(
        try Comparison(trace, name: "", options: options).rows().first)
    }
    let (without, with) = (try row(nil), try row(.recorded))
    let ahead = try #require(with.prefetch)
    #expect(without.prefetch == nil && with.hits == without.hits)
    #expect(ahead.issuedBytes > 0 && ahead.neededBytes <= ahead.issuedBytes)
    #expect(ahead.inTimeBytes <= ahead.neededBytes)
    #expect(try #require(with.times).tpotMeanSeconds < without.times!.tpotMeanSeconds)
    #expect(with.stallShare! < without.stallShare!)
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

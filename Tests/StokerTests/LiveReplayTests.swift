import Foundation
import Logging
import Placement
import Replay
import Residency
import Routing
import Testing

@testable import Stoker

/// A run that is recorded and replayed hits, misses and reads the same.
@Suite struct LiveReplayTests {
  private static let requests = [
    GenerationRequest(
      prompt: (0..<90).map { Int32(($0 * 37) % 1500) }, maxTokens: 40,
      sampling: SamplingParameters(temperature: 0), ignoresEnd: true),
    GenerationRequest(
      prompt: [7], maxTokens: 30, sampling: SamplingParameters(temperature: 0), ignoresEnd: true),
    GenerationRequest(
      prompt: [5, 9, 300, 17, 41], maxTokens: 20,
      sampling: SamplingParameters(temperature: 0.8, seed: 3), ignoresEnd: true),
  ]

  @Test func theMachineIsMeasuredThroughTheRuntime() throws {
    let file = try ModelFile(path: Fixtures.demo)
    var options = ModelOptions(processMemory: 0, context: 160, threads: 2)
    let requirements = try file.requirements(options)
    options.memory = requirements.minimumBudget + requirements.allSlots / 3
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let profile = try model.measureProfile(options)
    #expect(profile.fault == nil)
    // No memory gives more than this, no disk less.
    #expect(profile.computeBytesPerSecond < 1e12 && profile.readBytesPerSecond > 1e4)
    // What replays a trace is not disturbed by what was forced here.
    #expect(throws: StokerError.self) {
      try model.replay(
        RoutingTrace(
          header: TraceHeader(
            model: "", geometry: RoutingGeometry(expertCount: 2, topK: 1, expertByteCounts: [1]),
            hasWeights: false)))
    }
  }

  @Test(arguments: [PolicyName.nextUse, .lru, .mrs, .s3FIFO], [0.0, 0.05, 0.3, 1])
  func aReplayIsTheRun(_ policy: PolicyName, _ room: Double) throws {
    let file = try ModelFile(path: Fixtures.demo)
    var options = ModelOptions(processMemory: 0, context: 160, threads: 2, policy: policy)
    let requirements = try file.requirements(options)
    let least = requirements.minimumBudget
    options.memory = least + Int(room * Double(requirements.fullBudget - least))
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let path = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
    defer { try? FileManager.default.removeItem(atPath: path) }
    model.recorder = try RoutingRecorder(path: path, model: model)
    for request in Self.requests { _ = try model.generate(request) }
    try model.recorder?.finish()

    let live = model.transformer.runtime.statistics
    var replayed = ReplayOptions()
    replayed.policies = [policy]
    replayed.capacities = [.bytes(model.configuration.slotMemory)]
    for (phase, accesses) in [(ReplayPhase.prefill, live.prefill), (.decode, live.decode)] {
      replayed.phase = phase
      let trace = try RoutingTrace(path: path)
      let rows = try Comparison(trace, name: path, options: replayed).rows()
      let row = try #require(rows.first)
      #expect(row.hits == accesses.hits && row.accesses == accesses.hits + accesses.misses)
      #expect(row.bytesRead == accesses.missedByteCount)
      #expect((accesses.misses > 0) == (room < 1))
      #expect(accesses.hits > 0 || phase == .prefill || room == 0)
    }
    // The same again, by the trace instead of the router.
    let again = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let trace = try RoutingTrace(path: path)
    let forced = try again.replay(trace)
    #expect(forced.hits == live.decode.hits)
    #expect(forced.accesses == live.decode.hits + live.decode.misses)
    #expect(forced.missedByteCount == live.decode.missedByteCount)
    #expect(forced.stepSeconds.count == 40 - 1 + 30 - 1 + 20 - 1)
    #expect(forced.tokenCount == forced.stepSeconds.count && forced.prefetch.isEmpty)
    #expect(forced.stepSeconds.allSatisfy { $0 > 0 } && forced.stallSeconds >= 0)
  }

  @Test(arguments: [ReplayPredictor.recorded, .control, .history(.coactivation)])
  func expertsAreReadAheadByTheTrace(_ predictor: ReplayPredictor) throws {
    let file = try ModelFile(path: Fixtures.demo)
    var options = ModelOptions(
      processMemory: 0, context: 160, threads: 2, prefetch: .depth(4), predictor: .corrected)
    let requirements = try file.requirements(options)
    options.memory = requirements.fullBudget - requirements.allSlots / 2
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let path = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
    defer { try? FileManager.default.removeItem(atPath: path) }
    model.recorder = try RoutingRecorder(path: path, model: model, predictions: true)
    for request in Self.requests { _ = try model.generate(request) }
    try model.recorder?.finish()
    let trace = try RoutingTrace(path: path)

    let again = try MoEModel(file, options: options, logger: Logger(label: "test"))
    let live = try again.replay(
      trace, batch: 1, by: predictor, isCancelled: { false }, progress: { _, _ in })
    // What was used together before is seldom as sure as is asked.
    #expect(live.prefetch.issued.count > 0 || predictor == .history(.coactivation))
    // What is read ahead changes nothing of what is resident.
    let plain = try MoEModel(file, options: options, logger: Logger(label: "test")).replay(trace)
    #expect(live.hits == plain.hits && live.accesses == plain.accesses)
    #expect(plain.prefetch.isEmpty)
    guard predictor == .control else { return }
    // Everything that was predicted is needed, and only what was staged last may not have been yet.
    #expect(live.prefetch.unused.count == 0)
    #expect(live.prefetch.inTime.count + live.prefetch.late.count == live.prefetch.issued.count)
  }
}

import Dispatch
import Testing

@testable import Stoker

@Suite struct TokenStreamerTests {
  private static let request = GenerationRequest(
    prompt: [5, 17, 33], maxTokens: 40, sampling: SamplingParameters(temperature: 0),
    ignoresEnd: true)

  private func streamer() throws -> TokenStreamer {
    TokenStreamer(try Fixtures.model(Fixtures.tiny("tiny-olmoe")))
  }

  @Test func tokensAreThoseOfTheGeneration() async throws {
    let expected = try Fixtures.model(Fixtures.tiny("tiny-olmoe")).generate(Self.request).tokens
    #expect(expected.count == 40)
    let streamer = try streamer()
    var tokens: [Int32] = []
    for try await token in streamer.tokens(Self.request) { tokens.append(token) }
    #expect(tokens == expected)
    #expect(try await streamer.generate(Self.request).tokens == expected)
  }

  @Test func requestsOfManyTasksAreServed() async throws {
    let streamer = try streamer()
    let expected = try await streamer.generate(Self.request).tokens
    try await withThrowingTaskGroup(of: [Int32].self) { group in
      for _ in 0..<6 {
        group.addTask {
          var tokens: [Int32] = []
          for try await token in streamer.tokens(Self.request) { tokens.append(token) }
          return tokens
        }
      }
      for try await tokens in group { #expect(tokens == expected) }
    }
  }

  /// While something else has the model, a request is made and let go of: it never begins.
  @Test func aRequestThatNobodyWaitsForIsNotServed() async throws {
    let streamer = try streamer()
    let gate = DispatchSemaphore(value: 0)
    let (begun, signal) = AsyncStream<Void>.makeStream()
    let holder = Task {
      try await streamer.withModel { _ in
        signal.finish()
        gate.wait()
      }
    }
    for await _ in begun {}
    let reader = Task {
      for try await _ in streamer.tokens(Self.request) { Issue.record("a token came") }
    }
    reader.cancel()
    try await reader.value
    gate.signal()
    try await holder.value
    let accesses = try await streamer.withModel { $0.transformer.runtime.statistics.prefill }
    #expect(accesses.hits + accesses.misses == 0)
    #expect(try await streamer.generate(Self.request).tokens.count == 40)
  }

  @Test func aCancelledTaskGetsWhatThereIs() async throws {
    let streamer = try streamer()
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return try await streamer.generate(Self.request)
    }
    let result = try await task.value
    #expect(result.statistics.cancelled && result.tokens.isEmpty)
  }

  @Test func errorsReachTheConsumer() async throws {
    let streamer = try streamer()
    let empty = GenerationRequest(prompt: [], maxTokens: 4)
    await #expect(throws: StokerError.emptyPrompt) {
      for try await _ in streamer.tokens(empty) {}
    }
    #expect(try await streamer.generate(Self.request).tokens.count == 40)
  }
}

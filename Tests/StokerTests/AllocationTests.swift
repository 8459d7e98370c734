import AllocationCounter
import Glibc
import Logging
import Testing

@testable import Stoker

/// What one test decodes with.
private struct Decoding: Codable, Sendable, CustomTestStringConvertible {
  /// The share of the experts that has slots.
  let share: Double
  let io: ReadEngineKind
  let temperature: Float
  var topK = 40
  var repetitionPenalty: Float = 1

  var testDescription: String {
    "\(share) of the experts, \(io), temperature \(temperature), top-k \(topK), "
      + "repetition penalty \(repetitionPenalty)"
  }

  var sampling: SamplingParameters {
    SamplingParameters(
      temperature: temperature, topK: topK, topP: 0.9, repetitionPenalty: repetitionPenalty)
  }

  static let all = [
    Decoding(share: 1, io: .auto, temperature: 0),
    Decoding(share: 1, io: .auto, temperature: 0.8),
    Decoding(share: 1, io: .auto, temperature: 0.8, topK: 0, repetitionPenalty: 1.1),
    Decoding(share: 0.25, io: .uring, temperature: 0),
    Decoding(share: 0.25, io: .uring, temperature: 0.8),
    Decoding(share: 0.25, io: .pread, temperature: 0),
    Decoding(share: 0.25, io: .pread, temperature: 0.8),
  ]
}

/// Decoding takes no memory from the heap once it is under way.
///
/// The counter sees every thread of its process, because those that compute and read must not
/// allocate either. So each count is made in a process of its own, where no other test runs.
@Suite struct AllocationTests {
  private static let stepCount = 64
  private static let warmUp = 16

  @Test(arguments: Decoding.all)
  private func decodingAllocatesNothing(_ decoding: Decoding) async {
    await #expect(processExitsWith: .success) { [decoding = decoding as Decoding] in
      let model = try Self.model(decoding)
      var tokenCount = 0
      var allocations = -1
      let generation = try model.generate(
        GenerationRequest(
          prompt: [11, 48, 85, 122], maxTokens: Self.stepCount, sampling: decoding.sampling,
          ignoresEnd: true),
        onToken: { _ in
          tokenCount += 1
          if tokenCount == Self.warmUp { allocation_counter_start() }
          if tokenCount == Self.stepCount { allocations = allocation_counter_stop() }
        })
      #expect(tokenCount == Self.stepCount)
      #expect(allocations == 0, "\(Self.origins(of: allocations))")
      let misses = generation.statistics.experts.decode.misses
      #expect(decoding.share < 1 ? misses > Self.stepCount : misses == 0)
    }
  }

  @Test func theCounterSeesEveryFunctionAndThread() async {
    await #expect(processExitsWith: .success) {
      allocation_counter_start()
      #expect(allocation_counter_stop() == 0)

      var aligned: UnsafeMutableRawPointer?
      allocation_counter_start()
      let blocks = (malloc(1), calloc(1, 1), realloc(nil, 1), aligned_alloc(64, 64))
      let code = posix_memalign(&aligned, 4096, 1)
      #expect(allocation_counter_stop() == 5)
      #expect(code == 0)
      for block in [blocks.0, blocks.1, blocks.2, blocks.3, aligned] {
        #expect(block != nil)
        free(block)
      }

      // Starting a thread takes memory too, but not so often.
      let list = UnsafeMutablePointer<UnsafeMutableRawPointer?>.allocate(capacity: 100)
      var thread = pthread_t()
      allocation_counter_start()
      pthread_create(
        &thread, nil,
        { list in
          let list = list!.assumingMemoryBound(to: UnsafeMutableRawPointer?.self)
          for index in 0..<100 { list[index] = malloc(3) }
          return nil
        }, list)
      pthread_join(thread, nil)
      let ofThread = allocation_counter_stop()
      #expect(ofThread >= 100)
      for index in 0..<100 { free(list[index]) }
      list.deallocate()
      #expect(!Self.origins(of: ofThread).isEmpty)
    }
  }

  private static func model(_ decoding: Decoding) throws -> MoEModel {
    let file = try ModelFile(path: Fixtures.demo)
    var options = ModelOptions(
      processMemory: 32 << 20, context: 96, threads: 2, io: decoding.io)
    let needs = try file.requirements(options)
    let slots = Int(Double(needs.allSlots) * decoding.share)
    options.memory = needs.fullBudget - needs.allSlots + max(needs.minimumSlots, slots)
    return try MoEModel(file, options: options, logger: Logger(label: "test"))
  }

  /// Where the first blocks came from.
  private static func origins(of count: Int) -> String {
    (0..<Int32(max(0, min(count, 4)))).map { index in
      guard let text = allocation_counter_origin(index) else { return "unknown" }
      defer { free(text) }
      return String(cString: text)
    }.joined(separator: "\n")
  }
}

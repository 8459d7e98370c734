import ExpertRuntime
import Routing
import Synchronization
import Tensors
import Testing

/// Experts from memory and from a function give what the same experts in a file do.
@Suite struct SourceTests {
  private static let types: (gate: ElementType, up: ElementType, down: ElementType) = (
    .q8_0, .q8_0, .q4_0
  )
  private static let model = ToyMoE(
    hidden: 64, feedForward: 32, expertCount: 6, topK: 2,
    types: .init(repeating: [types.gate, types.up, types.down], count: 3), seed: 5)

  private struct Failure: Error, CustomStringConvertible {
    let description = "the network is down"
  }

  private static func bytes(_ expert: ExpertID, _ matrix: ExpertMatrix) -> ArraySlice<UInt8> {
    let all = model.bytes[expert.layer][matrix.rawValue]
    let count = all.count / model.expertCount
    return all[expert.expert * count..<(expert.expert + 1) * count]
  }

  private func source(
    _ read: @escaping ExpertSource.Reader = { expert, matrix, bytes in
      let own = SourceTests.bytes(expert, matrix)
      bytes.withUnsafeMutableBytes { $0.copyBytes(from: own) }
    }
  ) throws -> ExpertSource {
    try ExpertSource(
      name: "the test", layerCount: 3, expertCount: 6, topK: 2, hiddenSize: 64,
      feedForwardSize: 32, types: Self.types, read: read)
  }

  private func inMemory() throws -> ExpertSource {
    try ExpertSource(
      experts: (0..<3).map { layer in
        (0..<6).map { expert in
          let id = ExpertID(layer: layer, expert: expert)
          return ExpertSource.Matrices(
            gate: Array(Self.bytes(id, .gate)), up: Array(Self.bytes(id, .up)),
            down: Array(Self.bytes(id, .down)))
        }
      }, topK: 2, hiddenSize: 64, feedForwardSize: 32, types: Self.types)
  }

  @Test func outputIsThatOfAFile() throws {
    let file = try TemporaryFile()
    try Self.model.write(to: file.path)
    let reference = try ExpertRuntime.open(file.path, tokenCapacity: 5, threads: 2)
    var small = 0
    do {
      _ = try ExpertRuntime.open(inMemory(), memory: 1, tokenCapacity: 5, threads: 1)
    } catch RuntimeError.budgetTooSmall(_, let minimum) { small = minimum }
    try #require(small > 0)
    for source in [try source(), try inMemory()] {
      for memory in [nil, small, small + 30_000] {
        let runtime = try ExpertRuntime.open(
          source, memory: memory, tokenCapacity: 5, threads: 2, readsAhead: memory != small)
        #expect(runtime.holdsEveryExpert == (memory == nil))
        for step in 0..<6 as Range<UInt64> {
          for layer in 0..<3 {
            let tokens = Self.model.tokens(step == 0 ? 5 : 1, seed: 7 * step + UInt64(layer))
            let scores = [Float](unsafeUninitializedCapacity: 6) { buffer, count in
              buffer.initialize(repeating: 0)
              for expert in tokens[0].experts { buffer[Int(expert)] = 1 }
              count = 6
            }
            if layer > 0 {
              try runtime.predict(layer: layer, distance: 1, scores: scores.span)
            }
            let output = try runtime.output(layer: layer, tokens[...], topK: 2)
            #expect(output == (try reference.output(layer: layer, tokens[...], topK: 2)))
          }
        }
      }
    }
  }

  @Test func whatCannotBeGotIsToldAndTriedAgain() throws {
    let isDown = Atomic(true)
    let source = try source { expert, matrix, bytes in
      if expert.expert == 4, matrix == .up, isDown.load(ordering: .relaxed) { throw Failure() }
      let own = SourceTests.bytes(expert, matrix)
      bytes.withUnsafeMutableBytes { $0.copyBytes(from: own) }
    }
    var small = 0
    do {
      _ = try ExpertRuntime.open(source, memory: 1, tokenCapacity: 1, threads: 1)
    } catch RuntimeError.budgetTooSmall(_, let minimum) { small = minimum }
    let runtime = try ExpertRuntime.open(source, memory: small, tokenCapacity: 1, threads: 1)
    var token = Self.model.tokens(1, seed: 1)[0]
    token.experts = [1, 4]
    for _ in 0..<3 {
      do {
        _ = try runtime.output(layer: 1, [token], topK: 2)
        Issue.record("it was got")
      } catch RuntimeError.read(let expert, let matrix, let file, let reason) {
        #expect(expert == "expert 4 of layer 1" && matrix == "up" && file == "the test")
        #expect(reason.contains("the network is down"))
      }
    }
    isDown.store(false, ordering: .relaxed)
    let found = try runtime.output(layer: 1, [token], topK: 2)
    let whole = try ExpertRuntime.open(inMemory(), tokenCapacity: 1, threads: 1)
    #expect(try whole.output(layer: 1, [token], topK: 2) == found)
  }

  @Test func numbersThatMakeNoModelAreRefused() throws {
    func refused(
      layers: Int = 3, experts: Int = 6, topK: Int = 2, hidden: Int = 64, inner: Int = 32,
      types: (gate: ElementType, up: ElementType, down: ElementType) = Self.types
    ) -> Bool {
      do {
        _ = try ExpertSource(
          layerCount: layers, expertCount: experts, topK: topK, hiddenSize: hidden,
          feedForwardSize: inner, types: types
        ) { _, _, _ in }
        return false
      } catch { return !"\(error)".isEmpty }
    }
    #expect(!refused())
    #expect(refused(layers: 0) && refused(layers: 1025) && refused(experts: 0))
    #expect(refused(experts: 4097) && refused(topK: 7) && refused(topK: 0))
    #expect(refused(hidden: 63) && refused(inner: 16) && refused(hidden: 0) && refused(hidden: -32))
    #expect(refused(hidden: 1 << 40) && refused(inner: .max & ~31))
    #expect(refused(types: (.i8, .q8_0, .q8_0)) && refused(types: (.q8_0, .q4_K, .q8_0)))
    #expect(
      refused(
        layers: 1024, experts: 4096, hidden: 1 << 24, inner: 1 << 24, types: (.f32, .f32, .f32)))
    let short = ExpertSource.Matrices(gate: [], up: [], down: [])
    for experts in [[[short]], [], [[]], [[short], []]] {
      #expect(throws: RuntimeError.self) {
        try ExpertSource(
          experts: experts, topK: 1, hiddenSize: 64, feedForwardSize: 32, types: Self.types)
      }
    }
  }
}

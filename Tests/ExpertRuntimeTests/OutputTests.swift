import DirectIO
import ExpertRuntime
import Routing
import Testing

@Suite struct OutputTests {
  static let model = ToyMoE.mixed
  static let tokens = model.tokens(8, seed: 3)

  @Test(arguments: 0..<model.layerCount)
  func outputAgreesWithDoublePrecision(layer: Int) throws {
    let bench = try RuntimeBench(Self.model)
    let output = try bench.run(layer: layer, Self.tokens[0..<5])
    for (index, token) in Self.tokens[0..<5].enumerated() {
      let expected = Self.model.reference(
        layer: layer, experts: token.experts[...], weights: token.weights[...],
        input: token.hidden)
      var largest = 0.0
      for i in 0..<Self.model.hidden {
        let error = abs(Double(output[index * Self.model.hidden + i]) - expected.output[i])
        #expect(error <= expected.bound[i], "token \(index), value \(i): off by \(error)")
        largest = max(largest, abs(expected.output[i]))
      }
      // The bound is worth something: far below the values themselves.
      #expect(expected.bound.max()! < 0.05 * largest)
    }
  }

  /// Each token alone, in the plainest setup, [layers][tokens].
  static func plainOutputs() throws -> [[[Float]]] {
    let bench = try RuntimeBench(model)
    return try (0..<model.layerCount).map { layer in
      try tokens.indices.map { try bench.run(layer: layer, tokens[$0...$0]) }
    }
  }

  @Test func preadThroughThePageCacheChangesNoBit() throws {
    try expectSameBits(io: .pread, direct: .off)
  }

  @Test(.enabled(if: Probe.hasDirect)) func directPreadChangesNoBit() throws {
    try expectSameBits(io: .pread, direct: .on)
  }

  @Test(.enabled(if: Probe.hasRing)) func ringThroughThePageCacheChangesNoBit() throws {
    try expectSameBits(io: .uring, direct: .off)
  }

  @Test(.enabled(if: Probe.hasRing && Probe.hasDirect)) func directRingChangesNoBit() throws {
    try expectSameBits(io: .uring, direct: .on)
  }

  /// Runs every token in groups of 1, 5 and 8, over every number of slots and threads.
  private func expectSameBits(io: ReadEngineKind, direct: DirectPolicy) throws {
    let model = Self.model
    let tokens = Self.tokens
    let expected = try Self.plainOutputs()
    let file = try TemporaryFile()
    try model.write(to: file.path)
    for slots in RuntimeSetup.Slots.allCases {
      for threads in 1...3 {
        let setup = RuntimeSetup(
          slots: slots, io: io, direct: direct, threads: threads, tokenCapacity: 8)
        let bench = try RuntimeBench(model, setup, file: file)
        for groupSize in [1, 5, 8] {
          for layer in 0..<model.layerCount {
            for start in stride(from: 0, to: tokens.count, by: groupSize) {
              let range = start..<min(start + groupSize, tokens.count)
              let output = try bench.run(layer: layer, tokens[range])
              #expect(
                output.map(\.bitPattern) == expected[layer][range].joined().map(\.bitPattern),
                "layer \(layer), tokens \(range), \(setup)")
            }
          }
        }
        if slots != .all {
          #expect(bench.runtime.statistics.evictions > 0, "\(setup) never ran out of slots")
        }
      }
    }
  }

  @Test func aTokenWithAnInfinityPoisonsNoOther() throws {
    let bench = try RuntimeBench(Self.model)
    var tokens = Self.tokens
    tokens[1].hidden[7] = .infinity
    for layer in 0..<Self.model.layerCount {
      let clean = try bench.run(layer: layer, Self.tokens[0..<3])
      let output = try bench.run(layer: layer, tokens[0..<3])
      let hidden = Self.model.hidden
      #expect(output[..<hidden] == clean[..<hidden])
      #expect(output[(2 * hidden)...] == clean[(2 * hidden)...])
      #expect(output[hidden..<(2 * hidden)].contains { !$0.isFinite })
    }
  }
}

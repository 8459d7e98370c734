import Checkpoints
import DirectIO
import ExpertRuntime
import Testing

@Suite struct ReadFailureTests {
  static let model = ToyMoE.mixed
  /// Experts 4 and 5 of the last layer, whose down matrices are the end of the file.
  static let token = {
    var token = model.tokens(1, seed: 8)[0]
    token.experts = [4, 5, 0]
    return token
  }()
  static let layer = model.layerCount - 1

  /// A length of the file at which expert 5 of the last layer lacks the end of its down matrix.
  private func lengthWithoutExpertFive(_ path: String) throws -> Int {
    let down = try Checkpoint.open(path).tensor("blk.\(Self.layer).ffn_down_exps.weight")
    return Int(down.offset) + down.byteCount / Self.model.expertCount * 6 - 1
  }

  @Test func preadSurvivesATruncatedFile() throws {
    try expectSurvival(io: .pread, direct: .off)
  }

  @Test(.enabled(if: Probe.hasDirect)) func directPreadSurvivesATruncatedFile() throws {
    try expectSurvival(io: .pread, direct: .on)
  }

  @Test(.enabled(if: Probe.hasRing)) func ringSurvivesATruncatedFile() throws {
    try expectSurvival(io: .uring, direct: .off)
  }

  @Test(.enabled(if: Probe.hasRing && Probe.hasDirect)) func directRingSurvivesATruncatedFile()
    throws
  {
    try expectSurvival(io: .uring, direct: .on)
  }

  private func expectSurvival(io: ReadEngineKind, direct: DirectPolicy) throws {
    let expected = try RuntimeBench(Self.model).run(layer: Self.layer, [Self.token])
    for slots in RuntimeSetup.Slots.allCases {
      let bench = try RuntimeBench(
        Self.model, RuntimeSetup(slots: slots, io: io, direct: direct, threads: 2))
      let path = bench.file.path
      let bytes = try bench.file.bytes()
      let before = try bench.run(layer: 0, [Self.token])
      try bench.file.truncate(to: try lengthWithoutExpertFive(path))
      // More than once: a slot or hold lost in a failure would be missed by a later call.
      for _ in 0..<8 {
        do {
          _ = try bench.run(layer: Self.layer, [Self.token])
          Issue.record("an expert beyond the end of the file was computed: \(slots)")
        } catch let RuntimeError.read(expert, matrix, file, reason) {
          #expect(expert == "expert 5 of layer \(Self.layer)")
          #expect(matrix == "down")
          #expect(file == path)
          #expect(reason.contains("truncated"))
        }
      }
      // Other layers do as before, truncated or not.
      #expect(try bench.run(layer: 0, [Self.token]) == before)
      try bench.file.overwrite(with: bytes)
      let output = try bench.run(layer: Self.layer, [Self.token])
      #expect(output.map(\.bitPattern) == expected.map(\.bitPattern), "\(slots)")
      #expect(try bench.run(layer: 0, [Self.token]) == before)
    }
  }

  @Test(arguments: RuntimeSetup.Slots.allCases)
  func aFileWithoutAnyExpertFailsEveryCall(_ slots: RuntimeSetup.Slots) throws {
    let bench = try RuntimeBench(Self.model, RuntimeSetup(slots: slots, io: .auto))
    let bytes = try bench.file.bytes()
    let tokens = Self.model.tokens(12, seed: 9)
    try bench.file.truncate(to: 0)
    for layer in 0..<Self.model.layerCount {
      #expect(throws: RuntimeError.self) { try bench.run(layer: layer, tokens[...]) }
    }
    try bench.file.overwrite(with: bytes)
    let fresh = try RuntimeBench(Self.model)
    for layer in 0..<Self.model.layerCount {
      let output = try bench.run(layer: layer, tokens[...])
      #expect(output == (try fresh.run(layer: layer, tokens[...])))
    }
  }

  /// Truncation takes the experts from some id on; a bad sector takes one, and those after it can
  /// be read. The slot it frees must not go to another expert before the failure is dealt with.
  @Test(arguments: 0..<model.expertCount)
  func oneUnreadableExpertFailsOnlyTheCallsThatNeedIt(expert: Int) throws {
    let file = try TemporaryFile()
    try Self.model.write(to: file.path)
    let gate = try Checkpoint.open(file.path).tensor("blk.1.ffn_gate_exps.weight")
    let offset = Int(gate.offset) + expert * gate.byteCount / Self.model.expertCount
    let bench = try RuntimeBench(Self.model, RuntimeSetup(slots: .minimum), file: file) {
      BadSectorEngine($0, file: $1, offset: UInt64(offset))
    }
    let fresh = try RuntimeBench(Self.model)
    let tokens = Self.model.tokens(12, seed: 11)
    for _ in 0..<4 {
      do {
        _ = try bench.run(layer: 1, tokens[...])
        Issue.record("expert \(expert) was computed without its gate matrix")
      } catch let RuntimeError.read(name, matrix, path, _) {
        #expect(name == "expert \(expert) of layer 1")
        #expect(matrix == "gate")
        #expect(path == file.path)
      }
    }
    for token in tokens where !token.experts.contains(Int32(expert)) {
      #expect(try bench.run(layer: 1, [token]) == fresh.run(layer: 1, [token]))
    }
  }

  @Test(arguments: [ReadEngineKind.pread, .auto])
  func preloadingNamesTheExpertAndCanBeRepeated(_ io: ReadEngineKind) throws {
    let bench = try RuntimeBench(Self.model, RuntimeSetup(io: io))
    let bytes = try bench.file.bytes()
    try bench.file.truncate(to: try lengthWithoutExpertFive(bench.file.path))
    do {
      try bench.runtime.preload { _, _ in }
      Issue.record("a truncated file was preloaded")
    } catch {
      let text = error.description
      let named = (5..<Self.model.expertCount).contains {
        text.contains("the down matrix of expert \($0) of layer \(Self.layer) from")
      }
      #expect(named && text.contains(bench.file.path), "\(text)")
    }
    try bench.file.overwrite(with: bytes)
    try bench.runtime.preload { _, _ in }
    let expected = try RuntimeBench(Self.model).run(layer: Self.layer, [Self.token])
    #expect(try bench.run(layer: Self.layer, [Self.token]) == expected)
    #expect(bench.runtime.statistics.decode.misses == 0)
  }
}

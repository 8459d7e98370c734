import Logging
import Routing
import Stoker
import Testing

@testable import Stoker

/// The promise: output is the same to the bit whatever the budget, the read engine, the page cache
/// and the number of threads.
@Suite struct IdentityTests {
  private static let context = 96
  /// Other tests of this process hold memory that is no part of the run.
  private static let process = 32 << 20
  private static let prompt: [Int32] = (0..<40).map { ($0 * 37 + 11) % 300 }

  private func output(_ file: ModelFile, _ options: ModelOptions) throws -> [UInt32] {
    let model = try MoEModel(file, options: options, logger: .init(label: "test"))
    var bits: [UInt32] = []
    var next: Int32 = 0
    func note(_ logits: UnsafeMutableBufferPointer<Float>) {
      bits += logits.map(\.bitPattern)
      next = Int32(logits.indices.max { logits[$0] < logits[$1] }!)
    }
    try model.transformer.forward(Self.prompt.span, at: 0, phase: .prefill, logits: .all) {
      note($1)
    }
    for step in 0..<24 {
      try model.transformer.forward(
        [next].span, at: Self.prompt.count + step, phase: .decode, logits: .last
      ) { note($1) }
    }
    return bits
  }

  private func options(
    _ memory: Int, engines: [ReadEngineKind]
  ) -> [(String, ModelOptions)] {
    var all: [(String, ModelOptions)] = []
    for io in engines {
      for direct in [DirectPolicy.auto, .off] {
        for threads in [1, 2] {
          all.append(
            (
              "\(memory) bytes, \(io), direct \(direct), \(threads) threads",
              ModelOptions(
                memory: memory, processMemory: Self.process, context: Self.context,
                threads: threads, io: io, direct: direct)
            ))
        }
      }
    }
    return all
  }

  /// Whether one thread with every expert and two that read them with pread, through the page cache, with the
  /// smallest budget give the same bits.
  func smallestBudgetGivesTheBitsOfTheLargest(_ file: ModelFile) throws -> Bool {
    func options(_ memory: Int, threads: Int) -> ModelOptions {
      ModelOptions(
        memory: memory, processMemory: Self.process, context: Self.context, threads: threads,
        io: threads == 1 ? .auto : .pread, direct: threads == 1 ? .auto : .off)
    }
    let needs = try file.requirements(options(0, threads: 2))
    return try output(file, options(needs.fullBudget, threads: 1))
      == output(file, options(needs.minimumBudget, threads: 2))
  }

  @Test(
    arguments: Fixtures.tinyModels.map(Fixtures.tiny)
      + Fixtures.packedFolders.map(Fixtures.folder) + [
        Fixtures.folder("tiny-mixtral"), Fixtures.demo,
      ])
  func outputIsIdenticalWhateverTheBudget(_ path: String) throws {
    let file = try ModelFile(path: path)
    let needs = try file.requirements(
      ModelOptions(
        processMemory: Self.process, context: Self.context, threads: 2))
    let expected = try output(
      file,
      ModelOptions(
        memory: needs.fullBudget, processMemory: Self.process, context: Self.context, threads: 1))
    #expect(expected.contains { Float(bitPattern: $0) != 0 })
    for share in [1.0, 0.5, 0.25, 0] {
      let slots = max(needs.minimumSlots, Int(Double(needs.allSlots) * share))
      let memory = needs.fullBudget - needs.allSlots + slots
      // What is rearranged as it is read is read by threads.
      let engines: [ReadEngineKind] =
        Fixtures.packedFolders.contains { path.hasSuffix("/\($0)") } ? [.auto] : [.uring, .pread]
      for (name, options) in options(memory, engines: engines) {
        let identical = try output(file, options) == expected
        #expect(identical, "\(name)")
      }
    }
  }
}

import Testing

@testable import DirectIO

extension IOTests {
  /// What only io_uring has.
  @Suite(
    .enabled(
      if: EngineSetup.ringRefusal == nil,
      "this system refuses io_uring: nothing of it is tested"))
  struct RingTests {
    @Test func isWhatAutoChooses() throws {
      let engine = try makeReadEngine(kind: .auto, files: [], arenas: [])
      #expect(engine.name == "io_uring")
    }

    @Test func filesAndArenasAreRegistered() throws {
      let random = try RandomFile(byteCount: 50_000)
      let file = try DataFile(path: random.path, direct: .auto)
      let slots = try Slots(count: 4, byteCount: 5_000)
      let engine = try makeReadEngine(kind: .uring, files: [file], arenas: [slots.arena])
      #expect(engine.registeredFiles && engine.registeredBuffers)
      #expect(engine.fallbacks == [])
    }

    @Test func withoutArenasNothingIsRegistered() throws {
      let random = try RandomFile(byteCount: 50_000)
      let file = try DataFile(path: random.path, direct: .auto)
      let empty = try Arena(byteCount: 0)
      for arenas in [[], [empty]] {
        let engine = try makeReadEngine(kind: .uring, files: [file], arenas: arenas)
        #expect(engine.registeredFiles && !engine.registeredBuffers)
        #expect(engine.fallbacks == [])
      }
    }

    /// Each arena is another buffer to the kernel, which refuses addresses outside the one named.
    @Test(arguments: [DirectPolicy.auto, .off])
    func everyArenaIsReadInto(_ direct: DirectPolicy) throws {
      let random = try RandomFile(byteCount: 90_000)
      let file = try DataFile(path: random.path, direct: direct)
      let ranges = randomRanges(10, byteCount: 90_000, largest: 3_000, seed: 2)
      let all = try (0..<4).map { _ in try Slots(count: ranges.count, byteCount: 3_000) }
      let empty = try Arena(byteCount: 0)
      let engine = try makeReadEngine(
        kind: .uring, files: [file], arenas: [empty] + all.map(\.arena), queueDepth: 4)
      #expect(engine.registeredBuffers)
      for slots in all {
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
      }
    }

    @Test func anArenaOutlivesItsLastOtherUser() throws {
      let random = try RandomFile(byteCount: 50_000)
      let file = try DataFile(path: random.path, direct: .auto)
      weak var arena: Arena?
      do {
        let slots = try Slots(count: 4, byteCount: 5_000)
        arena = slots.arena
        let engine = try makeReadEngine(kind: .uring, files: [file], arenas: [slots.arena])
        _ = engine.read([0..<5_000], of: file, into: slots)
        withExtendedLifetime(engine) { #expect(arena != nil) }
      }
      #expect(arena == nil)
    }
  }
}

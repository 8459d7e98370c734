import Glibc
import Testing

@testable import DirectIO

extension IOTests {
  @Suite struct ReadTests {
    @Test(arguments: EngineSetup.all, [1, 4, 32])
    func randomExtentsAreTheFilesBytes(_ setup: EngineSetup, _ depth: Int) throws {
      let random = try RandomFile(byteCount: 777_777, seed: UInt64(depth))
      let file = try DataFile(path: random.path, direct: setup.direct)
      let ranges = randomRanges(300, byteCount: 777_777, largest: 20_000, seed: 3)
      let slots = try Slots(count: ranges.count, byteCount: 20_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: depth)
      #expect(engine.name == (setup.kind == .uring ? "io_uring" : "pread"))
      let ended = engine.read(ranges, of: file, into: slots)
      expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
      #expect(engine.outstandingCount == 0)
    }

    @Test(arguments: EngineSetup.all)
    func readsUpToTheLastByte(_ setup: EngineSetup) throws {
      let byteCount = 3 * 4096 + 1_111
      let random = try RandomFile(byteCount: byteCount)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let starts = [0, 1, 4095, 4096, 8192, 3 * 4096 - 1, 3 * 4096, byteCount - 512, byteCount - 1]
      let ranges = starts.map { $0..<byteCount }
      let slots = try Slots(count: ranges.count, byteCount: byteCount)
      let engine = try makeReadEngine(kind: setup.kind, files: [file], arenas: [slots.arena])
      let ended = engine.read(ranges, of: file, into: slots)
      expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
    }

    @Test(arguments: EngineSetup.all)
    func largeReadsComeWhole(_ setup: EngineSetup) throws {
      let byteCount = (3 << 20) + 77
      let random = try RandomFile(byteCount: byteCount)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let ranges = [0..<byteCount, 12_345..<(byteCount - 54_321)]
      let slots = try Slots(count: ranges.count, byteCount: byteCount)
      let engine = try makeReadEngine(kind: setup.kind, files: [file], arenas: [slots.arena])
      let ended = engine.read(ranges, of: file, into: slots)
      expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
    }

    @Test(arguments: EngineSetup.all)
    func severalFilesAreToldApart(_ setup: EngineSetup) throws {
      let randoms = try (1...3).map { try RandomFile(byteCount: 50_000, seed: $0) }
      let files = try randoms.map { try DataFile(path: $0.path, direct: setup.direct) }
      let slots = try Slots(count: 30, byteCount: 1_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: files, arenas: [slots.arena], queueDepth: 4)
      let range = 23_456..<24_456
      for slot in 0..<30 {
        engine.enqueue(
          ReadRequest(
            file: slot % 3, span: files[slot % 3].span(range),
            destination: slots.destination(slot), tag: UInt64(slot), priority: .demand))
      }
      #expect(engine.completions().compactMap(\.error) == [])
      for slot in 0..<30 {
        let random = randoms[slot % 3]
        #expect(slots.holds(random.bytes[range], slot: slot, span: files[slot % 3].span(range)))
      }
    }

    @Test(arguments: EngineSetup.all)
    func anEngineReadsAgainAndAgain(_ setup: EngineSetup) throws {
      let random = try RandomFile(byteCount: 300_000)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let slots = try Slots(count: 16, byteCount: 5_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: 4, capacity: 16)
      // As many as the capacity each time, so that queues and tables go round.
      for seed in 0..<50 {
        let ranges = randomRanges(16, byteCount: 300_000, largest: 5_000, seed: UInt64(seed))
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
      }
    }

    @Test(arguments: EngineSetup.all)
    func readsMayBeQueuedWhileOthersEnd(_ setup: EngineSetup) throws {
      let random = try RandomFile(byteCount: 300_000)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let ranges = randomRanges(200, byteCount: 300_000, largest: 5_000, seed: 9)
      let slots = try Slots(count: ranges.count, byteCount: 5_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: 3, capacity: 8)
      var ended: [ReadCompletion] = []
      var queued = 0
      while ended.count < ranges.count {
        while queued < ranges.count, engine.outstandingCount < 8 {
          engine.enqueue(
            ReadRequest(
              file: 0, span: file.span(ranges[queued]), destination: slots.destination(queued),
              tag: UInt64(queued), priority: queued.isMultiple(of: 2) ? .demand : .prefetch))
          queued += 1
        }
        engine.wait()
        engine.poll { ended.append($0) }
      }
      expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
    }

    @Test(arguments: EngineSetup.all)
    func destinationsNeedNotBeInAnArena(_ setup: EngineSetup) throws {
      let random = try RandomFile(byteCount: 100_000)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let ranges = randomRanges(40, byteCount: 100_000, largest: 9_000, seed: 5)
      let slots = try Slots(count: ranges.count, byteCount: 9_000)
      let others = try Slots(count: 2, byteCount: 9_000)
      for arenas in [[], [others.arena]] {
        let engine = try makeReadEngine(kind: setup.kind, files: [file], arenas: arenas)
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
      }
      #expect(others.holds([0xa5, 0xa5, 0xa5], slot: 0, span: file.span(0..<3)))
    }

    @Test(arguments: EngineSetup.all)
    func drainLeavesNothingOutstanding(_ setup: EngineSetup) throws {
      let random = try RandomFile(byteCount: 100_000)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let slots = try Slots(count: 50, byteCount: 1_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: 4)
      engine.drain()
      for slot in 0..<50 {
        engine.enqueue(
          ReadRequest(
            file: 0, span: file.span(slot * 7..<(slot * 7 + 1_000)),
            destination: slots.destination(slot), tag: 0, priority: .prefetch))
      }
      #expect(engine.outstandingCount == 50)
      engine.drain()
      #expect(engine.outstandingCount == 0)
      engine.poll { Issue.record("a read ended after the engine was drained: \($0)") }
      for slot in 0..<50 {
        let range = slot * 7..<(slot * 7 + 1_000)
        #expect(slots.holds(random.bytes[range], slot: slot, span: file.span(range)))
      }
    }

    @Test(arguments: EngineSetup.kinds)
    func waitingForNothingReturns(_ kind: ReadEngineKind) throws {
      let engine = try makeReadEngine(kind: kind, files: [], arenas: [])
      engine.wait()
      engine.poll { Issue.record("nothing was read, but \($0)") }
      engine.drain()
      #expect(engine.outstandingCount == 0)
    }

    @Test(arguments: EngineSetup.kinds)
    func moreReadsThanTheCapacityTrap(_ kind: ReadEngineKind) async {
      // Of both priorities, and never polled: no queue alone is too long.
      await #expect(processExitsWith: .failure) { [kind = kind as ReadEngineKind] in
        // The file's name is gone when this process ends without cleaning up.
        let file = try DataFile(path: RandomFile(byteCount: 10_000).path, direct: .off)
        let slots = try Slots(count: 1, byteCount: 10)
        let engine = try makeReadEngine(
          kind: kind, files: [file], arenas: [], queueDepth: 2, capacity: 4)
        for index in 0..<5 {
          engine.enqueue(
            ReadRequest(
              file: 0, span: file.span(0..<10), destination: slots.destination(0), tag: 0,
              priority: index < 3 ? .prefetch : .demand))
          engine.submit()
        }
      }
    }
  }
}

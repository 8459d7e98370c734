import Testing

@testable import DirectIO

extension IOTests {
  @Suite struct OrderTests {
    private func request(
      _ tag: Int, _ priority: ReadRequest.Priority, _ file: DataFile, _ slots: Slots
    ) -> ReadRequest {
      ReadRequest(
        file: 0, span: file.span(tag * 1_000..<(tag + 1) * 1_000),
        destination: slots.destination(tag), tag: UInt64(tag), priority: priority)
    }

    @Test func demandGoesFirstAndEachInItsOrder() throws {
      let random = try RandomFile(byteCount: 1)
      let file = try DataFile(path: random.path, direct: .off)
      let slots = try Slots(count: 8, byteCount: 1_000)
      var pending = PendingRequests(capacity: 4)
      var order: [UInt64] = []
      // Twice, so that the queues go round.
      for _ in 0..<2 {
        for tag in 0..<4 { pending.append(request(tag, .prefetch, file, slots)) }
        if let next = pending.popFirst() { order.append(next.tag) }
        for tag in 4..<8 { pending.append(request(tag, .demand, file, slots)) }
        let count = pending.count
        #expect(count == 7)
        while let next = pending.popFirst() { order.append(next.tag) }
      }
      #expect(order == [0, 4, 5, 6, 7, 1, 2, 3, 0, 4, 5, 6, 7, 1, 2, 3])
    }

    @Test(
      .enabled(if: EngineSetup.ringRefusal == nil, "this system refuses io_uring"),
      arguments: [DirectPolicy.auto, .off])
    func demandOvertakesPrefetchesNotYetSubmitted(_ direct: DirectPolicy) throws {
      let random = try RandomFile(byteCount: 10_000)
      let file = try DataFile(path: random.path, direct: direct)
      let slots = try Slots(count: 10, byteCount: 1_000)
      let engine = try makeReadEngine(
        kind: .uring, files: [file], arenas: [slots.arena], queueDepth: 1)
      for tag in 0..<6 { engine.enqueue(request(tag, .prefetch, file, slots)) }
      engine.submit()  // The first is on its way, and the depth is used up.
      for tag in 6..<8 { engine.enqueue(request(tag, .demand, file, slots)) }
      let ended = engine.completions()
      #expect(ended.map(\.tag) == [0, 6, 7, 1, 2, 3, 4, 5])
      #expect(ended.compactMap(\.error) == [])
    }

    @Test(.enabled(if: EngineSetup.ringRefusal == nil, "this system refuses io_uring"))
    func whatHasNotBegunIsPromotedOrCancelled() throws {
      let random = try RandomFile(byteCount: 10_000)
      let file = try DataFile(path: random.path, direct: .off)
      let slots = try Slots(count: 10, byteCount: 1_000)
      let engine = try makeReadEngine(
        kind: .uring, files: [file], arenas: [slots.arena], queueDepth: 1)
      for tag in 0..<7 { engine.enqueue(request(tag, .prefetch, file, slots)) }
      engine.submit()
      #expect(!engine.promote(tag: 0) && !engine.cancel(tag: 0), "it has begun")
      #expect(engine.promote(tag: 5))
      #expect(engine.cancel(tag: 1) && engine.cancel(tag: 6) && engine.cancel(tag: 3))
      #expect(!engine.cancel(tag: 3) && !engine.cancel(tag: 5) && !engine.promote(tag: 9))
      #expect(engine.outstandingCount == 4)
      #expect(engine.completions().map(\.tag) == [0, 5, 2, 4])
    }

    @Test func aThreadsPrefetchesAreCancelledToo() throws {
      let random = try RandomFile(byteCount: 300_000)
      let file = try DataFile(path: random.path, direct: .off)
      let slots = try Slots(count: 300, byteCount: 1_000)
      let engine = try makeReadEngine(
        kind: .pread, files: [file], arenas: [slots.arena], queueDepth: 1)
      for tag in 0..<300 { engine.enqueue(request(tag, .prefetch, file, slots)) }
      let cancelled = (0..<300).filter { engine.cancel(tag: UInt64($0)) }
      let ended = engine.completions().map { Int($0.tag) }
      #expect(Set(ended).isDisjoint(with: cancelled))
      #expect(ended.count + cancelled.count == 300)
    }

    /// Prefetches wait until the drive has little else to do, and then begin.
    @Test func prefetchesWaitForDemands() throws {
      let random = try RandomFile(byteCount: 8 << 20)
      let file = try DataFile(path: random.path, direct: .off)
      func large(_ tag: Int, _ priority: ReadRequest.Priority) -> ReadRequest {
        ReadRequest(
          file: 0, span: file.span(offset: UInt64(tag) << 20, byteCount: 1 << 20),
          destination: UnsafeMutableRawPointer(bitPattern: 4096)!, tag: UInt64(tag),
          priority: priority)
      }
      var pending = PendingRequests(capacity: 8)
      for tag in 0..<2 { pending.append(large(tag, .demand)) }
      for tag in 2..<8 { pending.append(large(tag, .prefetch)) }
      var begun: [ReadRequest] = []
      func beginAll() { while let next = pending.popFirst() { begun.append(next) } }
      beginAll()
      #expect(begun.map(\.tag) == [0, 1])
      pending.noteEnd(of: begun[0])
      beginAll()
      // One demand read is left, and four MiB of prefetches are let in.
      #expect(begun.map(\.tag) == [0, 1, 2, 3, 4, 5])
      pending.noteEnd(of: begun[1])
      beginAll()
      #expect(begun.count == 6)
      pending.noteEnd(of: begun[2])
      beginAll()
      #expect(begun.map(\.tag) == [0, 1, 2, 3, 4, 5, 6])
    }

    /// A reader thread may take a request as soon as it is queued, so that the order is not fixed;
    /// but last in, behind hundreds, a demand read ends last only if it overtakes nothing.
    @Test(arguments: [DirectPolicy.auto, .off])
    func demandOvertakesPrefetchesInThePool(_ direct: DirectPolicy) throws {
      let random = try RandomFile(byteCount: 300_000)
      let file = try DataFile(path: random.path, direct: direct)
      let slots = try Slots(count: 300, byteCount: 1_000)
      let engine = try makeReadEngine(
        kind: .pread, files: [file], arenas: [slots.arena], queueDepth: 1)
      // The thread may be ahead of this one by chance, but hardly each time.
      let overtakes = (0..<20).contains { _ in
        for tag in 0..<299 { engine.enqueue(request(tag, .prefetch, file, slots)) }
        engine.enqueue(request(299, .demand, file, slots))
        let ended = engine.completions()
        #expect(ended.compactMap(\.error) == [])
        #expect(ended.map(\.tag).filter { $0 != 299 } == (0..<299).map { UInt64($0) })
        return ended.last?.tag != 299
      }
      #expect(overtakes)
    }
  }
}

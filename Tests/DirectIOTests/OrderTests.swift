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

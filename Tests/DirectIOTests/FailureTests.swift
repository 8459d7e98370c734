import Glibc
import Synchronization
import Testing

@testable import DirectIO

extension IOTests {
  @Suite struct FailureTests {
    /// What a read finds of `range` in a file of `byteCount` bytes.
    private func truncation(
      _ file: DataFile, _ range: Range<Int>, byteCount: Int
    ) -> IOError? {
      guard range.upperBound > byteCount else { return nil }
      let span = file.span(range)
      return .unexpectedEndOfFile(
        path: file.path, offset: span.offset, expected: span.requiredByteCount,
        found: max(0, byteCount - Int(span.offset)))
    }

    /// At a block's border, within a block, and at nothing.
    @Test(arguments: EngineSetup.all, [65_536, 70_001, 0])
    func truncatedFilesEndUnexpectedly(_ setup: EngineSetup, _ byteCount: Int) throws {
      let random = try RandomFile(byteCount: 200_000)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let ranges =
        randomRanges(60, byteCount: 200_000, largest: 30_000, seed: 4) + [
          60_000..<90_000, 65_536..<65_537, 70_000..<70_001, 70_001..<70_002, 199_999..<200_000,
        ]
      let slots = try Slots(count: ranges.count, byteCount: 30_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: 4)
      try #require(truncate(random.path, off_t(byteCount)) == 0)
      let ended = engine.read(ranges, of: file, into: slots)
      #expect(ended.map(\.tag).sorted() == ranges.indices.map { UInt64($0) })
      for completion in ended {
        let slot = Int(completion.tag)
        let range = ranges[slot]
        #expect(completion.error == truncation(file, range, byteCount: byteCount), "\(range)")
        if completion.error == nil {
          #expect(slots.holds(random.bytes[range], slot: slot, span: file.span(range)))
        }
      }
      // The engine goes on: what came back is read like before.
      try #require(truncate(random.path, 200_000) == 0)
      let again = engine.read(ranges, of: file, into: slots)
      var bytes = random.bytes
      bytes.replaceSubrange(byteCount..., with: repeatElement(0, count: 200_000 - byteCount))
      expectRead(again, ranges, of: file, bytes: bytes, into: slots)
    }

    @Test func truncationIsDescribed() {
      let error = IOError.unexpectedEndOfFile(
        path: "model.gguf", offset: 4096, expected: 300, found: 12)
      #expect(
        error.description
          == "'model.gguf' ends early: expected 300 bytes at offset 4096, found 12; "
          + "was it truncated?")
    }

    /// Memory that may not be written stands for every error of the kernel's.
    @Test(arguments: EngineSetup.all)
    func errorsNameTheFileAndTheExtent(_ setup: EngineSetup) throws {
      let random = try RandomFile(byteCount: 100_000)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let slots = try Slots(count: 3, byteCount: 5_000)
      let engine = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [], queueDepth: 2)
      try #require(mprotect(slots.destination(1), slots.stride, PROT_NONE) == 0)
      let ranges = [5_000..<10_000, 20_000..<25_000, 95_000..<100_000]
      let ended = engine.read(ranges, of: file, into: slots)
      let span = file.span(ranges[1])
      let error = IOError.read(
        path: random.path, offset: span.offset, byteCount: span.byteCount, errno: EFAULT)
      #expect(ended.first { $0.tag == 1 }?.error == error)
      #expect(
        error.description
          == "reading \(span.byteCount) bytes at offset \(span.offset) of '\(random.path)' failed: "
          + "Bad address")
      #expect(ended.filter { $0.error == nil }.map(\.tag).sorted() == [0, 2])
      for slot in [0, 2] {
        #expect(slots.holds(random.bytes[ranges[slot]], slot: slot, span: file.span(ranges[slot])))
      }
      // The engine goes on.
      try #require(mprotect(slots.destination(1), slots.stride, PROT_READ | PROT_WRITE) == 0)
      let again = engine.read(ranges, of: file, into: slots)
      expectRead(again, ranges, of: file, bytes: random.bytes, into: slots)
    }

    @Test(arguments: EngineSetup.all, [true, false])
    func enginesThatGoWaitForTheirReads(_ setup: EngineSetup, _ isSubmitted: Bool) throws {
      let random = try RandomFile(byteCount: 1 << 20)
      let file = try DataFile(path: random.path, direct: setup.direct)
      let ranges = randomRanges(40, byteCount: 1 << 20, largest: 50_000, seed: 6)
      let slots = try Slots(count: ranges.count, byteCount: 50_000)
      var engine: (any ReadEngine)? = try makeReadEngine(
        kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: 8)
      for (slot, range) in ranges.enumerated() {
        engine?.enqueue(
          ReadRequest(
            file: 0, span: file.span(range), destination: slots.destination(slot),
            tag: UInt64(slot), priority: .prefetch))
      }
      if isSubmitted { engine?.submit() }
      engine = nil
      // Nothing writes to the slots from here on: whoever frees them is safe.
      for (slot, range) in ranges.enumerated() {
        #expect(slots.holds(random.bytes[range], slot: slot, span: file.span(range)))
      }
    }

    /// In a process of its own: a signal's handler is for all of it.
    @Test(arguments: EngineSetup.all)
    func signalsDoNotDisturb(_ setup: EngineSetup) async {
      await #expect(processExitsWith: .success) { [setup = setup as EngineSetup] in
        let random = try RandomFile(byteCount: 4 << 20)
        let file = try DataFile(path: random.path, direct: setup.direct)
        let slots = try Slots(count: 12, byteCount: 400_000)
        let engine = try makeReadEngine(
          kind: setup.kind, files: [file], arenas: [slots.arena], queueDepth: 4)
        try Hammer.start()
        var round = 0
        // Only an interrupted ring returns from waiting with nothing; reads that the page cache
        // answers are never waited for, and the pool's wait goes on by itself.
        var interruptionCount = 0
        let isInterruptible = setup.kind == .uring && file.isDirect
        // The first signal takes its time on a busy machine.
        func wantsMore() -> Bool {
          (isInterruptible && interruptionCount < 3) || Hammer.strikes.load(ordering: .relaxed) == 0
        }
        while round < 5 || (wantsMore() && round < 500) {
          let ranges = randomRanges(
            12, byteCount: 4 << 20, largest: 400_000, seed: UInt64(round))
          for (slot, range) in ranges.enumerated() {
            engine.enqueue(
              ReadRequest(
                file: 0, span: file.span(range), destination: slots.destination(slot),
                tag: UInt64(slot), priority: .demand))
          }
          var ended: [ReadCompletion] = []
          while engine.outstandingCount > 0 {
            engine.wait()
            let count = ended.count
            engine.poll { ended.append($0) }
            if ended.count == count { interruptionCount += 1 }
          }
          expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
          round += 1
        }
        #expect(Hammer.strikes.load(ordering: .relaxed) > 0)
        #expect(!isInterruptible || interruptionCount > 0, "no signal came while waiting")
        Hammer.stop()
      }
    }
  }
}

/// Interrupts the thread that starts it with a signal as fast as the system delivers them, and the
/// process with a timer's every millisecond.
private enum Hammer {
  /// Signals handled.
  static let strikes = Atomic<Int>(0)
  private static let isOn = Atomic<Bool>(false)

  static func start() throws {
    isOn.store(true, ordering: .relaxed)
    var action = sigaction()
    // Without SA_RESTART, so that interrupted calls return EINTR.
    action.__sigaction_handler.sa_handler = { _ in
      Hammer.strikes.wrappingAdd(1, ordering: .relaxed)
    }
    try #require(sigaction(SIGALRM, &action, nil) == 0)
    // The threads that run tests have signals blocked.
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGALRM)
    try #require(pthread_sigmask(SIG_UNBLOCK, &signals, nil) == 0)
    var timer = itimerval(
      it_interval: timeval(tv_sec: 0, tv_usec: 1000), it_value: timeval(tv_sec: 0, tv_usec: 1000))
    try #require(setitimer(__itimer_which_t(ITIMER_REAL.rawValue), &timer, nil) == 0)
    let target = UnsafeMutableRawPointer(bitPattern: UInt(pthread_self()))
    var thread = pthread_t()
    let code = pthread_create(
      &thread, nil,
      { target in
        let target = pthread_t(UInt(bitPattern: target))
        while Hammer.isOn.load(ordering: .relaxed) {
          pthread_kill(target, SIGALRM)
          usleep(100)
        }
        return nil
      }, target)
    try #require(code == 0)
  }

  static func stop() {
    isOn.store(false, ordering: .relaxed)
    var timer = itimerval()
    setitimer(__itimer_which_t(ITIMER_REAL.rawValue), &timer, nil)
  }
}

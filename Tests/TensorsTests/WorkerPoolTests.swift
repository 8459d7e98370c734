import Glibc
import Synchronization
import Testing

@testable import Tensors

/// A loop that counts how often each of its chunks was run, and by whom.
private final class CountingLoop {
  struct Arguments {
    let counts: UnsafeMutablePointer<Atomic<Int>>
    let workers: UnsafeMutablePointer<Atomic<Int>>
    let chunkCount: Int
    let threadCount: Int
    /// Busy work per chunk, so that the caller does not take them all.
    let spinCount: Int
    let strays: UnsafeMutablePointer<Atomic<Int>>
  }

  private let capacity: Int
  private let counts: UnsafeMutablePointer<Atomic<Int>>
  private let workers: UnsafeMutablePointer<Atomic<Int>>
  private let strays: UnsafeMutablePointer<Atomic<Int>>

  init(capacity: Int) {
    self.capacity = capacity
    counts = Self.zeros(capacity)
    workers = Self.zeros(64)
    strays = Self.zeros(1)
  }

  private static func zeros(_ count: Int) -> UnsafeMutablePointer<Atomic<Int>> {
    let atomics = UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: max(count, 1))
    for i in 0..<count { (atomics + i).initialize(to: Atomic(0)) }
    return atomics
  }

  deinit {
    counts.deallocate()
    workers.deallocate()
    strays.deallocate()
  }

  func run(on pool: WorkerPool, chunkCount: Int, spinCount: Int = 0) {
    var arguments = Arguments(
      counts: counts, workers: workers, chunkCount: chunkCount, threadCount: pool.threadCount,
      spinCount: spinCount, strays: strays)
    withUnsafePointer(to: &arguments) {
      pool.run(chunkCount: chunkCount, arguments: $0) { pointer, chunk, worker in
        let loop = pointer.assumingMemoryBound(to: Arguments.self).pointee
        guard 0..<loop.chunkCount ~= chunk, 0..<loop.threadCount ~= worker else {
          loop.strays.pointee.wrappingAdd(1, ordering: .relaxed)
          return
        }
        var spin = 0
        while spin < loop.spinCount { spin += 1 }
        loop.counts[chunk].wrappingAdd(1, ordering: .relaxed)
        loop.workers[worker].wrappingAdd(1, ordering: .relaxed)
      }
    }
  }

  /// The chunks below `chunkCount` that have not been run `times` times, and the strays.
  func wrongChunks(chunkCount: Int, times: Int) -> Int {
    (0..<capacity).count {
      counts[$0].load(ordering: .relaxed) != ($0 < chunkCount ? times : 0)
    } + strays.pointee.load(ordering: .relaxed)
  }

  func chunkCount(ofWorker worker: Int) -> Int { workers[worker].load(ordering: .relaxed) }
}

@Suite(.serialized) struct WorkerPoolTests {
  @Test(arguments: [1, 2, 3, 8], [0, 1, 2, 7, 1000])
  func everyChunkIsRunExactlyOnce(_ threadCount: Int, _ chunkCount: Int) throws {
    let pool = try WorkerPool(threadCount: threadCount)
    #expect(pool.threadCount == threadCount)
    let loop = CountingLoop(capacity: 1024)
    for times in 1...20 {
      loop.run(on: pool, chunkCount: chunkCount)
      // Everything is done when the call returns, not a little later.
      try #require(loop.wrongChunks(chunkCount: chunkCount, times: times) == 0)
    }
  }

  @Test(arguments: [2, 3, 8])
  func thousandsOfLoopsInARowLoseNoChunk(_ threadCount: Int) throws {
    let pool = try WorkerPool(threadCount: threadCount)
    let loop = CountingLoop(capacity: 8)
    for times in 1...4000 {
      loop.run(on: pool, chunkCount: 7)
      try #require(loop.wrongChunks(chunkCount: 7, times: times) == 0)
    }
  }

  @Test(arguments: [2, 3, 8])
  func sleepingWorkersWake(_ threadCount: Int) throws {
    let pool = try WorkerPool(threadCount: threadCount)
    let loop = CountingLoop(capacity: 64)
    for times in 1...200 {
      // From well within the time that workers spin to well after it.
      usleep(UInt32(times * 37 % 2000))
      loop.run(on: pool, chunkCount: 64, spinCount: 500)
      try #require(loop.wrongChunks(chunkCount: 64, times: times) == 0)
    }
    // A pool whose workers never wake computes everything on the caller, however often it is asked; on
    // a busy machine one that does may come late for many loops.
    func chunksOfOthers() -> Int {
      (1..<threadCount).reduce(0) { $0 + loop.chunkCount(ofWorker: $1) }
    }
    for _ in 0..<20_000 where chunksOfOthers() == 0 {
      loop.run(on: pool, chunkCount: 64, spinCount: 500)
    }
    #expect(chunksOfOthers() > 0)
  }

  @Test func theCallerAloneRunsLoopsThatNeedNoHelp() throws {
    let loop = CountingLoop(capacity: 16)
    loop.run(on: try WorkerPool(threadCount: 1), chunkCount: 16)
    loop.run(on: try WorkerPool(threadCount: 4), chunkCount: 1)
    #expect(loop.chunkCount(ofWorker: 0) == 17)
  }

  /// Whether this process gets to have `count` worker threads within some seconds: one that has
  /// just started has no name yet, and one that was joined leaves the list a little later.
  private func reachesWorkerThreadCount(_ count: Int) throws -> Bool {
    for _ in 0..<5000 {
      if try workerThreadCount() == count { return true }
      usleep(1000)
    }
    return false
  }

  /// The worker threads of this process, by the kernel's list.
  private func workerThreadCount() throws -> Int {
    let folder = try #require(opendir("/proc/self/task"))
    defer { closedir(folder) }
    var count = 0
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      let descriptor = open("/proc/self/task/\(name)/comm", O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else { continue }
      defer { close(descriptor) }
      var bytes = [UInt8](repeating: 0, count: 32)
      let byteCount = read(descriptor, &bytes, 32)
      if byteCount > 0, String(decoding: bytes[..<byteCount], as: UTF8.self) == "stoker-worker\n" {
        count += 1
      }
    }
    return count
  }

  @Test func aPoolTakesItsThreadsWithIt() async throws {
    // In a process of its own: other suites have pools too.
    await #expect(processExitsWith: .success) {
      let suite = WorkerPoolTests()
      for round in 0..<50 {
        do {
          let pool = try WorkerPool(threadCount: 5)
          let loop = CountingLoop(capacity: 100)
          // Some pools go without having run, some while workers spin, some while they sleep.
          if round % 3 > 0 { loop.run(on: pool, chunkCount: 100, spinCount: 1000) }
          if round % 3 > 1 {
            usleep(1000)
            try #require(try suite.reachesWorkerThreadCount(4))
          }
        }
        try #require(try suite.reachesWorkerThreadCount(0))
      }
    }
  }

  @Test func twoPoolsWorkAtOnce() async throws {
    try await withThrowingTaskGroup { group in
      for threadCount in [2, 3] {
        group.addTask {
          let pool = try WorkerPool(threadCount: threadCount)
          let loop = CountingLoop(capacity: 32)
          for times in 1...1000 {
            loop.run(on: pool, chunkCount: 20 + threadCount)
            try #require(loop.wrongChunks(chunkCount: 20 + threadCount, times: times) == 0)
          }
        }
      }
      try await group.waitForAll()
    }
  }

  @Test func countsTheTimeInsideItsLoops() throws {
    let pool = try WorkerPool(threadCount: 2)
    #expect(pool.nanoseconds == 0)
    CountingLoop(capacity: 8).run(on: pool, chunkCount: 8, spinCount: 1000)
    #expect(pool.nanoseconds > 0)
  }

  @Test func aThreadCountOutOfRangeTraps() async {
    await #expect(processExitsWith: .failure) { _ = try WorkerPool(threadCount: 0) }
    await #expect(processExitsWith: .failure) { _ = try WorkerPool(threadCount: 1025) }
  }

  @Test func aRefusedThreadIsExplained() {
    #expect(
      WorkerPoolError.threadRefused(errno: EAGAIN, started: 2, wanted: 7).description
        == "the system refused worker thread 3 of 7 (Resource temporarily unavailable); "
        + "lower --threads")
  }

  @Test func theProcessMayRunSomewhere() {
    #expect(affinityProcessorCount() >= 1)
    let before = monotonicNanoseconds()
    #expect(monotonicNanoseconds() >= before)
  }
}

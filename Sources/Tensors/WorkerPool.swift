internal import CLinux
internal import Glibc
internal import Synchronization

/// A fixed set of threads that share loops with the thread that owns the pool.
///
/// `run` hands out the chunks of a loop by an atomic counter and returns when all are done. Threads
/// wait for the next loop by spinning for a bounded time, then on a futex. Nothing on this path
/// allocates or takes a lock. Which thread computes which chunk varies from run to run; results
/// must not depend on it, so a chunk owns its outputs and sums in its own fixed order.
///
/// One thread at a time may call `run`: the one that decodes.
package final class WorkerPool: @unchecked Sendable {
  /// The body of a loop: a pointer to the caller's arguments, the chunk, the worker that runs it
  /// (0 is the caller; below `threadCount`).
  package typealias Body = @convention(c) (UnsafeRawPointer, Int, Int) -> Void

  /// Threads that compute, the caller included.
  package let threadCount: Int
  /// Time spent inside `run`, in nanoseconds, as the caller saw it.
  package private(set) var nanoseconds: UInt64 = 0

  private let shared: Shared
  private var threads: [pthread_t] = []

  /// Starts `threadCount - 1` threads.
  /// - Throws: `WorkerPoolError` when the system refuses a thread.
  package init(threadCount: Int) throws(WorkerPoolError) {
    precondition((1...1024).contains(threadCount), "thread count out of range")
    self.threadCount = threadCount
    shared = Shared()
    for index in 1..<threadCount {
      var thread = pthread_t()
      let box = Unmanaged.passRetained(Entry(shared: shared, worker: index))
      let code = pthread_create(&thread, nil, workerMain, box.toOpaque())
      guard code == 0 else {
        box.release()
        stop()
        throw .threadRefused(errno: code, started: index - 1, wanted: threadCount - 1)
      }
      threads.append(thread)
    }
  }

  deinit { stop() }

  private func stop() {
    shared.quit.store(true, ordering: .releasing)
    shared.wake()
    for thread in threads { pthread_join(thread, nil) }
    threads = []
  }

  /// Whether more loops are to come, after a while for which something else is waited for or done: threads
  /// stay awake for them.
  package var expectsLoops: Bool {
    get { shared.expectsLoops.load(ordering: .relaxed) }
    set { shared.expectsLoops.store(newValue, ordering: .relaxed) }
  }

  /// Runs `body` for every chunk in 0..<chunkCount on all threads; returns when all have finished.
  ///
  /// `arguments` must outlive the call, which it does when it points to a caller's local.
  package func run(chunkCount: Int, arguments: UnsafeRawPointer, body: Body) {
    let start = monotonicNanoseconds()
    if threadCount == 1 || chunkCount < 2 {
      for chunk in 0..<chunkCount { body(arguments, chunk, 0) }
    } else {
      shared.open(chunkCount: chunkCount, arguments: arguments, body: body)
      shared.takeChunks(worker: 0)
      shared.close()
    }
    nanoseconds += monotonicNanoseconds() - start
  }

  /// Runs one chunk per worker-sized piece of `work`, a value whose `perform` is called with the
  /// chunk and the worker.
  package func run<Work: ParallelWork>(_ work: Work, chunkCount: Int) {
    withUnsafePointer(to: work) { pointer in
      run(chunkCount: chunkCount, arguments: UnsafeRawPointer(pointer), body: Work.body)
    }
  }
}

/// Arguments of a parallel loop, with its body.
package protocol ParallelWork {
  /// Calls `perform` on the value behind the pointer. A stored C function, because a closure made
  /// per loop would allocate.
  static var body: WorkerPool.Body { get }
}

/// Why a pool could not start.
package enum WorkerPoolError: Error, Hashable, Sendable, CustomStringConvertible {
  case threadRefused(errno: Int32, started: Int, wanted: Int)

  package var description: String {
    switch self {
    case .threadRefused(let code, let started, let wanted):
      """
      the system refused worker thread \(started + 1) of \(wanted) \
      (\(String(cString: strerror(code)))); lower --threads
      """
    }
  }
}

/// The time since an arbitrary start, in nanoseconds, never running backwards.
package func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

/// The processors the calling thread may run on; 0 if the kernel does not say.
package func affinityProcessorCount() -> Int { Int(clinux_affinity_count()) }

private final class Entry {
  let shared: Shared
  let worker: Int
  init(shared: Shared, worker: Int) {
    self.shared = shared
    self.worker = worker
  }
}

private func workerMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  let entry = Unmanaged<Entry>.fromOpaque(argument!).takeRetainedValue()
  clinux_set_thread_name("stoker-worker")
  entry.shared.serve(worker: entry.worker)
  return nil
}

/// The state a pool's threads share.
///
/// `gate` holds the loop's generation (high 32 bits), whether it is open, and how many workers are
/// inside. A worker enters only an open loop, so the caller waits for those who came, not for
/// those still asleep; the plain fields are written only while the gate is closed and empty.
private final class Shared: @unchecked Sendable {
  private static let openBit: UInt64 = 1 << 31
  private static let insideMask: UInt64 = (1 << 31) - 1
  /// Looks at a word, some 50 microseconds: longer than the gap between two loops of a token. After these a
  /// thread without a loop sleeps, and a caller gives up its core to a thread that has lost its own within
  /// a loop.
  private static let patience = 1500
  /// How long a thread spins where more loops are expected: longer than reading what a layer misses takes, as
  /// drives that are asked for all of it at once give all of it at the end. To be woken takes a thread of a
  /// virtual machine longer than multiplying a matrix.
  private static let longPatienceNanoseconds: UInt64 = 10_000_000

  let quit = Atomic<Bool>(false)
  let expectsLoops = Atomic<Bool>(false)
  private let gate = Atomic<UInt64>(0)
  private let nextChunk = Atomic<Int>(0)
  private let sleeping = Atomic<Int>(0)
  /// The futex word: the low half of the generation.
  private let bell: UnsafeMutablePointer<Atomic<UInt32>>
  private var chunkCount = 0
  private var arguments: UnsafeRawPointer?
  private var body: WorkerPool.Body?

  init() {
    bell = .allocate(capacity: 1)
    bell.initialize(to: Atomic(0))
  }

  deinit {
    bell.deinitialize(count: 1)
    bell.deallocate()
  }

  func open(chunkCount: Int, arguments: UnsafeRawPointer, body: WorkerPool.Body) {
    self.chunkCount = chunkCount
    self.arguments = arguments
    self.body = body
    nextChunk.store(0, ordering: .relaxed)
    let generation = (gate.load(ordering: .relaxed) >> 32) &+ 1
    gate.store(generation << 32 | Self.openBit, ordering: .sequentiallyConsistent)
    wake()
  }

  func wake() {
    bell.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    if sleeping.load(ordering: .sequentiallyConsistent) > 0 {
      clinux_futex_wake(UnsafeMutableRawPointer(bell).assumingMemoryBound(to: UInt32.self), .max)
    }
  }

  func takeChunks(worker: Int) {
    guard let body, let arguments else { return }
    let count = chunkCount
    while true {
      let chunk = nextChunk.wrappingAdd(1, ordering: .relaxed).oldValue
      guard chunk < count else { return }
      body(arguments, chunk, worker)
    }
  }

  /// Lets nobody else in and waits until all who came have left.
  func close() {
    gate.bitwiseAnd(~Self.openBit, ordering: .acquiringAndReleasing)
    var spins = 0
    while gate.load(ordering: .acquiring) & Self.insideMask != 0 {
      clinux_cpu_relax()
      spins += 1
      if spins > Self.patience { sched_yield() }
    }
  }

  func serve(worker: Int) {
    var served: UInt64 = 0
    while true {
      let rung = bell.pointee.load(ordering: .sequentiallyConsistent)
      if quit.load(ordering: .acquiring) { return }
      if let generation = enter(after: served) {
        takeChunks(worker: worker)
        gate.wrappingSubtract(1, ordering: .releasing)
        served = generation
        continue
      }
      waitForBell(rung)
    }
  }

  /// Enters the open loop, if there is one newer than `served`.
  private func enter(after served: UInt64) -> UInt64? {
    var state = gate.load(ordering: .acquiring)
    while state & Self.openBit != 0, state >> 32 != served {
      let (exchanged, original) = gate.compareExchange(
        expected: state, desired: state + 1, ordering: .acquiringAndReleasing)
      if exchanged { return state >> 32 }
      state = original
    }
    return nil
  }

  private func waitForBell(_ rung: UInt32) {
    let start = monotonicNanoseconds()
    repeat {
      for _ in 0..<Self.patience {
        if bell.pointee.load(ordering: .relaxed) != rung { return }
        clinux_cpu_relax()
      }
    } while expectsLoops.load(ordering: .relaxed)
      && monotonicNanoseconds() - start < Self.longPatienceNanoseconds
    sleeping.wrappingAdd(1, ordering: .sequentiallyConsistent)
    clinux_futex_wait(UnsafeMutableRawPointer(bell).assumingMemoryBound(to: UInt32.self), rung)
    sleeping.wrappingSubtract(1, ordering: .sequentiallyConsistent)
  }
}

internal import CLinux
internal import Glibc
internal import Synchronization

/// Reads with a pool of threads that call pread(2): for kernels without io_uring.
final class PreadReadEngine: ReadEngine {
  let name = "pread"
  let registeredBuffers = false
  let registeredFiles = false
  let fallbacks: [String]
  private(set) var outstandingCount = 0
  private let capacity: Int
  private let shared: PreadQueue
  private var threads: [pthread_t] = []

  init(
    files: [DataFile], threadCount: Int, capacity: Int, fallbacks: [String]
  ) throws(IOError) {
    self.fallbacks = fallbacks
    self.capacity = capacity
    shared = PreadQueue(files: files, capacity: capacity)
    for _ in 0..<threadCount {
      var thread = pthread_t()
      let box = Unmanaged.passRetained(shared)
      let code = pthread_create(&thread, nil, readerMain, box.toOpaque())
      guard code == 0 else {
        box.release()
        stop()
        throw .threadRefused(errno: code)
      }
      threads.append(thread)
    }
  }

  deinit {
    drain()
    stop()
  }

  private func stop() {
    shared.quit()
    for thread in threads { pthread_join(thread, nil) }
    threads = []
  }

  func enqueue(_ request: ReadRequest) {
    precondition(
      outstandingCount < capacity, "more reads are queued than the engine was made for")
    shared.append(request)
    outstandingCount += 1
  }

  /// Its reads go wherever they are told to.
  func replaceArenas(_ arenas: [Arena]) {
    precondition(outstandingCount == 0, "arenas are replaced under reads")
  }

  func submit() { shared.wakeReaders() }

  func promote(tag: UInt64) -> Bool { shared.promote(tag: tag) }

  func cancel(tag: UInt64) -> Bool {
    guard shared.cancel(tag: tag) else { return false }
    outstandingCount -= 1
    return true
  }

  func poll(_ body: (ReadCompletion) -> Void) {
    while let completion = shared.takeCompletion() {
      outstandingCount -= 1
      body(completion)
    }
  }

  func wait() {
    submit()
    if outstandingCount > 0 { shared.waitForCompletion() }
  }
}

private func readerMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  clinux_set_thread_name("stoker-reader")
  Unmanaged<PreadQueue>.fromOpaque(argument!).takeRetainedValue().serve()
  return nil
}

/// What the engine and its threads share. Everything but `endedCount` is under `mutex`.
private final class PreadQueue: @unchecked Sendable {
  private let files: [DataFile]
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let workArrived: UnsafeMutablePointer<pthread_cond_t>
  private let readEnded: UnsafeMutablePointer<pthread_cond_t>
  private var pending: PendingRequests
  private let ended: UnsafeMutablePointer<ReadCompletion>
  private let capacity: Int
  private var endedHead = 0
  private var isQuitting = false
  /// Completions not yet taken: read without the mutex, so that polling in vain is one load.
  private let endedCount = Atomic<Int>(0)

  init(files: [DataFile], capacity: Int) {
    self.files = files
    self.capacity = capacity
    pending = PendingRequests(capacity: capacity)
    ended = .allocate(capacity: capacity)
    mutex = .allocate(capacity: 1)
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
    workArrived = .allocate(capacity: 1)
    workArrived.initialize(to: pthread_cond_t())
    pthread_cond_init(workArrived, nil)
    readEnded = .allocate(capacity: 1)
    readEnded.initialize(to: pthread_cond_t())
    pthread_cond_init(readEnded, nil)
  }

  deinit {
    pthread_cond_destroy(readEnded)
    readEnded.deallocate()
    pthread_cond_destroy(workArrived)
    workArrived.deallocate()
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
    ended.deallocate()
  }

  private func locked<Result>(_ body: () -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return body()
  }

  func append(_ request: ReadRequest) { locked { pending.append(request) } }

  func promote(tag: UInt64) -> Bool { locked { pending.promote(tag: tag) } }

  func cancel(tag: UInt64) -> Bool { locked { pending.cancel(tag: tag) } }

  func wakeReaders() { _ = locked { pthread_cond_broadcast(workArrived) } }

  func quit() {
    locked {
      isQuitting = true
      pthread_cond_broadcast(workArrived)
    }
  }

  func takeCompletion() -> ReadCompletion? {
    guard endedCount.load(ordering: .acquiring) > 0 else { return nil }
    return locked {
      let completion = (ended + endedHead).move()
      endedHead = (endedHead + 1) % capacity
      endedCount.wrappingSubtract(1, ordering: .relaxed)
      return completion
    }
  }

  func waitForCompletion() {
    locked {
      while endedCount.load(ordering: .relaxed) == 0 { pthread_cond_wait(readEnded, mutex) }
    }
  }

  /// A reader thread: one read after the other, demand first.
  func serve() {
    while let request = nextRequest() {
      let error = read(request)
      locked {
        pending.noteEnd(of: request)
        let place = (endedHead + endedCount.load(ordering: .relaxed)) % capacity
        (ended + place).initialize(to: ReadCompletion(tag: request.tag, error: error))
        endedCount.wrappingAdd(1, ordering: .releasing)
        pthread_cond_signal(readEnded)
      }
    }
  }

  private func nextRequest() -> ReadRequest? {
    locked {
      while true {
        if isQuitting { return nil }
        if let request = pending.popFirst() { return request }
        pthread_cond_wait(workArrived, mutex)
      }
    }
  }

  private func read(_ request: ReadRequest) -> IOError? {
    var progress = Progress(request: request)
    return progress.finish(from: files[request.file])
  }
}

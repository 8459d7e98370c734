internal import Glibc

/// Which read engine to use.
public enum ReadEngineKind: String, Sendable, Codable, CaseIterable {
  /// io_uring where the kernel allows it, else pread, with a note.
  case auto
  case uring
  case pread
}

/// One read, straight into its destination.
package struct ReadRequest {
  /// What waits for what: a demand read goes ahead of every prefetch not yet submitted, of which only
  /// a few are under way at a time.
  package enum Priority: Sendable { case demand, prefetch }

  let file: Int
  let span: AlignedSpan
  /// Room for `span.byteCount` bytes, aligned to the file's alignment. It belongs to the engine
  /// until the completion with this tag has been polled.
  let destination: UnsafeMutableRawPointer
  let tag: UInt64
  let priority: Priority

  /// - Parameters:
  ///   - file: the index of the file among the engine's.
  ///   - tag: comes back with the completion.
  package init(
    file: Int, span: AlignedSpan, destination: UnsafeMutableRawPointer, tag: UInt64,
    priority: Priority
  ) {
    self.file = file
    self.span = span
    self.destination = destination
    self.tag = tag
    self.priority = priority
  }

  /// The same read, waited for.
  var demanded: ReadRequest {
    ReadRequest(file: file, span: span, destination: destination, tag: tag, priority: .demand)
  }
}

/// The end of one read.
package struct ReadCompletion {
  package let tag: UInt64
  /// Why it failed; nil if every wanted byte is there.
  package let error: IOError?
}

/// Reads many extents at once, for one thread: the one that computes.
///
/// Requests are queued without a system call, submitted together, and harvested without one where
/// possible. Nothing is allocated after the engine has been made. The destination memory and the
/// engine must outlive the reads: `drain` before letting go of either.
package protocol ReadEngine: AnyObject {
  /// "io_uring" or "pread".
  var name: String { get }
  /// Whether the arenas are registered with the kernel, so that reads need not pin their pages.
  var registeredBuffers: Bool { get }
  /// Whether the files are registered with the kernel.
  var registeredFiles: Bool { get }
  /// What the engine had to do without, and why, each once.
  var fallbacks: [String] { get }
  /// Reads whose completion has not been polled, submitted or not.
  var outstandingCount: Int { get }

  /// Queues a read. Queuing more than the engine's capacity is a programming error.
  func enqueue(_ request: ReadRequest)
  /// Hands queued reads to the kernel, demand first, as many as the depth allows.
  func submit()
  /// Makes a demand read of the prefetch with `tag`, if it has not been submitted.
  /// - Returns: whether it had not.
  func promote(tag: UInt64) -> Bool
  /// Forgets the prefetch with `tag`, if it has not been submitted; it will not be polled then.
  /// - Returns: whether it had not.
  func cancel(tag: UInt64) -> Bool
  /// Calls `body` with every read that has ended, and submits queued reads into the room they left.
  func poll(_ body: (ReadCompletion) -> Void)
  /// Lets go of the arenas it was made with and registers others. Nothing may be outstanding.
  func replaceArenas(_ arenas: [Arena])
  /// Sleeps until a read has ended; returns at once if none is outstanding.
  func wait()
}

extension ReadEngine {
  /// Waits for every outstanding read, whatever its outcome.
  package func drain() {
    submit()
    while outstandingCount > 0 {
      wait()
      poll { _ in }
    }
  }
}

/// Makes a read engine.
///
/// - Parameters:
///   - files: what requests index; where bytes of any are provided, threads read all, whatever `kind` is.
///   - arenas: memory to register with the kernel; destinations elsewhere work too.
///   - queueDepth: reads in flight at a time.
///   - capacity: reads outstanding at a time.
/// - Throws: `IOError.ringRefused` if io_uring was asked for and is refused,
///   `IOError.threadRefused`.
package func makeReadEngine(
  kind: ReadEngineKind, files: [DataFile], arenas: [Arena], queueDepth: Int = 32,
  capacity: Int = 1024
) throws(IOError) -> any ReadEngine {
  var fallbacks: [String] = []
  // The kernel knows nothing of bytes that are provided.
  if let provided = files.first(where: \.isProvided) {
    guard kind != .uring else {
      throw .ringRefused(
        errno: ENOTSUP, cause: "as '\(provided.path)' is not read as it lies")
    }
  } else if kind != .pread {
    do throws(IOError) {
      return try UringReadEngine(
        files: files, arenas: arenas, queueDepth: queueDepth, capacity: capacity)
    } catch {
      guard kind == .auto, case .ringRefused(let code, let cause) = error else { throw error }
      fallbacks.append("experts are read with pread: io_uring refused (\(text(code))), \(cause)")
    }
  }
  return try PreadReadEngine(
    files: files, threadCount: min(queueDepth, readerThreadCount), capacity: capacity,
    fallbacks: fallbacks)
}

/// The most threads that read at a time where io_uring does not.
package let readerThreadCount = 8

/// A first-in, first-out queue of fixed capacity.
struct RequestQueue: ~Copyable {
  private let storage: UnsafeMutablePointer<ReadRequest>
  private let capacity: Int
  private var head = 0
  private(set) var count = 0

  init(capacity: Int) {
    self.capacity = capacity
    storage = .allocate(capacity: capacity)
  }

  deinit { storage.deallocate() }

  mutating func append(_ request: ReadRequest) {
    precondition(count < capacity, "more reads are queued than the engine was made for")
    (storage + (head + count) % capacity).initialize(to: request)
    count += 1
  }

  /// The request that is next.
  var first: ReadRequest? { count > 0 ? storage[head] : nil }

  mutating func popFirst() -> ReadRequest? {
    guard count > 0 else { return nil }
    let request = storage[head]
    head = (head + 1) % capacity
    count -= 1
    return request
  }

  /// Takes the request with `tag` out of the middle.
  mutating func remove(tag: UInt64) -> ReadRequest? {
    guard let place = (0..<count).first(where: { storage[(head + $0) % capacity].tag == tag })
    else { return nil }
    let request = storage[(head + place) % capacity]
    for next in place + 1..<max(count, place + 1) {
      storage[(head + next - 1) % capacity] = storage[(head + next) % capacity]
    }
    count -= 1
    return request
  }
}

/// Demand and prefetch reads that wait to be submitted.
struct PendingRequests: ~Copyable {
  /// The bytes of prefetches under way at a time: enough to keep a drive busy, few enough that a demand
  /// read soon has it to itself.
  private static let prefetchByteCount = 4 << 20
  /// The bytes of demand reads under way while which prefetches may begin: the drive is not to fall idle
  /// between the last of these reads and the first prefetch.
  private static let demandByteCount = 5 << 18

  private var demand: RequestQueue
  private var prefetch: RequestQueue
  /// Bytes under way.
  private var demanded = 0
  private var prefetched = 0

  init(capacity: Int) {
    demand = RequestQueue(capacity: capacity)
    prefetch = RequestQueue(capacity: capacity)
  }

  var count: Int { demand.count + prefetch.count }

  mutating func append(_ request: ReadRequest) {
    switch request.priority {
    case .demand: demand.append(request)
    case .prefetch: prefetch.append(request)
    }
  }

  /// The next request to submit, if one may be now.
  mutating func popFirst() -> ReadRequest? {
    if let request = demand.popFirst() {
      demanded += request.span.byteCount
      return request
    }
    guard demanded <= Self.demandByteCount, let next = prefetch.first,
      prefetched == 0 || prefetched + next.span.byteCount <= Self.prefetchByteCount
    else { return nil }
    prefetched += next.span.byteCount
    return prefetch.popFirst()
  }

  /// Takes note that `request`, which was submitted, has ended.
  mutating func noteEnd(of request: ReadRequest) {
    switch request.priority {
    case .demand: demanded -= request.span.byteCount
    case .prefetch: prefetched -= request.span.byteCount
    }
  }

  mutating func promote(tag: UInt64) -> Bool {
    guard let request = prefetch.remove(tag: tag) else { return false }
    demand.append(request.demanded)
    return true
  }

  mutating func cancel(tag: UInt64) -> Bool { prefetch.remove(tag: tag) != nil }
}

/// A read under way, and how far it has come.
struct Progress {
  let request: ReadRequest
  var byteCount = 0

  /// What the end of one system call means for the read.
  enum Outcome {
    case finished(IOError?)
    /// Ask again for the rest.
    case again
  }

  /// Takes note of a system call that returned `result`: bytes read, or -errno.
  mutating func note(_ result: Int, file: DataFile) -> Outcome {
    if result < 0 {
      if result == -Int(EINTR) || result == -Int(EAGAIN) { return .again }
      return .finished(
        .read(
          path: file.path, offset: request.span.offset, byteCount: request.span.byteCount,
          errno: Int32(-result)))
    }
    byteCount += result
    if byteCount >= request.span.requiredByteCount { return .finished(nil) }
    // A direct read can only go on from a whole block; short of one, and at nothing, it is the end.
    let whole = byteCount / file.alignment * file.alignment
    guard result > 0, whole == byteCount else {
      return .finished(
        .unexpectedEndOfFile(
          path: file.path, offset: request.span.offset,
          expected: request.span.requiredByteCount, found: byteCount))
    }
    return .again
  }

  /// Reads what is left, waiting for it.
  mutating func finish(from file: DataFile) -> IOError? {
    if file.isProvided {
      return file.provide(
        .init(start: destination, count: request.span.byteCount), from: request.span.offset)
    }
    while true {
      let count = pread(file.descriptor, destination, remaining, off_t(offset))
      switch note(count < 0 ? -Int(errno) : count, file: file) {
      case .finished(let error): return error
      case .again: continue
      }
    }
  }

  /// Where the next system call reads to, from where, and how much.
  var destination: UnsafeMutableRawPointer { request.destination + byteCount }
  var offset: UInt64 { request.span.offset + UInt64(byteCount) }
  /// Linux reads at most 0x7ffff000 bytes at a time.
  var remaining: Int { min(request.span.byteCount - byteCount, 1 << 30) }
}

internal import CLiburing
internal import Glibc

/// Reads through io_uring.
///
/// A read's user data is its index in a table of `queueDepth` entries, allocated once. Completions
/// are looked for in the ring's shared memory; the kernel is entered to submit, and to sleep.
final class UringReadEngine: ReadEngine {
  /// The kernel registers at most 1 GiB as one buffer.
  private static let bufferByteCount = 1 << 30

  let name = "io_uring"
  private(set) var registeredBuffers = false
  private(set) var registeredFiles = false
  private(set) var fallbacks: [String] = []

  private let ring: UnsafeMutablePointer<io_uring>
  private let files: [DataFile]
  /// Kept because the kernel holds their pages while they are registered.
  private var arenas: [Arena]
  /// The registered buffer each arena begins with.
  private var firstBuffers: [Int] = []
  private let flights: UnsafeMutablePointer<Progress>
  private var freeFlights: [Int]
  private let queueDepth: Int
  private let capacity: Int
  private var pending: PendingRequests

  init(
    files: [DataFile], arenas: [Arena], queueDepth: Int, capacity: Int
  ) throws(IOError) {
    let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
    ring.initialize(to: io_uring())
    let code = io_uring_queue_init(UInt32(queueDepth), ring, 0)
    guard code == 0 else {
      ring.deallocate()
      throw .ringRefused(errno: -code, cause: Self.cause(of: -code))
    }
    self.ring = ring
    self.files = files
    self.arenas = arenas
    self.queueDepth = queueDepth
    self.capacity = capacity
    flights = .allocate(capacity: queueDepth)
    freeFlights = Array(0..<queueDepth)
    pending = PendingRequests(capacity: capacity)
    registerFiles()
    registerBuffers()
  }

  deinit {
    drain()
    io_uring_queue_exit(ring)
    ring.deallocate()
    flights.deallocate()
  }

  /// The likely cause of a refused ring, and what to do about it.
  private static func cause(of code: Int32) -> String {
    switch code {
    case EPERM:
      "sysctl kernel.io_uring_disabled or a seccomp filter forbids it"
    case ENOSYS:
      "the kernel or the container lacks it"
    case ENOMEM:
      "the limit on locked memory is too low (ulimit -l)"
    default:
      "the kernel gave no further cause"
    }
  }

  private func registerFiles() {
    let descriptors = files.map(\.descriptor)
    let code = io_uring_register_files(ring, descriptors, UInt32(descriptors.count))
    registeredFiles = code == 0
    if code != 0 { fallbacks.append("files are not registered with io_uring: \(text(-code))") }
  }

  private func registerBuffers() {
    var vectors: [iovec] = []
    for arena in arenas {
      firstBuffers.append(vectors.count)
      for start in stride(from: 0, to: arena.byteCount, by: Self.bufferByteCount) {
        let count = min(Self.bufferByteCount, arena.byteCount - start)
        vectors.append(iovec(iov_base: arena.base + start, iov_len: count))
      }
    }
    guard !vectors.isEmpty else { return }
    let code = io_uring_register_buffers(ring, vectors, UInt32(vectors.count))
    registeredBuffers = code == 0
    if code != 0 {
      let hint = code == -ENOMEM ? ", the limit on locked memory is too low (ulimit -l)" : ""
      fallbacks.append("expert slots are not registered with io_uring: \(text(-code))\(hint)")
    }
  }

  func replaceArenas(_ arenas: [Arena]) {
    precondition(outstandingCount == 0, "arenas are replaced under reads")
    if registeredBuffers { io_uring_unregister_buffers(ring) }
    registeredBuffers = false
    firstBuffers = []
    self.arenas = arenas
    // What was refused once is not told again.
    let told = fallbacks
    registerBuffers()
    fallbacks = told
  }

  // MARK: - Reading

  var outstandingCount: Int { queueDepth - freeFlights.count + pending.count }

  func enqueue(_ request: ReadRequest) {
    precondition(
      outstandingCount < capacity, "more reads are queued than the engine was made for")
    pending.append(request)
  }

  func submit() {
    var added = false
    while let flight = freeFlights.last, let request = pending.popFirst() {
      freeFlights.removeLast()
      (flights + flight).initialize(to: Progress(request: request))
      prepare(flight)
      added = true
    }
    if added { enterKernel() }
  }

  func promote(tag: UInt64) -> Bool { pending.promote(tag: tag) }

  func cancel(tag: UInt64) -> Bool { pending.cancel(tag: tag) }

  func poll(_ body: (ReadCompletion) -> Void) {
    var repeated = false
    while true {
      var entry: UnsafeMutablePointer<io_uring_cqe>?
      guard io_uring_peek_cqe(ring, &entry) == 0, let entry else { break }
      let flight = Int(entry.pointee.user_data)
      let result = Int(entry.pointee.res)
      io_uring_cqe_seen(ring, entry)
      let file = files[flights[flight].request.file]
      switch outcome(of: flight, result, file: file) {
      case .again:
        prepare(flight)
        repeated = true
      case .finished(let error):
        let request = flights[flight].request
        pending.noteEnd(of: request)
        freeFlights.append(flight)
        body(ReadCompletion(tag: request.tag, error: error))
      }
    }
    if repeated { enterKernel() }
    if pending.count > 0 { submit() }
  }

  /// What a completion means for its read.
  private func outcome(of flight: Int, _ result: Int, file: DataFile) -> Progress.Outcome {
    guard result == -Int(ECANCELED) else { return flights[flight].note(result, file: file) }
    // Nobody cancels: the kernel could not make the thread that was to read, because of a limit on
    // processes or because signals kept interrupting it (seen with Linux 6.18).
    let note =
      "some reads were waited for: the kernel had no thread for them, "
      + "because of a limit on processes (ulimit -u) or of many signals"
    if !fallbacks.contains(note) { fallbacks.append(note) }
    return .finished(flights[flight].finish(from: file))
  }

  func wait() {
    submit()
    guard freeFlights.count < queueDepth else { return }
    var entry: UnsafeMutablePointer<io_uring_cqe>?
    // Interrupted by a signal: the caller polls, finds nothing, and waits again.
    let code = io_uring_wait_cqe(ring, &entry)
    precondition(code == 0 || code == -EINTR || code == -EAGAIN, "io_uring wait: \(text(-code))")
  }

  /// Fills a submission entry for what is left of a read. There is always room: the ring has as
  /// many entries as there are flights, and each is submitted before it can be prepared again.
  private func prepare(_ flight: Int) {
    guard let entry = io_uring_get_sqe(ring) else {
      preconditionFailure("the submission queue is full")
    }
    let progress = flights[flight]
    let request = progress.request
    let descriptor =
      registeredFiles ? Int32(request.file) : files[request.file].descriptor
    if let buffer = registeredBuffer(progress.destination, progress.remaining) {
      io_uring_prep_read_fixed(
        entry, descriptor, progress.destination, UInt32(progress.remaining), progress.offset,
        Int32(buffer))
    } else {
      io_uring_prep_read(
        entry, descriptor, progress.destination, UInt32(progress.remaining), progress.offset)
    }
    if registeredFiles { io_uring_sqe_set_flags(entry, cliburing_sqe_fixed_file()) }
    io_uring_sqe_set_data64(entry, UInt64(flight))
  }

  /// The registered buffer that holds all of a destination, if one does.
  private func registeredBuffer(_ start: UnsafeMutableRawPointer, _ count: Int) -> Int? {
    guard registeredBuffers else { return nil }
    for (index, arena) in arenas.enumerated() {
      let offset = start - arena.base
      guard offset >= 0, offset + count <= arena.byteCount else { continue }
      let buffer = offset / Self.bufferByteCount
      guard (offset + count - 1) / Self.bufferByteCount == buffer else { return nil }
      return firstBuffers[index] + buffer
    }
    return nil
  }

  private func enterKernel() {
    // The kernel may take fewer entries than there are; the rest would wait for the next call.
    while io_uring_sq_ready(ring) > 0 {
      let code = io_uring_submit(ring)
      if code >= 0 { continue }
      // The kernel is short of memory for requests, or was interrupted: what is queued stays so.
      precondition(
        code == -EINTR || code == -EAGAIN || code == -EBUSY, "io_uring submit: \(text(-code))")
      sched_yield()
    }
  }
}

import CLinux
import Glibc
import Testing

@testable import DirectIO

/// Refusals for real: each takes something away from a process of its own.
extension IOTests {
  @Suite struct FallbackTests {
    @Test(
      .enabled(if: EngineSetup.ringRefusal == nil, "this system refuses io_uring"),
      arguments: [DirectPolicy.auto, .off])
    func buffersBeyondTheLimitOnLockedMemoryAreNotRegistered(_ direct: DirectPolicy) async {
      await #expect(processExitsWith: .success) { [direct = direct as DirectPolicy] in
        var limit = rlimit(rlim_cur: 64 << 10, rlim_max: 64 << 10)
        try #require(setrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0)
        try #require(clinux_drop_ipc_lock() == 0)
        let random = try RandomFile(byteCount: 500_000)
        let file = try DataFile(path: random.path, direct: direct)
        let ranges = randomRanges(100, byteCount: 500_000, largest: 20_000, seed: 8)
        let slots = try Slots(count: ranges.count, byteCount: 20_000)
        let engine = try makeReadEngine(
          kind: .uring, files: [file], arenas: [slots.arena], queueDepth: 8)
        #expect(engine.name == "io_uring" && !engine.registeredBuffers && engine.registeredFiles)
        #expect(
          engine.fallbacks == [
            "expert slots are not registered with io_uring: Cannot allocate memory, "
              + "the limit on locked memory is too low (ulimit -l)"
          ])
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
      }
    }

    @Test(arguments: [DirectPolicy.auto, .off])
    func refusedRingsGiveWayToThreads(_ direct: DirectPolicy) async {
      await #expect(processExitsWith: .success) { [direct = direct as DirectPolicy] in
        try Refusal.forbidRings()
        try expectPread(errno: EPERM, naming: "sysctl kernel.io_uring_disabled", direct: direct)
      }
    }

    @Test func ringsWithoutADescriptorGiveWayToThreads() async {
      await #expect(processExitsWith: .success) {
        let random = try RandomFile(byteCount: 100_000)
        let file = try DataFile(path: random.path, direct: .off)
        var old = rlimit()
        try #require(getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &old) == 0)
        var none = rlimit(rlim_cur: 0, rlim_max: old.rlim_max)
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none) == 0)
        let engine = Result { try makeReadEngine(kind: .auto, files: [file], arenas: []) }
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &old) == 0)
        #expect(try engine.get().name == "pread")
        #expect(try engine.get().fallbacks.count == 1)
        let slots = try Slots(count: 1, byteCount: 5_000)
        let ended = try engine.get().read([777..<5_777], of: file, into: slots)
        expectRead(ended, [777..<5_777], of: file, bytes: random.bytes, into: slots)
      }
    }

    /// A page that has yet to be written keeps a read from being asynchronous, so that the kernel wants a
    /// thread for it.
    @Test(
      .enabled(if: EngineSetup.ringRefusal == nil, "this system refuses io_uring"),
      arguments: [DirectPolicy.auto, .off])
    func whatTheKernelHasNoThreadForIsReadAllTheSame(_ direct: DirectPolicy) async {
      await #expect(processExitsWith: .success) { [direct = direct as DirectPolicy] in
        let random = try RandomFile(byteCount: 500_000)
        let file = try DataFile(path: random.path, direct: direct)
        let ranges = randomRanges(100, byteCount: 500_000, largest: 20_000, seed: 9)
        let slots = try Slots(count: ranges.count, byteCount: 20_000)
        let engine = try makeReadEngine(
          kind: .uring, files: [file], arenas: [slots.arena], queueDepth: 8)
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        try #require(setrlimit(__rlimit_resource_t(__RLIMIT_NPROC.rawValue), &none) == 0)
        // Root may have any number of threads.
        if getuid() == 0 { try #require(setuid(65534) == 0) }
        let before = engine.fallbacks
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
        let told = engine.fallbacks.dropFirst(before.count)
        #expect(
          told.isEmpty
            || told == [
              "some reads were waited for: the kernel had no thread for them, "
                + "because of a limit on processes (ulimit -u) or of many signals"
            ])
      }
    }

    @Test func refusedThreadsAreAnError() async {
      await #expect(processExitsWith: .success) {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        try #require(setrlimit(__rlimit_resource_t(__RLIMIT_NPROC.rawValue), &none) == 0)
        // Root may have any number of threads.
        if getuid() == 0 { try #require(setuid(65534) == 0) }
        let error = #expect(throws: IOError.self) {
          try makeReadEngine(kind: .pread, files: [], arenas: [])
        }
        #expect(error == .threadRefused(errno: EAGAIN))
        #expect(
          error?.description
            == "the system refused a reader thread: Resource temporarily unavailable")
      }
    }

    /// Newer kernels read tmpfs with O_DIRECT, older ones refuse it.
    @Test(.enabled(if: access("/dev/shm", W_OK) == 0, "/dev/shm is not writable"))
    func filesInMemoryAreReadEitherWay() throws {
      let random = try RandomFile(byteCount: 100_000, in: "/dev/shm")
      let file = try DataFile(path: random.path, direct: .auto)
      #expect(file.isDirect == (file.fallbackReason == nil))
      if !file.isDirect {
        #expect(throws: IOError.directRefused(path: random.path, errno: EINVAL)) {
          try DataFile(path: random.path, direct: .on)
        }
      }
      let ranges = randomRanges(50, byteCount: 100_000, largest: 9_000, seed: 1)
      let slots = try Slots(count: ranges.count, byteCount: 9_000)
      for kind in EngineSetup.kinds {
        let engine = try makeReadEngine(kind: kind, files: [file], arenas: [slots.arena])
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
      }
    }

    /// sysfs has regular files with bytes in them, and no O_DIRECT.
    static let undirected = "/sys/kernel/notes"

    @Test(.enabled(if: access(undirected, R_OK) == 0, "there is no \(undirected)"))
    func fileSystemsWithoutDirectReadsAreReadThroughThePageCache() throws {
      let path = Self.undirected
      let error = #expect(throws: IOError.self) { try DataFile(path: path, direct: .on) }
      #expect(error == .directRefused(path: path, errno: EINVAL))
      #expect(
        error?.description
          == "'\(path)' cannot be read with O_DIRECT (Invalid argument); use --direct auto or off")

      let file = try DataFile(path: path, direct: .auto)
      #expect(!file.isDirect && file.alignment == 1)
      #expect(
        file.fallbackReason
          == "'\(path)' is read through the page cache: its file system refuses O_DIRECT")
      var bytes = [UInt8](repeating: 0, count: file.byteCount)
      let descriptor = open(path, O_RDONLY)
      try #require(descriptor >= 0)
      defer { close(descriptor) }
      try #require(pread(descriptor, &bytes, bytes.count, 0) == bytes.count)
      let ranges = [0..<bytes.count, 3..<(bytes.count - 1)]
      let slots = try Slots(count: 2, byteCount: bytes.count)
      for kind in EngineSetup.kinds {
        let engine = try makeReadEngine(kind: kind, files: [file], arenas: [slots.arena])
        let ended = engine.read(ranges, of: file, into: slots)
        expectRead(ended, ranges, of: file, bytes: bytes, into: slots)
      }
    }

    /// For the whole system while it runs: only where someone asked for it.
    @Test(
      .enabled(
        if: getenv("STOKER_TEST_SYSCTL") != nil,
        "changes kernel.io_uring_disabled: run it alone, with STOKER_TEST_SYSCTL=1"))
    func disabledRingsGiveWayToThreads() throws {
      let path = "/proc/sys/kernel/io_uring_disabled"
      let descriptor = open(path, O_RDWR)
      try #require(descriptor >= 0, "\(path) cannot be written")
      defer { close(descriptor) }
      var old: UInt8 = 0
      try #require(pread(descriptor, &old, 1, 0) == 1)
      try #require(pwrite(descriptor, "2", 1, 0) == 1)
      defer { pwrite(descriptor, &old, 1, 0) }
      try expectPread(errno: EPERM, naming: "sysctl kernel.io_uring_disabled", direct: .auto)
    }
  }
}

/// Expects that rings are refused with `errno`, and that files are read nonetheless.
private func expectPread(errno code: Int32, naming cause: String, direct: DirectPolicy) throws {
  let random = try RandomFile(byteCount: 100_000)
  let file = try DataFile(path: random.path, direct: direct)
  let error = #expect(throws: IOError.self) {
    try makeReadEngine(kind: .uring, files: [file], arenas: [])
  }
  guard case .ringRefused(code, let found)? = error else {
    Issue.record("io_uring should be refused with \(text(code)), but: \(String(describing: error))")
    return
  }
  #expect(found.contains(cause))
  #expect(
    error?.description
      == "io_uring is not available (\(text(code))): \(found); use --io auto or pread")

  let ranges = randomRanges(50, byteCount: 100_000, largest: 9_000, seed: 1)
  let slots = try Slots(count: ranges.count, byteCount: 9_000)
  let engine = try makeReadEngine(kind: .auto, files: [file], arenas: [slots.arena])
  #expect(engine.name == "pread" && !engine.registeredBuffers && !engine.registeredFiles)
  #expect(engine.fallbacks.count == 1 && engine.fallbacks[0].contains(cause))
  let ended = engine.read(ranges, of: file, into: slots)
  expectRead(ended, ranges, of: file, bytes: random.bytes, into: slots)
}

/// System calls taken away from this thread and the threads it makes.
private enum Refusal {
  /// Has io_uring_setup(2) fail with EPERM, as container runtimes do, by a seccomp(2) filter.
  static func forbidRings() throws {
    // prctl(2) takes a variable number of arguments, which Swift does not import; with integers
    // alone the calling convention is that of a plain function.
    typealias Prctl = @convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32
    let symbol = try #require(dlsym(nil, "prctl"))
    let prctl = unsafeBitCast(symbol, to: Prctl.self)
    // struct sock_filter, little end first: code, jump if true, jump if false, operand.
    func instruction(_ code: UInt64, _ operand: UInt64, jumps: UInt64 = 0) -> UInt64 {
      code | jumps << 16 | operand << 32
    }
    let setup: UInt64 = 425  // io_uring_setup, on every architecture
    let program = [
      instruction(0x20, 0),  // load the number of the system call
      instruction(0x15, setup, jumps: 0x0100),  // go on if it is that one, skip one if not
      instruction(0x06, 0x0005_0000 | UInt64(EPERM)),  // fail with EPERM
      instruction(0x06, 0x7fff_0000),  // allow
    ]
    let noNewPrivileges: Int32 = 38
    let setSeccomp: Int32 = 22
    try #require(prctl(noNewPrivileges, 1, 0, 0, 0) == 0)
    let code = program.withUnsafeBufferPointer { filter in
      // struct sock_fprog: the number of instructions, and where they are.
      let header = [UInt(filter.count), UInt(bitPattern: filter.baseAddress)]
      return header.withUnsafeBufferPointer {
        prctl(setSeccomp, 2, UInt(bitPattern: $0.baseAddress), 0, 0)
      }
    }
    try #require(code == 0)
  }
}

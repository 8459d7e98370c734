import FoundationEssentials
import Glibc

/// The built `stoker` program, started as a subprocess with an empty standard input.
///
/// Its output goes to files: nothing can block on a full pipe, and a test can watch it grow.
final class StokerProcess {
  /// How a process ended.
  enum Exit: Equatable {
    case code(Int32)
    case signal(Int32)
  }

  /// What a process left behind.
  struct Outcome {
    let exit: Exit
    let output: String
    let errors: String
    /// The most resident memory, as `wait4` accounts it; the calling process's own peak if that is
    /// more, because Linux carries it over `exec`.
    let peakResidentByteCount: Int
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  private let id: pid_t
  private let scratch: ScratchDirectory
  private var outputPath: String { scratch.path(of: "stdout") }
  private var errorPath: String { scratch.path(of: "stderr") }

  /// Starts `stoker` with `arguments`.
  ///
  /// - Parameters:
  ///   - environment: variables on top of this process's, of which `STOKER_KERNELS` is dropped and
  ///     `XDG_CACHE_HOME` names a folder of its own.
  ///   - output: a descriptor to be standard output instead of a file.
  init(
    _ arguments: [String], environment: [String: String] = [:], output: Int32? = nil
  ) throws {
    scratch = try ScratchDirectory()
    let executable = try Self.executablePath()
    var inherited = ProcessInfo.processInfo.environment
    inherited["STOKER_KERNELS"] = nil
    // What one run has used is nothing that another test begins with.
    inherited["XDG_CACHE_HOME"] = scratch.path(of: "cache")
    let variables = inherited.merging(environment) { $1 }.map { "\($0)=\($1)" }

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    let created = O_WRONLY | O_CREAT | O_TRUNC
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    if let output {
      posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
    } else {
      let path = scratch.path(of: "stdout")
      posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, path, created, 0o600)
    }
    let path = scratch.path(of: "stderr")
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, path, created, 0o600)

    // Threads of a concurrent test run block signals, and a shell may have ignored some; the
    // program must start as from a terminal.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    for number in [SIGINT, SIGTERM, SIGPIPE] { sigaddset(&signals, number) }
    posix_spawnattr_setsigdefault(&attributes, &signals)
    let flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
    posix_spawnattr_setflags(&attributes, Int16(flags))

    let argv = ([executable] + arguments).map { strdup($0) } + [nil]
    let envp = variables.map { strdup($0) } + [nil]
    defer { for string in argv + envp { free(string) } }
    var id: pid_t = 0
    let code = posix_spawn(&id, executable, &actions, &attributes, argv, envp)
    guard code == 0 else {
      throw Failure(description: "cannot start '\(executable)': \(String(cString: strerror(code)))")
    }
    self.id = id
  }

  /// Runs `stoker` to its end.
  static func run(
    _ arguments: [String], environment: [String: String] = [:], output: Int32? = nil
  ) throws -> Outcome {
    try StokerProcess(arguments, environment: environment, output: output).wait()
  }

  /// Sends a signal.
  func send(_ signal: Int32) { kill(id, signal) }

  /// Waits until something has been written to standard output, or to the file at `path`.
  func waitForOutput(at path: String? = nil) throws {
    let path = path ?? outputPath
    for _ in 0..<60_000 {
      var status = stat()
      if stat(path, &status) == 0, status.st_size > 0 { return }
      usleep(1000)
    }
    throw Failure(description: "stoker wrote nothing to '\(path)'; \(contents(of: errorPath))")
  }

  /// Waits for the end; a process that hangs is killed, which its exit then tells.
  func wait() throws -> Outcome {
    var status: Int32 = 0
    var usage = rusage()
    var polls = 0
    while true {
      let ended = wait4(id, &status, WNOHANG, &usage)
      if ended == id { break }
      guard ended == 0 || errno == EINTR else {
        throw Failure(description: "cannot wait for stoker: \(String(cString: strerror(errno)))")
      }
      polls += 1
      if polls == 60_000 { kill(id, SIGKILL) }
      usleep(1000)
    }
    let signal = status & 0x7f
    return Outcome(
      exit: signal == 0 ? .code((status >> 8) & 0xff) : .signal(signal),
      output: contents(of: outputPath), errors: contents(of: errorPath),
      peakResidentByteCount: usage.ru_maxrss * 1024)
  }

  private func contents(of path: String) -> String {
    String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
  }

  /// The program that was built together with these tests, beside them.
  private static func executablePath() throws -> String {
    var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    guard count > 0 else { throw Failure(description: "cannot read the link /proc/self/exe") }
    let own = String(decoding: buffer[..<count], as: UTF8.self)
    let directories = [
      own[..<(own.lastIndex(of: "/") ?? own.startIndex)],
      // Where another program loads the test bundle, that is named on the command line.
      CommandLine.arguments.first { $0.hasSuffix(".xctest") }
        .flatMap { bundle in bundle.lastIndex(of: "/").map { bundle[..<$0] } } ?? "",
    ]
    for directory in directories where access("\(directory)/stoker", X_OK) == 0 {
      return "\(directory)/stoker"
    }
    throw Failure(description: "found no program 'stoker' beside the tests in \(directories)")
  }
}

/// A directory of one test's files, removed with its owner.
final class ScratchDirectory {
  let path: String

  init() throws {
    let parent = FileManager.default.temporaryDirectory
    path = parent.appendingPathComponent("stoker-tests-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit {
    // What cannot be removed is left to the system's own cleaning of its temporary directory.
    try? FileManager.default.removeItem(atPath: path)
  }

  func path(of name: String) -> String { "\(path)/\(name)" }
}

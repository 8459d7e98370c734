import Glibc
import Testing

/// Runs that end before they are done: interrupted, or with nobody left to read them.
@Suite struct EarlyEndTests {
  /// Long enough to be interrupted: the slowest kernels, one thread.
  private static let long = [
    "run", Samples.demo, "--prompt", "The", "--max-tokens", "500", "--ignore-end", "--threads", "1",
  ]
  private static let slow = ["STOKER_KERNELS": "portable"]

  @Test(arguments: [SIGINT, SIGTERM])
  func anInterruptedRunEndsWithItsAccount(_ signal: Int32) throws {
    let process = try StokerProcess(Self.long, environment: Self.slow)
    try process.waitForOutput()
    process.send(signal)
    let outcome = try process.wait()
    #expect(outcome.exit == .code(0))
    #expect(outcome.output.hasSuffix("\n"))
    #expect(outcome.errors.contains("\ndecode "))
    #expect(outcome.errors.contains("on request, before it was done"))
  }

  @Test func anInterruptedMeasurementLeavesNoLogits() throws {
    let scratch = try ScratchDirectory()
    let path = scratch.path(of: "logits.f32")
    let ids = joined((0..<4000).map { Int32($0) })
    let process = try StokerProcess(
      [
        "perplexity", Samples.demo, "--token-ids", ids, "--context", "8", "--threads", "1",
        "--logits", path, "--json",
      ], environment: Self.slow)
    try process.waitForOutput(at: path + ".partial")
    process.send(SIGINT)
    let outcome = try process.wait()
    #expect(outcome.exit == .code(130))
    #expect(!outcome.errors.contains("Error"))
    #expect(access(path, F_OK) != 0)
    #expect(access(path + ".partial", F_OK) != 0)
  }

  @Test func aClosedPipeIsAnErrorThatIsTold() throws {
    let scratch = try ScratchDirectory()
    let path = scratch.path(of: "pipe")
    try #require(mkfifo(path, 0o600) == 0)
    // Close-on-exec from the start, so that no other test's subprocess holds the reading end.
    let reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    let writer = open(path, O_WRONLY | O_CLOEXEC)
    try #require(reader >= 0 && writer >= 0)
    close(reader)
    defer { close(writer) }
    let outcome = try StokerProcess.run(Self.long, environment: Self.slow, output: writer)
    #expect(outcome.exit == .code(1))
    #expect(outcome.errors.contains("could not write to standard output: Broken pipe"))
  }

  @Test func aFullDiskIsAnErrorThatIsTold() throws {
    let full = open("/dev/full", O_WRONLY | O_CLOEXEC)
    try #require(full >= 0)
    defer { close(full) }
    let outcome = try StokerProcess.run(Self.long, environment: Self.slow, output: full)
    #expect(outcome.exit == .code(1))
    #expect(outcome.errors.contains("could not write to standard output: No space left on device"))
  }
}

import FoundationEssentials
import Glibc
import Testing

@Suite struct PackCommandTests {
  private struct Packed: Decodable {
    let byteCount: Int
    let resumedByteCount: Int
    let experts: Int
  }

  private struct Verified: Decodable {
    let checked: Int
    let damaged: [String]
  }

  private func decode<Value: Decodable>(_ type: Value.Type, _ text: String) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: Data(text.utf8))
  }

  @Test func theDemoIsPackedVerifiedAndRun() throws {
    let scratch = try ScratchDirectory()
    let packed = scratch.path(of: "packed.gguf")
    let done = try StokerProcess.run(["pack", Samples.demo, packed])
    #expect(done.exit == .code(0), "\(done.errors)")
    #expect(done.output.contains("256, a read of"))
    let again = try StokerProcess.run(["pack", Samples.demo, packed])
    #expect(again.exit == .code(64) && again.errors.contains("exists; give --force"))
    let verified = try StokerProcess.run(["verify", packed, "--json"])
    #expect(verified.exit == .code(0))
    #expect(try decode(Verified.self, verified.output).damaged.isEmpty)
    let arguments = ["--prompt", "The sea", "--max-tokens", "24", "--memory", "50MiB", "--json"]
    let stock = try StokerProcess.run(["run", Samples.demo] + arguments)
    let run = try StokerProcess.run(["run", packed, "--verify-reads"] + arguments)
    #expect(
      try decode(RunReport.self, run.output).tokenIds
        == decode(RunReport.self, stock.output).tokenIds)
    let refused = try StokerProcess.run(["run", Samples.demo, "--verify-reads"] + arguments)
    #expect(refused.exit == .code(1) && refused.errors.contains("has no checksums"))

    let descriptor = open(packed, O_WRONLY)
    #expect(pwrite(descriptor, "damage", 6, 12 << 20) == 6)
    close(descriptor)
    let damaged = try StokerProcess.run(["verify", packed])
    #expect(damaged.exit == .code(1))
    #expect(damaged.output.contains("damaged: the "), "\(damaged.output)")
    let unknown = try StokerProcess.run(["verify", Samples.demo])
    #expect(unknown.exit == .code(1) && unknown.errors.contains("'stoker pack'"))
  }

  @Test func aKilledPackIsGoneOnWith() throws {
    let scratch = try ScratchDirectory()
    let source = scratch.path(of: "source.gguf")
    let packed = scratch.path(of: "packed.gguf")
    let made = try StokerProcess.run([
      "synth", source, "--like", "olmoe-1b-7b", "--quant", "q8_0", "--layers", "2", "--experts",
      "24",
    ])
    try #require(made.exit == .code(0), "\(made.errors)")
    let process = try StokerProcess(["pack", source, packed])
    // More than is made durable at a time.
    for _ in 0..<60_000 {
      var status = stat()
      if stat(packed + ".partial", &status) == 0, status.st_blocks * 512 > 140 << 20 { break }
      usleep(200)
    }
    process.send(SIGKILL)
    try #require(process.wait().exit == .signal(SIGKILL), "it was done before it could be killed")
    #expect(access(packed, F_OK) != 0)
    // As it is not the same any more, with another order of experts say, it is refused.
    let other = try StokerProcess.run(["pack", Samples.demo, packed])
    #expect(other.exit == .code(1) && other.errors.contains("remove it"), "\(other.errors)")
    let rest = try StokerProcess.run(["pack", source, packed, "--json"])
    try #require(rest.exit == .code(0), "\(rest.errors)")
    let summary = try decode(Packed.self, rest.output)
    #expect(summary.resumedByteCount > 60 << 20 && summary.resumedByteCount < summary.byteCount)
    #expect(summary.experts == 48)
    let verified = try StokerProcess.run(["verify", packed, "--json"])
    #expect(try decode(Verified.self, verified.output).damaged.isEmpty)
    let fresh = scratch.path(of: "fresh.gguf")
    _ = try StokerProcess.run(["pack", source, fresh])
    #expect(FileManager.default.contentsEqual(atPath: fresh, andPath: packed))
  }

  @Test func packingNeedsLittleMemory() throws {
    let scratch = try ScratchDirectory()
    let source = scratch.path(of: "source.gguf")
    let made = try StokerProcess.run([
      "synth", source, "--like", "olmoe-1b-7b", "--quant", "q8_0", "--layers", "2", "--experts",
      "24",
    ])
    try #require(made.exit == .code(0), "\(made.errors)")
    let small = try StokerProcess.run(["pack", Samples.demo, scratch.path(of: "small.gguf")])
    let large = try StokerProcess.run(["pack", source, scratch.path(of: "large.gguf")])
    #expect(large.exit == .code(0))
    // The reader's ring fills up, and no more; the file has 500 MB.
    #expect(large.peakResidentByteCount < small.peakResidentByteCount + (64 << 20))
  }
}

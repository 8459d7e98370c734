import FoundationEssentials
import Testing

@Suite struct PerplexityCommandTests {
  private struct Report: Decodable {
    let evaluatedTokens: Int
    let perplexity: Double
    let scoredTokens: Int
    let windows: Int
  }

  private static let vocabulary = 320

  @Test(arguments: ["tiny-olmoe", "tiny-qwen3moe"])
  func logitsOfEveryTokenAreWrittenAsFloats(_ model: String) throws {
    let scratch = try ScratchDirectory()
    let path = scratch.path(of: "logits.f32")
    let prompts = try TinyReference.of(model).prompts
    let ids = prompts[2].ids
    let outcome = try StokerProcess.run([
      "perplexity", Samples.fixture("\(model).gguf"), "--token-ids", joined(ids),
      "--logits", path, "--json",
    ])
    let report: Report = try outcome.json()
    #expect(report.evaluatedTokens == ids.count)
    #expect(report.windows == 1)
    // A window's second half is scored, each token by the one before it.
    #expect(report.scoredTokens == ids.count - ids.count / 2 - 1)

    let found = try floats(of: path)
    #expect(found.count == ids.count * Self.vocabulary)
    let before = (prompts[0].ids.count + prompts[1].ids.count) * Self.vocabulary
    let expected = try floats(of: Samples.fixture("\(model).logits.f32")).dropFirst(before)
    try #require(expected.count == found.count)
    let distance = zip(found, expected).map { abs($0 - $1) }.max() ?? .infinity
    #expect(distance < 1e-3)
    #expect(!FileManager.default.fileExists(atPath: path + ".partial"))
  }

  @Test func shortWindowsAreScoredEach() throws {
    let ids = try TinyReference.of("tiny-olmoe").prompts[2].ids
    let report: Report = try StokerProcess.run([
      "perplexity", Samples.tinyOLMoE, "--token-ids", joined(ids), "--context", "12", "--json",
    ]).json()
    #expect(report.windows == 3)
    #expect(report.evaluatedTokens == 36)
    #expect(report.scoredTokens == 15)
    #expect(report.perplexity > 1)
  }

  @Test func aTextFileIsScoredForPeople() throws {
    let scratch = try ScratchDirectory()
    let path = scratch.path(of: "text.txt")
    try Data("The sea was calm, and the old man said nothing at all.".utf8)
      .write(to: URL(fileURLWithPath: path))
    let outcome = try StokerProcess.run(["perplexity", Samples.demo, path])
    #expect(outcome.exit == .code(0))
    let match = try #require(outcome.output.firstMatch(of: /perplexity +([0-9.]+)\n/))
    let perplexity = try #require(Double(match.1))
    // A model that knows nothing has its vocabulary's 4096.
    #expect(perplexity > 1 && perplexity < 1000)
  }

  private func floats(of path: String) throws -> [Float] {
    let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    try #require(bytes.count % 4 == 0)
    return stride(from: 0, to: bytes.count, by: 4).map { index in
      let bits = (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[index + $1]) << (8 * $1) }
      return Float(bitPattern: bits)
    }
  }
}

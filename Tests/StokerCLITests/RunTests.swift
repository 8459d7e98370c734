import FoundationEssentials
import Testing

@Suite struct RunTests {
  /// A prompt of the demo model with sampling at `temperature`.
  private func demo(_ extra: String...) -> [String] {
    ["run", Samples.demo, "--prompt", "The old man", "--max-tokens", "8"] + extra
  }

  @Test func streamedTextIsTheTextOfTheReport() throws {
    let streamed = try StokerProcess.run(demo("--temperature", "1", "--seed", "3"))
    let report: RunReport =
      try StokerProcess.run(demo("--temperature", "1", "--seed", "3", "--json")).json()
    #expect(streamed.exit == .code(0))
    #expect(streamed.output == report.text + "\n")
    #expect(streamed.errors.isEmpty)
    #expect(report.text.contains { $0.isLetter })
    #expect(report.tokenIds.count == report.account.generatedTokens)
  }

  @Test func seedDecidesTheText() throws {
    let texts = try ["1", "1", "2"].map {
      try StokerProcess.run(demo("--temperature", "1", "--seed", $0)).output
    }
    #expect(texts[0] == texts[1])
    #expect(texts[0] != texts[2])
  }

  @Test func statisticsGoToStandardError() throws {
    let outcome = try StokerProcess.run(demo("--temperature", "0", "--stats"))
    let plain = try StokerProcess.run(demo("--temperature", "0"))
    #expect(outcome.output == plain.output)
    for row in ["prompt ", "decode ", "memory ", "kernels ", "read engine ", "fallbacks "] {
      #expect(outcome.errors.contains("\n\(row)") || outcome.errors.hasPrefix(row))
    }
  }

  /// A run adds to the model's history unless it is told not to or is recorded.
  @Test func runsKeepAHistory() throws {
    let scratch = try ScratchDirectory()
    let cache = scratch.path(of: "cache")
    func run(_ extra: String...) throws -> String {
      let outcome = try StokerProcess.run(
        demo("--memory", "60MiB", "--temperature", "0", "--stats") + extra,
        environment: ["XDG_CACHE_HOME": cache])
      #expect(outcome.exit == .code(0), "\(outcome.errors)")
      return outcome.errors.split(separator: "\n").first { $0.hasPrefix("history ") }
        .map(String.init) ?? ""
    }
    #expect(try run("--no-history").hasSuffix(" none"))
    #expect(try run("--record", scratch.path(of: "t.moetrace")).hasSuffix(" none"))
    #expect(!FileManager.default.fileExists(atPath: cache))
    #expect(try run().contains(" of 0 tokens;"))
    #expect(try !run().contains(" of 0 tokens;"))
    let files = try FileManager.default.contentsOfDirectory(atPath: cache + "/stoker")
    #expect(files.count == 2, "\(files)")
  }

  @Test func aModelThatFitsIsSaidToBeResident() throws {
    let arguments = ["run", Samples.tinyQwen, "--token-ids", "1", "--max-tokens", "2", "--stats"]
    let outcome = try StokerProcess.run(arguments)
    let row = outcome.errors.split(separator: "\n").first { $0.hasPrefix("disk ") }
    #expect(row?.hasSuffix(" every expert resident") == true)
  }

  @Test(arguments: ["tiny-olmoe", "tiny-olmoe-clip", "tiny-qwen3moe", "tiny-qwen3moe-tied"])
  func tokenIDsContinueAsTheReferenceDoes(_ model: String) throws {
    for prompt in try TinyReference.of(model).prompts {
      let expected = prompt.greedyIds.dropFirst(prompt.ids.count)
      let report: RunReport = try StokerProcess.run([
        "run", Samples.fixture("\(model).gguf"), "--token-ids", joined(prompt.ids),
        "--temperature", "0", "--max-tokens", "\(expected.count)", "--json",
      ]).json()
      #expect(report.tokenIds == Array(expected))
      #expect(report.account.promptTokens == prompt.ids.count)
    }
  }

  @Test func forcedIDsAreDecodedInsteadOfSampled() throws {
    let forced: [Int32] = [5, 4, 3, 2, 1, 0, 319]
    let report: RunReport = try StokerProcess.run([
      "run", Samples.tinyOLMoE, "--token-ids", "91", "--forced-ids", joined(forced), "--json",
    ]).json()
    #expect(report.tokenIds == forced)
    #expect(report.account.decodeSeconds.count == forced.count)
  }

  @Test func promptsCanComeAsTextFileOrTokens() throws {
    let scratch = try ScratchDirectory()
    let file = scratch.path(of: "prompt.txt")
    try Data("A".utf8).write(to: URL(fileURLWithPath: file))
    // The tiny vocabularies begin with the bytes from '!' on.
    let prompts = [["--prompt", "A"], ["--prompt-file", file], ["--token-ids", "32"]]
    let reports = try prompts.map { prompt -> RunReport in
      try StokerProcess.run(
        ["run", Samples.tinyOLMoE, "--temperature", "0", "--max-tokens", "8", "--json"] + prompt
      ).json()
    }
    #expect(reports[0].account.promptTokens == 1)
    #expect(!reports[0].tokenIds.isEmpty)
    #expect(reports[0].tokenIds == reports[2].tokenIds)
    #expect(reports[1].tokenIds == reports[2].tokenIds)
  }

  @Test func theModelsOfTheDemoAgree() throws {
    struct Report: Decodable {
      let identical: Bool
      let offloaded: RunReport
      let resident: RunReport
    }
    let report: Report = try StokerProcess.run(["demo", "--json", "--max-tokens", "12"]).json()
    #expect(report.identical)
    #expect(report.offloaded.tokenIds == report.resident.tokenIds)
    #expect(report.offloaded.tokenIds.count == 12)
    #expect(report.offloaded.account.experts.decode.misses > 0)
    #expect(report.resident.account.experts.decode.misses == 0)
    #expect(report.offloaded.account.memoryBudget < report.resident.account.memoryBudget)
  }

  @Test func theDemoPrintsTheTextAndItsAccount() throws {
    let outcome = try StokerProcess.run(["demo", "--max-tokens", "4", "--prompt", "def main"])
    #expect(outcome.exit == .code(0))
    #expect(outcome.output.contains("Both texts are identical: 4 of 4 tokens."))
    #expect(outcome.output.contains("experts, decode"))
    #expect(outcome.output.split(separator: "def main").count == 3)
  }
}

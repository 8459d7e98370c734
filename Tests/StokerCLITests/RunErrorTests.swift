import Testing

/// What a user gets for a mistake: a sentence on standard error and a failing exit.
@Suite struct RunErrorTests {
  struct Mistake: CustomTestStringConvertible {
    let arguments: [String]
    let message: String
    var code: Int32 = 1
    var environment: [String: String] = [:]
    var testDescription: String { arguments.joined(separator: " ") }
  }

  static let demo = ["run", Samples.demo, "--prompt", "The"]
  static let tiny = ["run", Samples.tinyOLMoE]
  static let mistakes = [
    Mistake(
      arguments: ["run", "absent.gguf", "--prompt", "x"],
      message: "'absent.gguf': cannot open it: No such file or directory"),
    Mistake(
      arguments: ["run", #filePath, "--prompt", "x"], message: "'\(#filePath)' is not a GGUF file"),
    Mistake(
      arguments: ["inspect", "absent.gguf"],
      message: "'absent.gguf': cannot open it: No such file or directory"),
    Mistake(arguments: ["inspect", #filePath, "--json"], message: "is not a GGUF file"),
    Mistake(arguments: ["run", Samples.repository, "--prompt", "x"], message: Samples.repository),
    Mistake(
      arguments: demo + ["--memory", "lots"], message: "The value 'lots' is invalid", code: 64),
    Mistake(
      arguments: demo + ["--memory", "4Gibs"], message: "The value '4Gibs' is invalid", code: 64),
    Mistake(arguments: demo + ["--memory", "0"], message: "too small for this model"),
    Mistake(
      arguments: ["run", Samples.demo],
      message: "Give one of --prompt, --prompt-file and --token-ids", code: 64),
    Mistake(
      arguments: demo + ["--token-ids", "1"],
      message: "Give one of --prompt, --prompt-file and --token-ids", code: 64),
    Mistake(
      arguments: ["run", Samples.demo, "--prompt-file", "absent.txt"],
      message: "could not read 'absent.txt'"),
    Mistake(arguments: tiny + ["--token-ids", ""], message: "the prompt is empty"),
    Mistake(
      arguments: tiny + ["--token-ids", "1,two"], message: "The value '1,two' is invalid", code: 64),
    Mistake(
      arguments: tiny + ["--token-ids", "1,2,3,4", "--context", "2", "--max-tokens", "1"],
      message: "4 tokens of prompt and continuation do not fit a context of 2"),
    Mistake(
      arguments: tiny + ["--token-ids", "1", "--context", "257"],
      message: "--context is 257, expected 1 to 256"),
    Mistake(
      arguments: tiny + ["--token-ids", "1,320"],
      message: "token id 320 is not in the vocabulary, which has 320 tokens"),
    Mistake(
      arguments: tiny + ["--token-ids", "-1,1"], message: "token-ids", code: 64),
    Mistake(
      arguments: tiny + ["--token-ids", "1", "--forced-ids", "2,400"],
      message: "token id 400 is not in the vocabulary"),
    Mistake(
      arguments: tiny + ["--token-ids", "1", "--threads", "0"],
      message: "--threads is 0, expected 1 to 256"),
    Mistake(
      arguments: tiny + ["--token-ids", "1", "--temperature", "nan"], message: "temperature"),
    Mistake(
      arguments: tiny + ["--token-ids", "1", "--max-tokens", "\(Int.max)"],
      message: "do not fit a context of"),
    Mistake(arguments: ["demo", "--max-tokens", "\(Int.max)"], message: "do not fit a context of"),
    Mistake(
      arguments: tiny + ["--token-ids", "1", "--io", "carrier-pigeon"],
      message: "The value 'carrier-pigeon' is invalid", code: 64),
    Mistake(
      arguments: tiny + ["--token-ids", "1"],
      message: "STOKER_KERNELS is 'nonsense', but must be one of portable, avx2, avx512",
      environment: ["STOKER_KERNELS": "nonsense"]),
    Mistake(
      arguments: ["perplexity", Samples.tinyOLMoE], message: "Give a text file or --token-ids",
      code: 64),
    Mistake(
      arguments: ["perplexity", Samples.tinyOLMoE, "--token-ids", "1,2"],
      message: "the text has 2 tokens; scoring needs at least 3"),
    Mistake(
      arguments: [
        "perplexity", Samples.tinyOLMoE, "--token-ids", "1,2,3", "--logits", "/dev/null/out",
      ], message: "could not write to '/dev/null/out.partial': Not a directory"),
  ]

  @Test(arguments: mistakes)
  func mistakesAreExplainedOnStandardError(_ mistake: Mistake) throws {
    let outcome = try StokerProcess.run(mistake.arguments, environment: mistake.environment)
    #expect(outcome.exit == .code(mistake.code))
    #expect(outcome.output.isEmpty)
    #expect(outcome.errors.hasPrefix("Error: "))
    #expect(outcome.errors.contains(mistake.message))
  }

  @Test(arguments: [Samples.demo, Samples.tinyOLMoE])
  func theMinimumThatTooSmallABudgetIsToldWorks(_ model: String) throws {
    let arguments = ["run", model, "--token-ids", "1,2", "--max-tokens", "4", "--json"]
    let refused = try StokerProcess.run(arguments + ["--memory", "1MiB"])
    #expect(refused.exit == .code(1))
    #expect(refused.output.isEmpty)
    #expect(refused.errors.contains("a memory budget of 1.00 MiB is too small for this model"))
    let advice = try #require(refused.errors.firstMatch(of: /\(--memory (\d+)MiB\)/)?.1)
    let minimum = try #require(Int(advice))

    let report: RunReport =
      try StokerProcess.run(arguments + ["--memory", "\(minimum)MiB"]).json()
    #expect(report.tokenIds.count == 4)
    #expect(report.account.memoryBudget == minimum << 20)
    // The advice is the least whole number of MiB, so one less is refused again.
    let below = try StokerProcess.run(arguments + ["--memory", "\(minimum - 1)MiB"])
    #expect(below.exit == .code(1))
  }
}

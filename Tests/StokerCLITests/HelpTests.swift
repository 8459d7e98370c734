import Testing

@Suite struct HelpTests {
  static let modelOptions = [
    "--memory", "--context", "--threads", "--io", "--direct", "--kv-type", "--help",
  ]

  @Test(
    arguments: [
      ("demo", modelOptions + ["--prompt", "--max-tokens", "--json"]),
      (
        "run",
        modelOptions + [
          "<model>", "--prompt", "--prompt-file", "--token-ids", "--max-tokens", "--forced-ids",
          "--ignore-end", "--record", "--stats", "--json", "--temperature", "--top-k", "--top-p",
          "--min-p",
          "--repetition-penalty", "--seed",
        ]
      ),
      (
        "perplexity",
        modelOptions + ["<model>", "<file>", "--token-ids", "--logits", "--json"]
      ),
      ("inspect", modelOptions + ["<model>", "--disk", "--json"]),
      (
        "synth",
        [
          "<output>", "--like", "--quant", "--layers", "--experts", "--seed", "--force", "--json",
          "--help",
        ]
      ),
      (
        "replay",
        [
          "<traces>", "--policy", "--memory", "--scope", "--batch", "--phase", "--fit", "--json",
          "--csv", "--experts", "--expert-bytes", "--help",
        ]
      ),
      ("calibrate", ["--directory", "--output", "--threads", "--trial", "--json", "--help"]),
      (
        "plan",
        [
          "<model>", "--shape", "--type", "--memory", "--device-memory", "--hardware", "--profile",
          "--trace", "--no-history", "--context", "--prompt-tokens", "--max-tokens", "--prefetch",
          "--sweep",
          "--html", "--verify", "--compare", "--output", "--json", "--help",
        ]
      ),
      ("fit-predictor", ["<model>", "--text", "--tokens", "--distances", "--json", "--help"]),
      ("predict-eval", ["<subject>", "--text", "--more", "--distance", "--html", "--json"]),
      ("trace", ["info", "import", "export", "merge", "slice", "permute", "--help"]),
    ])
  func everySubcommandListsItsOptions(_ name: String, options: [String]) throws {
    let outcome = try StokerProcess.run([name, "--help"])
    #expect(outcome.exit == .code(0))
    #expect(outcome.errors.isEmpty)
    // An option is listed at the start of a line; the usage line alone would not explain it.
    let listed = outcome.output.split(separator: "\n").flatMap { line in
      line.hasPrefix("  ") ? line.split(whereSeparator: { " ,".contains($0) }) : []
    }
    for option in options {
      #expect(listed.contains(Substring(option)), "\(name) --help does not list \(option)")
    }
  }

  @Test func theProgramListsItsSubcommands() throws {
    let outcome = try StokerProcess.run(["--help"])
    #expect(outcome.exit == .code(0))
    for name in ["demo", "run", "perplexity", "inspect", "synth", "fit-predictor", "predict-eval"] {
      #expect(outcome.output.contains("\n  \(name) "), "--help does not list \(name)")
    }
  }

  @Test func unknownSubcommandsAndOptionsAreErrors() throws {
    for arguments in [["nonsense"], ["inspect", Samples.tinyOLMoE, "--nonsense"]] {
      let outcome = try StokerProcess.run(arguments)
      #expect(outcome.exit == .code(64))
      #expect(outcome.output.isEmpty)
      #expect(outcome.errors.contains("nonsense"))
    }
  }
}

import Testing

@Suite struct InspectTests {
  @Test func theReportDescribesTheModel() throws {
    let demo = try InspectReport.of(Samples.demo, context: 64)
    #expect(demo.architecture == "qwen3moe")
    #expect(demo.layers == 8)
    #expect(demo.experts == 32)
    #expect(demo.vocabulary == 4096)
    #expect(demo.context == 64)
    #expect(demo.minimumBudget > 0 && demo.minimumBudget < demo.fullBudget)

    let tiny = try InspectReport.of(Samples.tinyOLMoE, context: 64)
    #expect(tiny.architecture == "olmoe")
    #expect(tiny.layers == 3)
    #expect(tiny.experts == 8)
    #expect(tiny.expertsPerToken == 3)
    #expect(tiny.vocabulary == 320)
  }

  @Test func aLargerContextNeedsMore() throws {
    let small = try InspectReport.of(Samples.demo, context: 16)
    let large = try InspectReport.of(Samples.demo, context: 512)
    #expect(small.minimumBudget < large.minimumBudget)
    #expect(small.fullBudget < large.fullBudget)
  }

  @Test func aTokenReadsOneRowOfAnEmbeddingThatIsNotTheHead() throws {
    let tied = try InspectReport.of(Samples.fixture("tiny-qwen3moe-tied.gguf"), context: 16)
    #expect(tied.activeBytesPerToken == tied.activeExpertBytes + tied.denseBytes)
    let untied = try InspectReport.of(Samples.tinyQwen, context: 16)
    // The fixture's embedding is F32.
    let unread = (untied.vocabulary - 1) * untied.hiddenSize * 4
    #expect(untied.activeBytesPerToken == untied.activeExpertBytes + untied.denseBytes - unread)
  }

  @Test(arguments: ["tiny-glm4moe", "tiny-glm4moe.gguf"])
  func whatIsBesideRoutedExpertsIsTold(_ name: String) throws {
    let outcome = try StokerProcess.run(["inspect", Samples.fixture(name)])
    #expect(outcome.exit == .code(0), "\(outcome.errors)")
    #expect(outcome.output.contains("shared ones of width 16; first layer dense, width 24"))
    #expect(outcome.output.contains("layers 1-2"))
  }

  @Test func aFolderRunsAsItsGGUFFileDoes() throws {
    let outputs = try ["tiny-mixtral", "tiny-mixtral.gguf"].map { name in
      let outcome = try StokerProcess.run([
        "run", Samples.fixture(name), "--prompt", "The heat of", "--max-tokens", "12",
        "--temperature", "0", "--ignore-end", "--no-history",
      ])
      #expect(outcome.exit == .code(0), "\(outcome.errors)")
      return outcome.output
    }
    #expect(outputs[0] == outputs[1] && outputs[0].count > 4)
    let none = try StokerProcess.run(["inspect", Samples.fixture("")])
    #expect(none.exit != .code(0) && none.errors.contains("config.json"), "\(none.errors)")
  }

  @Test func theTableForPeopleNamesBothBudgets() throws {
    let outcome = try StokerProcess.run(["inspect", Samples.tinyQwen])
    #expect(outcome.exit == .code(0))
    for row in ["architecture ", "experts ", "minimum budget ", "full budget "] {
      #expect(outcome.output.contains(row))
    }
  }
}

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

  @Test func theTableForPeopleNamesBothBudgets() throws {
    let outcome = try StokerProcess.run(["inspect", Samples.tinyQwen])
    #expect(outcome.exit == .code(0))
    for row in ["architecture ", "experts ", "minimum budget ", "full budget "] {
      #expect(outcome.output.contains(row))
    }
  }
}

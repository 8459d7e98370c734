import FoundationEssentials
import Testing

/// The promise of `--memory`: the whole process stays below it.
@Suite struct MemoryBudgetTests {
  @Test(arguments: [Samples.demo, Samples.tinyOLMoE], ["uring", "pread"])
  func peakResidentMemoryStaysUnderTheBudget(_ model: String, engine: String) async {
    // In a fresh process: Linux counts the peak of the process that starts another as the other's
    // own, and the one that runs all tests may have held more than a budget.
    await #expect(processExitsWith: .success) { [model, engine] in
      let context = 24
      let needs = try InspectReport.of(model, context: context)
      let half = (needs.minimumBudget + needs.fullBudget) / 2
      let status = FileManager.default.contents(atPath: "/proc/self/status") ?? Data()
      let ownPeak = String(decoding: status, as: UTF8.self).firstMatch(of: /VmHWM:.*/)?.0 ?? ""
      var slots: [Int] = []
      var tokens: [[Int32]] = []
      for budget in [needs.minimumBudget, half, needs.fullBudget] {
        let outcome = try StokerProcess.run([
          "run", model, "--token-ids", "1,2,3,4,5,6,7,8", "--temperature", "0", "--ignore-end",
          "--max-tokens", "16", "--json", "--context", "\(context)", "--memory", "\(budget)",
          "--io", engine,
        ])
        let report: RunReport = try outcome.json()
        #expect(report.account.memoryBudget == budget)
        #expect(report.account.configuration.engine == (engine == "uring" ? "io_uring" : engine))
        #expect(report.account.peakResidentByteCount <= budget)
        #expect(
          outcome.peakResidentByteCount <= budget,
          "the process that measures has taken \(ownPeak)")
        slots.append(report.account.configuration.slots)
        tokens.append(report.tokenIds)
      }
      #expect(slots[0] < slots[1] && slots[1] < slots[2])
      #expect(tokens[0].count == 16)
      #expect(tokens[0] == tokens[1] && tokens[1] == tokens[2])
    }
  }
}

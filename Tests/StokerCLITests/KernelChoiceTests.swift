import Testing

@Suite struct KernelChoiceTests {
  private func report(kernels: String?) throws -> RunReport {
    try StokerProcess.run(
      ["run", Samples.tinyQwen, "--token-ids", "1,2,3", "--max-tokens", "4", "--json"],
      environment: kernels.map { ["STOKER_KERNELS": $0] } ?? [:]
    ).json()
  }

  @Test func theBestKernelsAreNoFallback() throws {
    let best = try report(kernels: nil).account.configuration
    #expect(["portable", "avx2", "avx512"].contains(best.kernels))
    #expect(!best.fallbacks.contains { $0.contains("kernels") })
    let asked = try report(kernels: best.kernels).account.configuration
    #expect(asked == best)
  }

  @Test(arguments: ["portable", "avx2"])
  func lesserKernelsAreUsedAndListedAsAFallback(_ name: String) throws {
    let best = try report(kernels: nil).account.configuration.kernels
    let order = ["portable", "avx2", "avx512"]
    let bestRank = try #require(order.firstIndex(of: best))
    let rank = try #require(order.firstIndex(of: name))
    guard rank <= bestRank else {
      let outcome = try StokerProcess.run(
        ["run", Samples.tinyQwen, "--token-ids", "1"], environment: ["STOKER_KERNELS": name])
      #expect(outcome.exit == .code(1))
      #expect(outcome.errors.contains("this processor has \(best) at most"))
      return
    }
    let configuration = try report(kernels: name).account.configuration
    #expect(configuration.kernels == name)
    let sentence = "kernels are capped to \(name) by STOKER_KERNELS; this processor has \(best)"
    #expect(configuration.fallbacks.contains(sentence) == (rank < bestRank))

    let table = try StokerProcess.run(
      ["run", Samples.tinyQwen, "--token-ids", "1", "--max-tokens", "1", "--stats"],
      environment: ["STOKER_KERNELS": name]
    ).errors.split(separator: "\n")
    #expect(table.contains { $0.hasPrefix("kernels ") && $0.contains(" \(name), ") })
    #expect(
      table.contains { $0.hasPrefix("fallbacks ") && $0.contains(sentence) } == (rank < bestRank))
  }
}

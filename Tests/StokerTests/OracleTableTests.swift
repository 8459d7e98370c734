import Checkpoints
import FoundationEssentials
import Testing

@testable import Stoker

/// `Tests/Fixtures/ORACLES.md`, made anew and held against the file. With STOKER_WRITE_ORACLES=1 it is written.
@Suite struct OracleTableTests {
  private struct Row {
    let architecture: String
    let fixture: String
    let format: String
    var logits: String
    var greedy: String
    let llama: String
    let identity: String

    var line: String {
      "| \(architecture) | `\(fixture)` | \(format) | \(logits) | \(greedy) | \(llama) | \(identity) |"
    }
  }

  @Test func theTableOfOraclesIsTrue() throws {
    let judged = try JSONDecoder().decode(
      [String: String].self, from: Fixtures.data("llama-cpp.json"))
    var rows: [Row] = []
    for name in Fixtures.tinyModels {
      let verdict = try #require(judged[name], "llama-cpp.json lacks \(name)")
      rows.append(
        try row(name, format: "GGUF", path: Fixtures.tiny(name), llama: Self.cell(verdict)))
      if Fixtures.packedFolders.contains(name) {
        var own = try row(
          name, format: "safetensors", path: Fixtures.folder(name), llama: "reads none")
        let isSame = try PackedExpertTests().holdsTheValuesOfItsGGUF(name)
        own.logits = isSame ? "the weights of GGUF's" : "other weights"
        own.greedy += ", by activations of 8 bits"
        rows.append(own)
      }
      guard Fixtures.tinyFolders.contains(name) else { continue }
      rows.append(
        try row(name, format: "safetensors", path: Fixtures.folder(name), llama: "reads none"))
    }
    let table =
      """
      # Oracles

      What every architecture is held to, in F32, by a tiny random checkpoint ([README.md](README.md)): the largest
      difference of a logit from transformers' for prompts taken whole and token by token, greedy tokens of three
      prompts, llama.cpp's opinion (`check_with_llama_cpp.py --record`), and whether the smallest budget with other
      reads and threads gives the bits of the largest. Made by a test: `STOKER_WRITE_ORACLES=1 .ci/test --filter
      theTableOfOraclesIsTrue`.

      | architecture | fixture | format | transformers | greedy tokens | llama.cpp | smallest budget |
      |---|---|---|---|---|---|---|

      """ + rows.map { $0.line + "\n" }.joined()
    let file = Fixtures.repository.appendingPathComponent("Tests/Fixtures/ORACLES.md")
    if ProcessInfo.processInfo.environment["STOKER_WRITE_ORACLES"] != nil {
      try Data(table.utf8).write(to: file)
    }
    #expect(String(decoding: try Data(contentsOf: file), as: UTF8.self) == table)
    #expect(rows.allSatisfy { ["within 1e-3", "the weights of GGUF's"].contains($0.logits) })
    #expect(rows.allSatisfy { $0.identity == "same bits" })
  }

  private static func cell(_ verdict: String) -> String {
    verdict == "agrees" ? "within 2e-4" : "cannot judge: \(verdict)"
  }

  private func row(_ name: String, format: String, path: String, llama: String) throws -> Row {
    let reference = try Reference.named(name)
    let expected = Fixtures.floats(try Fixtures.data("\(name).logits.f32"))
    let file = try ModelFile(path: path)
    let model = try Fixtures.model(path, ModelOptions(keyValueType: .f32))
    let width = reference.vocabularySize
    var (row, largest, right, all): (Int, Float, Int, Int) = (0, 0, 0, 0)
    for prompt in reference.prompts {
      let whole = try Fixtures.logits(model, prompt.ids)
      for (position, logits) in whole.enumerated() {
        let alone = try Fixtures.logits(model, [prompt.ids[position]], at: position)[0]
        let exact = expected[(row * width)..<((row + 1) * width)]
        largest = max(largest, largestDifference(logits, exact), largestDifference(alone, exact))
        row += 1
      }
      let tokens = try model.generate(
        GenerationRequest(
          prompt: prompt.ids, maxTokens: 32, sampling: SamplingParameters(temperature: 0),
          ignoresEnd: true)
      ).tokens
      let continuation = prompt.greedyIds.dropFirst(prompt.ids.count)
      right += zip(tokens, continuation).count { $0 == $1 }
      all += continuation.count
    }
    let identical = try IdentityTests().smallestBudgetGivesTheBitsOfTheLargest(file)
    return Row(
      architecture: file.description.architecture.rawValue, fixture: name, format: format,
      logits: largest < 1e-3 ? "within 1e-3" : "off by \(largest)",
      greedy: "\(right) of \(all)", llama: llama,
      identity: identical ? "same bits" : "other bits")
  }
}

import Checkpoints
import FoundationEssentials
import Testing

@testable import Stoker

/// What transformers computed in float32 on the same weights (Tests/Fixtures/README.md).
struct Reference: Decodable {
  struct Prompt: Decodable {
    let ids: [Int32]
    /// The prompt and its greedy continuation.
    let greedyIds: [Int32]
    let greedyText: String?
  }
  struct Text: Decodable {
    let text: String
    let ids: [Int32]
  }
  let vocabularySize: Int
  let texts: [Text]
  let prompts: [Prompt]

  static func named(_ name: String) throws -> Reference {
    try decoder().decode(Reference.self, from: Fixtures.data("\(name).json"))
  }
}

private func decoder() -> JSONDecoder {
  let decoder = JSONDecoder()
  decoder.keyDecodingStrategy = .convertFromSnakeCase
  return decoder
}

private let greedy = SamplingParameters(temperature: 0)

@Suite struct OracleTests {
  @Test(arguments: Fixtures.tinyModels)
  func tinyModelsAgreeWithTransformers(_ name: String) throws {
    try expectAgreement(name, path: Fixtures.tiny(name))
  }

  @Test(arguments: Fixtures.tinyFolders)
  func foldersAgreeWithTransformers(_ name: String) throws {
    try expectAgreement(name, path: Fixtures.folder(name))
  }

  private func expectAgreement(_ name: String, path: String) throws {
    let reference = try Reference.named(name)
    let expected = Fixtures.floats(try Fixtures.data("\(name).logits.f32"))
    let model = try Fixtures.model(path, ModelOptions(keyValueType: .f32))
    let width = reference.vocabularySize
    var row = 0
    for prompt in reference.prompts {
      for logits in try Fixtures.logits(model, prompt.ids) {
        #expect(largestDifference(logits, expected[(row * width)..<((row + 1) * width)]) < 1e-3)
        row += 1
      }
      let continuation = try model.generate(
        GenerationRequest(prompt: prompt.ids, maxTokens: 32, sampling: greedy, ignoresEnd: true))
      #expect(prompt.ids + continuation.tokens == prompt.greedyIds)
    }
    #expect(row * width == expected.count)
    for text in reference.texts {
      #expect(model.file.tokenizer.encode(text.text) == text.ids, "\(text.text.debugDescription)")
    }
  }

  @Test func everyArchitectureHasAnOracle() throws {
    let names = try Fixtures.tinyModels.map {
      try ModelFile(path: Fixtures.tiny($0)).description.architecture
    }
    #expect(Set(names) == Set(Architecture.allCases))
  }

  /// Few tokens and many take different kernels: every split of a prompt is held to the oracle.
  @Test(
    arguments: Fixtures.tinyModels,
    [1, 2, 5, 19])
  func splitPromptsAgreeWithTransformers(_ name: String, chunk: Int) throws {
    let reference = try Reference.named(name)
    let expected = Fixtures.floats(try Fixtures.data("\(name).logits.f32"))
    let model = try Fixtures.model(Fixtures.tiny(name))
    let width = reference.vocabularySize
    var row = 0
    for prompt in reference.prompts {
      for start in stride(from: 0, to: prompt.ids.count, by: chunk) {
        let part = Array(prompt.ids[start..<min(start + chunk, prompt.ids.count)])
        for logits in try Fixtures.logits(model, part, at: start) {
          #expect(largestDifference(logits, expected[(row * width)..<((row + 1) * width)]) < 1e-3)
          row += 1
        }
      }
    }
    #expect(row * width == expected.count)
  }

  /// Positions far beyond those that YaRN begins from, and windows that are passed many times.
  @Test func longPromptsAgreeWithTransformers() throws {
    struct Prompt: Decodable {
      let ids: [Int32]
      let logits: [[Float]]
    }
    let prompts = try decoder().decode(
      [String: Prompt].self, from: Fixtures.data("long-prompts.json"))
    #expect(prompts.count >= 5)
    for (name, prompt) in prompts {
      var paths = [Fixtures.tiny(name)]
      if Fixtures.tinyFolders.contains(name) { paths.append(Fixtures.folder(name)) }
      for path in paths {
        for chunk in [prompt.ids.count, 64, 1] {
          let model = try Fixtures.model(path, ModelOptions(keyValueType: .f32))
          var found: [[Float]] = []
          for start in stride(from: 0, to: prompt.ids.count, by: chunk) {
            let part = Array(prompt.ids[start..<min(start + chunk, prompt.ids.count)])
            found += try Fixtures.logits(model, part, at: start)
          }
          for (row, expected) in zip(found.suffix(prompt.logits.count), prompt.logits) {
            #expect(largestDifference(row, expected) < 1e-3, "\(path) by \(chunk)")
          }
        }
      }
    }
  }

  @Test(.enabled(if: Fixtures.hasDemoF32, "run .ci/test with ../shared present"))
  func demoModelAgreesWithTransformers() throws {
    let prompts = try decoder().decode(
      [Reference.Prompt].self,
      from: Data(contentsOf: Fixtures.sharedDemo.appendingPathComponent("reference.json")))
    let model = try Fixtures.model(Fixtures.demoF32)
    for (index, prompt) in prompts.enumerated() {
      let expected = Fixtures.floats(
        try Data(contentsOf: Fixtures.sharedDemo.appendingPathComponent("logits-\(index).f32")))
      let logits = try Fixtures.logits(model, prompt.ids).flatMap { $0 }
      #expect(largestDifference(logits, expected) < 2e-3)
      let continuation = try model.generate(
        GenerationRequest(prompt: prompt.ids, maxTokens: 64, sampling: greedy, ignoresEnd: true))
      #expect(prompt.ids + continuation.tokens == prompt.greedyIds)
      let text = try model.file.tokenizer.decode(continuation.tokens)
      #expect(String(decoding: text, as: UTF8.self) == prompt.greedyText)
    }
  }

  /// llama.cpp's figures for the same files, from the README beside them.
  @Test(
    .enabled(if: Fixtures.hasSharedDemo, "needs ../shared"),
    arguments: [
      ("Q8_0", "prose", 93.21), ("Q8_0", "code", 31.33), ("Q4_0", "prose", 93.44),
      ("Q4_0", "code", 31.28), ("Q4_K_M", "prose", 93.36), ("Q4_K_M", "code", 31.46),
    ])
  func demoPerplexityAgreesWithLlamaCpp(type: String, text: String, expected: Double) throws {
    let path = Fixtures.sharedDemo.appendingPathComponent("demo-\(type).gguf").path
    let model = try Fixtures.model(path, ModelOptions(context: 512))
    let bytes = try Data(contentsOf: Fixtures.sharedDemo.appendingPathComponent("\(text).txt"))
    let ids = model.file.tokenizer.encodePrompt(bytes: Array(bytes))
    let result = try model.perplexity(of: ids, window: 512)
    #expect(abs(result.perplexity / expected - 1) < 0.005)
  }
}

import FoundationEssentials
import Tensors
import Testing

@testable import Checkpoints

/// What the `gguf` Python package reads; see `Fixtures/make_demo_facts.py`.
private struct DemoFacts: Decodable {
  struct Value: Decodable {
    let key: String
    let type: String
    let value: String?
    let count: Int?
    let hash: String?
  }

  struct Tensor: Decodable {
    let name: String
    let type: String
    let shape: [Int]
    let offset: UInt64
    let bytes: Int
  }

  let file: String
  let version: UInt32
  let metadata: [Value]
  let tensors: [Tensor]
}

private let here = #filePath.split(separator: "/", omittingEmptySubsequences: false)
/// Tests/CheckpointsTests lies two levels below the repository, and `shared` beside it.
private let demoFolder = here.dropLast(4).joined(separator: "/") + "/shared/models/demo"
private let factsPath = here.dropLast().joined(separator: "/") + "/Fixtures/demo-facts.json"

private let demoNames = ["demo-Q4_0.gguf", "demo-Q4_K_M.gguf", "demo-Q8_0.gguf"]

private func demoIsPresent() -> Bool {
  demoNames.allSatisfy { (try? readFile("\(demoFolder)/\($0)")) != nil }
}

@Suite(.enabled(if: demoIsPresent(), "the demo checkpoints are not beside the repository"))
struct DemoCheckpointTests {
  private func facts(_ name: String) throws -> DemoFacts {
    let all = try JSONDecoder().decode([DemoFacts].self, from: Data(readFile(factsPath)))
    return try #require(all.first { $0.file == name })
  }

  @Test(arguments: demoNames)
  func headersAgreeWithTheReferenceReader(name: String) throws {
    let facts = try facts(name)
    let checkpoint = try Checkpoint.open("\(demoFolder)/\(name)")
    #expect(checkpoint.version == facts.version)
    #expect(checkpoint.metadata.count == facts.metadata.count)
    for fact in facts.metadata {
      let value = try #require(checkpoint.metadata[fact.key])
      #expect(value.typeName == fact.type)
      if case .array(let array) = value {
        #expect(array.count == fact.count)
        #expect("\(hash(array))" == fact.hash, "\(fact.key)")
      } else {
        #expect(text(value) == fact.value, "\(fact.key)")
      }
    }
    #expect(checkpoint.tensorOrder == facts.tensors.map(\.name))
    for fact in facts.tensors {
      let info = try checkpoint.tensor(fact.name)
      #expect(info.type.name == fact.type)
      #expect(info.shape == fact.shape)
      #expect(info.offset == fact.offset)
      #expect(info.byteCount == fact.bytes)
    }
  }

  @Test(arguments: demoNames)
  func theModelIsDescribed(name: String) throws {
    let (checkpoint, model, layout) = try describe("\(demoFolder)/\(name)")
    #expect(model.architecture == .qwen3moe)
    #expect(model.name == "Demo Model")
    #expect([model.layerCount, model.hiddenSize, model.vocabularySize] == [8, 256, 4_096])
    #expect([model.headCount, model.kvHeadCount, model.headDimension] == [4, 2, 64])
    #expect(
      [model.expertCount, model.expertsPerToken, model.expertFeedForwardSize] == [32, 4, 128])
    #expect(model.contextLength == 1_024)
    #expect(model.rmsEpsilon == 1e-6)
    #expect(model.tiedOutput)
    #expect(try checkpoint.strings("tokenizer.ggml.tokens").string(at: 0) == "<|endoftext|>")
    #expect(layout.shapes.count == 8)
    if name == "demo-Q4_K_M.gguf" {
      #expect(
        layout.shapes.map(\.downType)
          == [.q8_0, .q5_0, .q5_0, .q8_0, .q5_0, .q5_0, .q8_0, .q8_0])
      #expect(layout.shape(layer: 0).gateByteCount == 18_432)
      #expect(layout.slices(layer: 0, expert: 1).down.offset == 1_117_408 + 34_816)
    }
  }

  private func text(_ value: MetadataValue) -> String? {
    switch value {
    case .string(let string): string
    case .uint32(let number): "\(number)"
    case .float32(let number): "\(number.bitPattern)"
    default: nil
    }
  }

  private func hash(_ array: MetadataArray) -> UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    func add(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    switch array {
    case .string(let table): for index in 0..<table.count { table[index].forEach(add) }
    case .int32(let numbers):
      for number in numbers { withUnsafeBytes(of: number.littleEndian) { $0.forEach(add) } }
    default: Issue.record("the demo has no \(array.typeName)")
    }
    return hash
  }
}

import FoundationEssentials
import Logging
import Testing

@testable import Stoker

/// Files the tests read, from their place in the source tree.
enum Fixtures {
  static let repository = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let shared = repository.deletingLastPathComponent().appendingPathComponent("shared")
  static let sharedDemo = shared.appendingPathComponent("models/demo")
  static let demo = repository.appendingPathComponent(
    "Sources/StokerCLI/Resources/demo-Q4_K_M.gguf"
  ).path
  /// Made by .ci/test from the demo checkpoint, where it is present.
  static let demoF32 = repository.appendingPathComponent(".build-fixtures/demo-F32.gguf").path

  static let hasSharedDemo = FileManager.default.fileExists(atPath: sharedDemo.path)
  static let hasDemoF32 = hasSharedDemo && FileManager.default.fileExists(atPath: demoF32)

  /// The checkpoints that transformers has computed with, every architecture among them.
  static let tinyModels = [
    "tiny-olmoe", "tiny-olmoe-clip", "tiny-qwen3moe", "tiny-qwen3moe-tied", "tiny-mixtral",
    "tiny-qwen2moe", "tiny-granitemoe", "tiny-granitemoe-shared", "tiny-glm4moe",
    "tiny-glm4moe-air", "tiny-ernie4_5moe", "tiny-gpt-oss", "tiny-deepseek2-lite",
    "tiny-deepseek2", "tiny-deepseek3", "tiny-qwen3moe-fp8", "tiny-deepseek3-fp8",
    "tiny-glm4moe-fp8", "tiny-phimoe", "tiny-qwen3next", "tiny-qwen35moe",
    "tiny-gpt-oss-mxfp4",
  ]

  /// Those that are there as transformers saves them too, one of each architecture.
  static let tinyFolders = [
    "tiny-olmoe-clip", "tiny-qwen3moe-tied", "tiny-mixtral", "tiny-qwen2moe",
    "tiny-granitemoe-shared", "tiny-glm4moe", "tiny-ernie4_5moe", "tiny-qwen3moe-fp8",
    "tiny-deepseek2-lite", "tiny-deepseek3", "tiny-deepseek3-fp8", "tiny-glm4moe-fp8",
    "tiny-phimoe", "tiny-qwen3next", "tiny-qwen35moe",
  ]

  /// Those whose folder has experts in 4-bit floats, which are multiplied with activations of 8 bits.
  static let packedFolders = ["tiny-gpt-oss-mxfp4"]

  static func folder(_ name: String) -> String {
    repository.appendingPathComponent("Tests/Fixtures/\(name)").path
  }

  static func tiny(_ name: String) -> String {
    repository.appendingPathComponent("Tests/Fixtures/\(name).gguf").path
  }

  static func data(_ name: String) throws -> Data {
    try Data(contentsOf: repository.appendingPathComponent("Tests/Fixtures/\(name)"))
  }

  static func floats(_ data: Data) -> [Float] {
    data.withUnsafeBytes { bytes in
      (0..<(bytes.count / 4)).map {
        Float(
          bitPattern: UInt32(
            littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self)))
      }
    }
  }

  /// A model with every expert resident, unless `memory` says otherwise.
  static func model(_ path: String, _ options: ModelOptions = ModelOptions()) throws -> MoEModel {
    try MoEModel(try ModelFile(path: path), options: options, logger: Logger(label: "test"))
  }

  /// A model that holds as few experts as it can and reads none ahead. What the process takes is a number here, as
  /// other tests grow it meanwhile.
  static func smallestModel(_ path: String) throws -> MoEModel {
    var options = ModelOptions(processMemory: 32 << 20, prefetch: .off)
    options.memory = try ModelFile(path: path).requirements(options).minimumBudget
    return try model(path, options)
  }

  /// The logits of every token of `ids`, run as one prompt: [tokens][vocabulary].
  static func logits(
    _ model: MoEModel, _ ids: [Int32], at position: Int = 0
  ) throws -> [[Float]] {
    var rows: [[Float]] = []
    let ran = try model.prefill(
      ids[...], at: position, logits: .all, isCancelled: { false }, { rows.append(Array($1)) })
    #expect(ran)
    return rows
  }
}

/// The largest absolute difference; infinite where one is NaN or the sizes differ.
func largestDifference(_ a: [Float], _ b: some Collection<Float>) -> Float {
  guard a.count == b.count else { return .infinity }
  var largest: Float = 0
  for (x, y) in zip(a, b) {
    guard !x.isNaN, !y.isNaN else { return .infinity }
    largest = max(largest, (x - y).magnitude)
  }
  return largest
}

import FoundationEssentials
import Testing

/// Files of the repository that the tests use.
enum Samples {
  static let repository = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
  static let demo = repository + "/Sources/StokerCLI/Resources/demo-Q4_K_M.gguf"
  static let tinyOLMoE = fixture("tiny-olmoe.gguf")
  static let tinyQwen = fixture("tiny-qwen3moe.gguf")

  static func fixture(_ name: String) -> String { repository + "/Tests/Fixtures/" + name }
}

/// The part of `stoker run --json` that the tests look at.
struct RunReport: Decodable, Equatable {
  struct Statistics: Decodable, Equatable { let run: Account }

  struct Account: Decodable, Equatable {
    let cancelled: Bool
    let configuration: Configuration
    let experts: Experts
    let generatedTokens: Int
    let memoryBudget: Int
    let peakResidentByteCount: Int
    let promptTokens: Int
    let decodeSeconds: [Double]
  }

  struct Configuration: Decodable, Equatable {
    let engine: String
    let experts: Int
    let fallbacks: [String]
    let kernels: String
    let slots: Int
  }

  struct Experts: Decodable, Equatable {
    struct Accesses: Decodable, Equatable {
      let hits: Int
      let misses: Int
    }
    let decode: Accesses
    let prefill: Accesses
  }

  let text: String
  let tokenIds: [Int32]
  let statistics: Statistics
  var account: Account { statistics.run }
}

/// The part of `stoker inspect --json` that the tests look at.
struct InspectReport: Decodable {
  struct ExpertGroup: Decodable {
    let byteCount: Int
    let firstLayer: Int
    let lastLayer: Int
  }

  let activeBytesPerToken: Int
  let architecture: String
  let context: Int
  let denseBytes: Int
  let expertGroups: [ExpertGroup]
  let experts: Int
  let expertsPerToken: Int
  let fullBudget: Int
  let hiddenSize: Int
  let layers: Int
  let minimumBudget: Int
  let vocabulary: Int

  /// Bytes of the experts that one token uses.
  var activeExpertBytes: Int {
    expertGroups.reduce(0) {
      $0 + $1.byteCount * ($1.lastLayer - $1.firstLayer + 1) * expertsPerToken
    }
  }

  /// What `stoker inspect` says of `model` for a run with `context` positions.
  static func of(_ model: String, context: Int) throws -> InspectReport {
    try StokerProcess.run(["inspect", model, "--json", "--context", "\(context)"]).json()
  }
}

/// The oracle of a tiny model: prompts and their greedy continuations.
struct TinyReference: Decodable {
  struct Prompt: Decodable {
    let ids: [Int32]
    let greedyIds: [Int32]
  }
  let prompts: [Prompt]

  static func of(_ model: String) throws -> TinyReference {
    let data = try Data(contentsOf: URL(fileURLWithPath: Samples.fixture("\(model).json")))
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(TinyReference.self, from: data)
  }
}

extension StokerProcess.Outcome {
  /// Standard output as JSON of a run that must have succeeded.
  func json<T: Decodable>(as type: T.Type = T.self) throws -> T {
    try #require(exit == .code(0), "\(errors)")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(T.self, from: Data(output.utf8))
  }
}

/// Token ids as the command line takes them.
func joined(_ ids: some Sequence<Int32>) -> String { ids.map(String.init).joined(separator: ",") }

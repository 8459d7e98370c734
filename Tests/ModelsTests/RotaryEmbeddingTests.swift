import Foundation
import Testing

@testable import Checkpoints
@testable import Models

/// Rotary position embedding against transformers (Tests/Fixtures/make_rope_fixture.py).
@Suite struct RotaryEmbeddingTests {
  private struct Case: Decodable {
    let headDim: Int
    let ropeTheta: Float
    let factor: Float
    let originalMaxPositionEmbeddings: Int?
    /// The tokens that the angles are for; nil: any.
    let context: Int?
    let frequencies: [Float]
    let magnitude: Float
  }

  /// What a folder's configuration says.
  private struct Metadata: MetadataSource {
    let path: String
    let metadata: [String: MetadataValue]
  }

  /// The cases, and each as the object that transformers was given.
  private func cases() throws -> [(Case, [String: Any])] {
    let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Fixtures/rope.json")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let data = try Data(contentsOf: path)
    let objects = try #require(JSONSerialization.jsonObject(with: data) as? [[String: Any]])
    return zip(try decoder.decode([Case].self, from: data), objects).map { ($0, $1) }
  }

  /// The scaling that is read of a `config.json` with `parameters`.
  private func scaling(_ rope: Case, _ parameters: [String: Any]) throws -> RopeScaling {
    let context = Int(Float(rope.originalMaxPositionEmbeddings ?? 4096) * rope.factor)
    let config: [String: Any] = [
      "architectures": ["Qwen3MoeForCausalLM"], "num_hidden_layers": 1, "num_attention_heads": 4,
      "hidden_size": 4 * rope.headDim, "head_dim": rope.headDim, "vocab_size": 8,
      "num_experts": 2, "num_experts_per_tok": 1, "max_position_embeddings": context,
      "rope_parameters": parameters,
    ]
    let path = NSTemporaryDirectory() + "rope-\(UUID().uuidString).json"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try JSONSerialization.data(withJSONObject: config).write(to: URL(fileURLWithPath: path))
    let metadata = try HuggingFaceConfig(JSONFile(path), name: "rope").metadata
    let keys = ArchitectureKeys(
      source: Metadata(path: path, metadata: metadata), prefix: "qwen3moe")
    return try keys.ropeScaling(
      contextLength: context, pairs: rope.headDim / 2, ArchitectureTraits(.qwen3moe), tensors: [:])
  }

  @Test func anglesAreThoseOfTransformers() throws {
    for (rope, parameters) in try cases() {
      let embedding = RotaryEmbedding(
        dimension: rope.headDim, base: rope.ropeTheta, scaling: try scaling(rope, parameters),
        context: rope.context ?? 1, vector: { _ in preconditionFailure("no tensors") })
      for position in [0, 1, 17, 1000, 30_000] {
        var cosines = [Float](repeating: .nan, count: rope.headDim / 2)
        var sines = cosines
        embedding.fill(cosines: &cosines, sines: &sines, position: position)
        for (index, frequency) in rope.frequencies.enumerated() {
          // An angle has the rounding of a float of its size.
          let angle = Double(position) * Double(frequency)
          let bound = 1e-6 + angle * 4e-7
          let magnitude = Double(rope.magnitude)
          #expect(abs(Double(cosines[index]) - cosine(angle) * magnitude) < bound)
          #expect(abs(Double(sines[index]) - cosine(angle - .pi / 2) * magnitude) < bound)
        }
      }
    }
  }

  @Test func factorsOfATensorAreThoseOfValues() {
    let values: [Float] = [1, 1.5, 4]
    func embedding(_ source: RopeFactors.Source) -> RotaryEmbedding {
      let set = RopeFactors.Set(factors: source, magnitude: 1.25)
      return values.withUnsafeBufferPointer { buffer in
        RotaryEmbedding(
          dimension: 6, base: 1e4,
          scaling: .factors(RopeFactors(short: set, long: set, originalContext: 8)), context: 9
        ) { name in
          #expect(name == "rope_freqs.weight")
          return buffer.baseAddress!
        }
      }
    }
    var found: [[Float]] = []
    for source in [RopeFactors.Source.values(values), .tensor("rope_freqs.weight")] {
      var (cosines, sines) = ([Float](repeating: 0, count: 3), [Float](repeating: 0, count: 3))
      embedding(source).fill(cosines: &cosines, sines: &sines, position: 7)
      found += [cosines, sines]
    }
    #expect(found[0] == found[2] && found[1] == found[3])
    #expect(found[0] != [1.25, 1.25, 1.25])
  }

  /// cos by its series after reduction, in double precision: an oracle apart from the C library.
  private func cosine(_ angle: Double) -> Double {
    let reduced = angle.remainder(dividingBy: 2 * .pi)
    var term = 1.0
    var sum = 1.0
    for n in 1...20 {
      term *= -reduced * reduced / Double((2 * n - 1) * (2 * n))
      sum += term
    }
    return sum
  }
}

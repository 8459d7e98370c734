import Tensors
import Testing

@testable import Checkpoints

/// What files of DeepSeek's state, and what they may not.
@Suite struct LatentAttentionTests {
  private let scratch: ScratchDirectory
  private let path: String

  init() throws {
    scratch = try ScratchDirectory()
    path = scratch.file("tiny.gguf")
  }

  private func deepSeek() -> TinyModel {
    var tiny = TinyModel("deepseek2")
    for (key, value) in [
      ("attention.head_count_kv", 1), ("expert_feed_forward_length", 32), ("expert_count", 8),
      ("attention.kv_lora_rank", 32), ("attention.key_length", 40), ("attention.value_length", 32),
      ("attention.key_length_mla", 24), ("attention.value_length_mla", 16),
      ("rope.dimension_count", 8), ("expert_group_count", 4), ("expert_group_used_count", 2),
      ("expert_gating_func", 2),
    ] as [(String, UInt32)] { tiny.set(key, .uint32(value)) }
    return tiny
  }

  private func model(_ tiny: TinyModel) throws -> ModelDescription {
    try tiny.write(path)
    return try ModelDescription(Checkpoint.open(path))
  }

  private func expectError(
    _ key: String, _ value: MetadataValue?, says part: String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    var tiny = deepSeek()
    tiny.set(key, value)
    let error = #expect(throws: CheckpointError.self, sourceLocation: sourceLocation) {
      try model(tiny)
    }
    let text = try #require(error?.description)
    #expect(
      text.contains(part) && text.contains(path) && text.contains(key), "\(text)",
      sourceLocation: sourceLocation)
  }

  @Test func deepSeekIsDescribed() throws {
    let model = try model(deepSeek())
    #expect(
      model.latent
        == LatentAttention(
          queryRank: nil, keyValueRank: 32, plainDimension: 16, rotaryDimension: 8,
          valueDimension: 16))
    #expect([model.headDimension, model.rotaryDimension, model.kvHeadCount] == [24, 8, 1])
    #expect([model.querySize, model.attentionSize] == [96, 64])
    #expect([model.cachedKeySize, model.cachedValueSize] == [40, 0])
    #expect(model.attentionScale == 1 / Float(24).squareRoot())
    #expect(model.router.gating == .sigmoid && !model.router.normalizesTopK)
    #expect([model.router.groups, model.router.usedGroups] == [4, 2])
  }

  /// The factor of YaRN is on the products of queries and keys, not on the rotation.
  @Test func theTemperatureScalesProducts() throws {
    var tiny = deepSeek()
    tiny.set("rope.scaling.type", .string("yarn"))
    tiny.set("rope.scaling.factor", .float32(40))
    tiny.set("rope.scaling.yarn_log_multiplier", .float32(0.1))
    let model = try model(tiny)
    // arXiv 2412.19437's code: 0.1 * ln(40) + 1 = 1.3688879, squared, over the root of 24.
    #expect(abs(model.attentionScale - 1.3688879 * 1.3688879 / Float(24).squareRoot()) < 1e-6)
    guard case .yarn(let yarn) = model.ropeScaling else {
      Issue.record("no YaRN")
      return
    }
    #expect(yarn.magnitude == 1)
  }

  @Test func numbersThatMakeNoSenseAreNamed() throws {
    try expectError("attention.key_length_mla", nil, says: "take a newer conversion")
    try expectError("attention.key_length", .uint32(24), says: "is 24, expected 40")
    try expectError("attention.head_count_kv", .uint32(4), says: "is 4, expected 1")
    try expectError("rope.dimension_count", .uint32(24), says: "an even number below 24")
    try expectError("attention.kv_lora_rank", .uint32(0), says: "is 0, expected 1 to")
    try expectError("expert_group_count", .uint32(3), says: "a divisor of 8 experts")
    try expectError("expert_group_count", .uint32(8), says: "a divisor of 8 experts")
    try expectError("expert_group_used_count", .uint32(5), says: "1 to 4")
    try expectError("expert_gating_func", .uint32(3), says: "1 (softmax) or 2 (sigmoid)")
    try expectError("expert_weights_scale", .float32(-1), says: "a number above 0")
    var tiny = deepSeek()
    tiny.set("rope.scaling.type", .string("yarn"))
    tiny.set("rope.scaling.factor", .float32(4))
    tiny.set("rope.scaling.yarn_log_multiplier", .float32(.nan))
    #expect(throws: CheckpointError.self) { try model(tiny) }
    tiny = deepSeek()
    tiny.set("expert_group_used_count", .uint32(1))
    tiny.set("expert_used_count", .uint32(3))
    #expect(throws: CheckpointError.self) { try model(tiny) }
  }

  @Test func gptOSSNeedsItsWindow() throws {
    var tiny = TinyModel("gpt-oss")
    tiny.set("attention.sliding_window", .uint32(128))
    let model = try model(tiny)
    #expect((0..<4).map { model.window(ofLayer: $0) } == [128, nil, 128, nil])
    #expect(model.hasSinks && model.hasExpertBiases && model.hasProjectionBias)
    #expect(model.activation == .clamped(alpha: 1.702, limit: 7))
    tiny.set("attention.sliding_window", .uint32(0))
    let error = #expect(throws: CheckpointError.self) { try self.model(tiny) }
    #expect(error?.description.contains("sliding_window") == true)
  }
}

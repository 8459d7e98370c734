import Tensors
import Testing

@testable import Checkpoints

@Suite struct ModelDescriptionTests {
  private let scratch: ScratchDirectory
  private let path: String

  init() throws {
    scratch = try ScratchDirectory()
    path = scratch.file("tiny.gguf")
  }

  private func model(_ tiny: TinyModel) throws -> ModelDescription {
    try tiny.write(path)
    return try describe(path).1
  }

  private func expect(_ error: CheckpointError, _ tiny: TinyModel) throws {
    try tiny.write(path)
    #expect(throws: error) { try describe(path) }
  }

  @Test func qwen3moeIsDescribed() throws {
    let model = try model(TinyModel("qwen3moe", weights: .q8_0))
    #expect(model.architecture == .qwen3moe)
    #expect(model.name == "Tiny")
    #expect(
      [model.layerCount, model.hiddenSize, model.vocabularySize, model.headCount]
        == [2, 64, 8, 4])
    #expect([model.kvHeadCount, model.headDimension, model.contextLength] == [2, 16, 128])
    #expect(
      [model.expertCount, model.expertsPerToken, model.expertFeedForwardSize] == [4, 2, 32])
    #expect(model.ropeBase == 10_000)
    #expect(model.ropeScaling == .none)
    #expect(model.rmsEpsilon == 1e-5)
    #expect(model.router == RouterRule())
    #expect(model.rotaryDimension == 16 && model.rotaryPairs == .halves)
    #expect(model.attentionScale == 0.25 && !model.hasProjectionBias)
    #expect(
      [model.denseLayerCount, model.expertLayerCount, model.sharedFeedForwardSize] == [0, 2, 0])
    #expect(model.queryKeyNorm == .head)
    #expect(model.qkvClamp == nil)
    #expect(model.tiedOutput)
  }

  @Test func olmoeIsDescribed() throws {
    var tiny = TinyModel("olmoe")
    tiny.set("rope.freq_base", .float32(500_000))
    tiny.set("attention.clamp_kqv", .float32(8))
    tiny.tensors.append(.init(name: "output.weight", type: .f16, shape: [64, 8]))
    let model = try model(tiny)
    #expect(model.architecture == .olmoe)
    #expect(model.expertFeedForwardSize == 32)
    #expect(!model.router.normalizesTopK)
    #expect(model.queryKeyNorm == .projection)
    #expect(model.qkvClamp == 8)
    #expect(model.ropeBase == 500_000)
    #expect(!model.tiedOutput)
  }

  @Test func theHeadDimensionMayBeStated() throws {
    var tiny = TinyModel("qwen3moe")
    tiny.set("attention.key_length", .uint32(8))
    try tiny.write(path)
    let model = try ModelDescription(Checkpoint.open(path))
    #expect(model.headDimension == 8)
    #expect(model.querySize == 32)
    #expect(model.keyValueSize == 16)
    tiny.set("attention.key_length", .uint32(7))
    try expect(
      .invalidValue(
        path: path, key: "qwen3moe.attention.key_length", found: "7", expected: "an even number"),
      tiny)
  }

  @Test func ropeScalingHasItsDefaults() throws {
    var tiny = TinyModel("qwen3moe")
    tiny.set("rope.scaling.type", .string("linear"))
    #expect(try model(tiny).ropeScaling == .none)
    tiny.set("rope.scaling.factor", .float32(4))
    #expect(try model(tiny).ropeScaling == .linear(factor: 4))
    tiny.set("rope.scaling.type", .string("yarn"))
    #expect(
      try model(tiny).ropeScaling
        == .yarn(
          YarnScaling(
            factor: 4, originalContext: 128, extrapolationFactor: 1, attentionFactor: 1,
            betaFast: 32, betaSlow: 1)))
    tiny.set("rope.scaling.original_context_length", .uint32(32))
    tiny.set("rope.scaling.yarn_ext_factor", .float32(0.5))
    tiny.set("rope.scaling.yarn_attn_factor", .float32(1.25))
    tiny.set("rope.scaling.yarn_beta_fast", .float32(16))
    tiny.set("rope.scaling.yarn_beta_slow", .float32(2))
    #expect(
      try model(tiny).ropeScaling
        == .yarn(
          YarnScaling(
            factor: 4, originalContext: 32, extrapolationFactor: 0.5, attentionFactor: 1.25,
            betaFast: 16, betaSlow: 2)))
    tiny.set("rope.scaling.type", .string("longrope"))
    try expect(
      .invalidValue(
        path: path, key: "qwen3moe.rope.scaling.type", found: "'longrope'",
        expected: "'none', 'linear' or 'yarn'"), tiny)
    tiny.set("rope.scaling.type", .string("yarn"))
    tiny.set("rope.scaling.factor", .float32(.nan))
    try expect(
      .invalidValue(
        path: path, key: "qwen3moe.rope.scaling.factor", found: "nan",
        expected: "a finite number of at least 1"), tiny)
    tiny.set("rope.scaling.factor", nil)
    try expect(
      .missingKey(path: path, key: "qwen3moe.rope.scaling.factor", expected: "float"), tiny)
  }

  @Test func otherArchitecturesAreRefused() throws {
    let error = CheckpointError.unsupportedArchitecture(
      path: path, found: "gpt2", supported: Architecture.allCases.map(\.rawValue))
    try expect(error, TinyModel("gpt2"))
    #expect(error.description.contains("olmoe, qwen3moe"))
  }

  @Test(arguments: [
    ("block_count", 0, "1 to 4096"), ("embedding_length", -1, "1 to 1048576"),
    ("attention.head_count", 0, "1 to 65536"), ("attention.head_count_kv", 3, "a divisor of 4"),
    ("attention.head_count_kv", 8, "1 to 4"), ("expert_count", 0, "1 to 65536"),
    ("expert_used_count", 5, "1 to 4"), ("expert_feed_forward_length", 0, "1 to 16777216"),
    ("context_length", 0, "1 to 1073741824"), ("vocab_size", 0, "1 to 16777216"),
    ("attention.value_length", 8, "16, as nothing else is supported"),
    ("rope.dimension_count", 18, "an even number up to 16"),
    ("rope.dimension_count", 7, "an even number up to 16"),
    ("expert_shared_count", 1, "0, as nothing else is supported"),
    ("leading_dense_block_count", 1, "0, as nothing else is supported"),
    ("attention.sliding_window", 64, "0 or at least 128, as nothing else is supported"),
    ("expert_group_count", 2, "at most 1, as nothing else is supported"),
    ("expert_gating_func", 2, "1 (softmax), as nothing else is supported"),
  ])
  func integersAreChecked(key: String, value: Int32, expected: String) throws {
    var tiny = TinyModel("qwen3moe")
    tiny.set(key, .int32(value))
    try expect(
      .invalidValue(path: path, key: "qwen3moe.\(key)", found: "\(value)", expected: expected),
      tiny)
  }

  @Test(arguments: [
    ("glm4moe", "leading_dense_block_count", 2, "0 to 1"),
    ("glm4moe", "leading_dense_block_count", -1, "0 to 1"),
    ("glm4moe", "nextn_predict_layers", 2, "0 to 1"),
    ("glm4moe", "expert_shared_count", 257, "0 to 256"),
    ("glm4moe", "expert_gating_func", 1, "2 (sigmoid), as nothing else is supported"),
    ("glm4moe", "expert_group_count", 2, "at most 1, as nothing else is supported"),
    ("ernie4_5-moe", "interleave_moe_layer_step", 2, "1, as nothing else is supported"),
    ("ernie4_5-moe", "expert_shared_feed_forward_length", -1, "0 to 16777216"),
    ("llama", "expert_shared_count", 1, "0, as nothing else is supported"),
    ("qwen2moe", "leading_dense_block_count", 1, "0, as nothing else is supported"),
  ])
  func theLayersNumbersAreChecked(
    architecture: String, key: String, value: Int32, expected: String
  ) throws {
    var tiny = TinyModel(architecture)
    tiny.set("feed_forward_length", .uint32(64))
    tiny.set("expert_feed_forward_length", .uint32(32))
    tiny.set(key, .int32(value))
    try expect(
      .invalidValue(
        path: path, key: "\(architecture).\(key)", found: "\(value)", expected: expected), tiny)
  }

  /// A file of GLM-4.5 has a block after the last layer that predicts a further token.
  @Test func blocksAfterTheLastLayerAreLeftAlone() throws {
    var tiny = TinyModel("glm4moe")
    tiny.set("expert_feed_forward_length", .uint32(32))
    tiny.tensors = tiny.tensors.filter {
      !$0.name.contains("_norm.weight") || !$0.name.contains("attn_")
    }
    for layer in 0..<2 {
      tiny.replace(
        "blk.\(layer).ffn_norm.weight",
        with: .init(name: "blk.\(layer).post_attention_norm.weight", type: .f32, shape: [64]))
      tiny.tensors.append(.init(name: "blk.\(layer).attn_norm.weight", type: .f32, shape: [64]))
      tiny.tensors.append(.init(name: "blk.\(layer).exp_probs_b.bias", type: .f32, shape: [4]))
    }
    let further = ["nextn.eh_proj", "attn_q", "ffn_gate_exps"].map { "blk.2.\($0).weight" }
    for name in further { tiny.tensors.append(.init(name: name, type: .f32, shape: [64, 8])) }
    tiny.set("block_count", .uint32(3))
    tiny.set("nextn_predict_layers", .uint32(1))
    try tiny.write(path)
    let (_, model, layout) = try describe(path)
    #expect(model.layerCount == 2 && model.router.gating == .sigmoid && model.router.hasCorrection)
    #expect(model.queryKeyNorm == nil && !model.hasProjectionBias)
    #expect(layout.layerCount == 2)
    #expect(!layout.denseTensors.contains { $0.name.hasPrefix("blk.2.") })
    // Without the key it is a layer, and lacks most of one.
    tiny.set("nextn_predict_layers", nil)
    try tiny.write(path)
    #expect(throws: CheckpointError.self) { try describe(path) }
  }

  @Test func scalesAreChecked() throws {
    for (architecture, key) in [
      ("glm4moe", "expert_weights_scale"), ("qwen2moe", "expert_weights_scale"),
      ("granitemoe", "residual_scale"), ("granitemoe", "attention.scale"),
    ] {
      var tiny = TinyModel(architecture)
      tiny.set("feed_forward_length", .uint32(64))
      tiny.set("expert_feed_forward_length", .uint32(32))
      tiny.set(key, .float32(-2))
      try tiny.write(path)
      let error = #expect(throws: CheckpointError.self) { try describe(path) }
      #expect("\(error!)".contains("\(architecture).\(key)"))
    }
  }

  @Test(arguments: ["attention.layer_norm_rms_epsilon", "rope.freq_base", "attention.clamp_kqv"])
  func floatsAreChecked(key: String) throws {
    for value in [0, -1, Float.infinity, .nan] {
      var tiny = TinyModel("olmoe")
      tiny.set(key, .float32(value))
      try expect(
        .invalidValue(
          path: path, key: "olmoe.\(key)", found: "\(value)",
          expected: "a finite number above zero"), tiny)
    }
  }

  @Test func aNormalisationOfAnotherModelIsRefused() throws {
    var tiny = TinyModel("olmoe")
    tiny.set("expert_weights_norm", .bool(true))
    try expect(
      .invalidValue(
        path: path, key: "olmoe.expert_weights_norm", found: "true",
        expected: "false, as nothing else is supported"), tiny)
  }

  @Test func missingKeysAndWrongTypesAreNamed() throws {
    var tiny = TinyModel("qwen3moe")
    tiny.set("block_count", nil)
    try expect(
      .missingKey(path: path, key: "qwen3moe.block_count", expected: "integer"), tiny)
    tiny.set("block_count", .array(.uint32([1, 2])))
    try expect(
      .wrongType(
        path: path, key: "qwen3moe.block_count", found: "array of uint32", expected: "integer"),
      tiny)
  }
}

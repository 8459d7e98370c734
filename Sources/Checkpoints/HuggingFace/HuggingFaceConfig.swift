/// What a `config.json` says of a model, in GGUF's keys: one description, whatever the file.
///
/// The names of its keys are those of the configuration classes of Hugging Face transformers.
struct HuggingFaceConfig {
  let architecture: Architecture
  let layerCount: Int
  let expertCount: Int
  let headCount: Int
  /// Rows and columns of the blocks that have a scale, where weights are 8-bit floats.
  private(set) var weightBlock: (rows: Int, columns: Int)?
  let tiesEmbedding: Bool
  /// The class that it was saved from.
  private let className: String
  /// The sizes of latent attention.
  private(set) var latent: LatentAttention?
  /// The sizes of layers with a recurrent state.
  private(set) var linear: LinearAttention?
  var metadata: [String: MetadataValue] = [:]
  let file: JSONFile

  /// The classes that can be run.
  static let architectures: [String: Architecture] = [
    "OlmoeForCausalLM": .olmoe, "Qwen3MoeForCausalLM": .qwen3moe,
    "Qwen2MoeForCausalLM": .qwen2moe, "MixtralForCausalLM": .mixtral,
    "GraniteMoeForCausalLM": .granitemoe, "GraniteMoeSharedForCausalLM": .granitemoe,
    "Glm4MoeForCausalLM": .glm4moe, "Ernie4_5_MoeForCausalLM": .ernie,
    "DeepseekV2ForCausalLM": .deepSeek2, "DeepseekV3ForCausalLM": .deepSeek2,
    "GptOssForCausalLM": .gptOSS, "PhiMoEForCausalLM": .phimoe, "PhimoeForCausalLM": .phimoe,
    "Qwen3NextForCausalLM": .qwen3next, "Qwen3_5MoeForCausalLM": .qwen35moe,
    "Qwen3_5MoeForConditionalGeneration": .qwen35moe,
  ]

  /// - Parameter name: what the model is called.
  /// - Throws: `.unsupportedArchitecture`, `.missingKey`, `.wrongType` or `.invalidValue`.
  init(_ file: JSONFile, name: String) throws(CheckpointError) {
    self.file = file
    let className = file.value["architectures"]?.array?.first?.string ?? "none"
    guard let architecture = Self.architectures[className] else {
      throw .unsupportedArchitecture(
        path: file.path, found: className, supported: Self.architectures.keys.sorted())
    }
    self.architecture = architecture
    self.className = className
    layerCount = try file.integer("num_hidden_layers")
    headCount = try file.integer("num_attention_heads")
    guard (1...65_536).contains(headCount) else {
      throw file.invalid("num_attention_heads", "\(headCount)", "1 to 65536")
    }
    expertCount = try file.integer(
      "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    // ERNIE's class ties them unless it is told not to.
    tiesEmbedding = try file.boolIfPresent("tie_word_embeddings") ?? (architecture == .ernie)
    try refuseUnsupportedFeatures()
    metadata["general.architecture"] = .string(architecture.rawValue)
    metadata["general.name"] = .string(name)
    try setDimensions()
    try setRotation()
    try setMixture()
    if ArchitectureTraits(architecture).hasLinearLayers { try setLinearAttention() }
    try setQuantization()
  }

  /// How weights are quantized: not at all, or to 8-bit floats with a scale for each block, as DeepSeek-V3 is
  /// (arXiv 2412.19437, section 3.3), or for each row, as the library compressed-tensors has it.
  private mutating func setQuantization() throws(CheckpointError) {
    guard let quantization = file.value["quantization_config"] else {
      guard architecture != .gptOSS else {
        throw file.invalid(
          "quantization_config", "none", "'mxfp4', as gpt-oss is published (or take a GGUF file)")
      }
      return
    }
    switch quantization["quant_method"]?.string ?? "none" {
    case "fp8": try setBlocks(quantization)
    case "compressed-tensors": try setRows(quantization)
    // Of experts, whose tensors tell the rest.
    case "mxfp4" where architecture == .gptOSS: break
    case let method:
      throw file.invalid("quant_method", "'\(method)'", "'fp8', 'compressed-tensors' or none")
    }
  }

  /// A scale for each row: a block of one row, and of more columns than there are.
  private mutating func setRows(_ quantization: JSONValue) throws(CheckpointError) {
    let format = quantization["format"]?.string ?? "none"
    guard format == "float-quantized" else {
      throw file.invalid("format", "'\(format)'", "'float-quantized'")
    }
    let weights = quantization["config_groups"]?["group_0"]?["weights"]
    let found = (
      weights?["num_bits"]?.integer, weights?["type"]?.string, weights?["strategy"]?.string
    )
    guard found == (8, "float", "channel"), quantization["config_groups"]?["group_1"] == nil else {
      throw file.invalid(
        "config_groups",
        "\(found.0 ?? 0) bits, \(found.1 ?? "no type"), \(found.2 ?? "no strategy")",
        "one group of 8 bits, 'float', 'channel'")
    }
    weightBlock = (1, 1 << 24)
    set(WeightBlock.rowsKey, 1)
    set(WeightBlock.columnsKey, 1 << 24)
  }

  private mutating func setBlocks(_ quantization: JSONValue) throws(CheckpointError) {
    if let format = quantization["fmt"]?.string, format != "e4m3" {
      throw file.invalid("fmt", "'\(format)'", "'e4m3'")
    }
    let sizes = quantization["weight_block_size"]?.array?.compactMap(\.integer) ?? []
    guard sizes.count == 2, sizes.allSatisfy({ (1...1 << 24).contains($0) }),
      sizes[1].isMultiple(of: 32)
    else {
      throw file.invalid(
        "weight_block_size", "\(sizes)", "rows and columns, the latter a multiple of 32")
    }
    weightBlock = (sizes[0], sizes[1])
    set(WeightBlock.rowsKey, sizes[0])
    set(WeightBlock.columnsKey, sizes[1])
  }

  mutating func set(_ key: String, _ value: Int?) {
    if let value { metadata["\(architecture.rawValue).\(key)"] = .int64(Int64(value)) }
  }

  mutating func set(_ key: String, _ value: Double?) {
    if let value { metadata["\(architecture.rawValue).\(key)"] = .float64(value) }
  }

  private mutating func setDimensions() throws(CheckpointError) {
    set("block_count", layerCount)
    set("context_length", try file.integer("max_position_embeddings"))
    set("embedding_length", try file.integer("hidden_size"))
    set("vocab_size", try file.integer("vocab_size"))
    set("attention.head_count", headCount)
    if architecture == .deepSeek2 {
      try setLatentAttention()
    } else {
      set("attention.head_count_kv", try file.integerIfPresent("num_key_value_heads"))
      set("attention.key_length", try file.integerIfPresent("head_dim"))
    }
    set("feed_forward_length", try file.integerIfPresent("intermediate_size"))
    set("attention.layer_norm_rms_epsilon", try file.numberIfPresent("rms_norm_eps") ?? 1e-6)
    set("attention.clamp_kqv", try file.numberIfPresent("clip_qkv"))
  }

  /// The sizes of layers with a recurrent state, under the names that GGUF has for them.
  private mutating func setLinearAttention() throws(CheckpointError) {
    func size(_ key: String, _ maximum: Int) throws(CheckpointError) -> Int {
      let found = try file.integer(key)
      guard (1...maximum).contains(found) else {
        throw file.invalid(key, "\(found)", "1 to \(maximum)")
      }
      return found
    }
    let keys = try size("linear_num_key_heads", 65_536)
    let values = try size("linear_num_value_heads", 65_536)
    let dimension = try size("linear_key_head_dim", 4_096)
    guard values.isMultiple(of: keys) else {
      throw file.invalid("linear_num_value_heads", "\(values)", "a multiple of \(keys)")
    }
    let valueKey = "linear_value_head_dim"
    guard try size(valueKey, 4_096) == dimension else {
      throw file.invalid(valueKey, "\(try size(valueKey, 4_096))", "\(dimension), as of keys")
    }
    let width = try size("linear_conv_kernel_dim", 64)
    let interval = try file.integerIfPresent("full_attention_interval") ?? 4
    guard interval > 0 else {
      throw file.invalid("full_attention_interval", "\(interval)", "1 or more")
    }
    let kinds = file.value["layer_types"]?.array?.map(\.string)
    guard (0...4_096).contains(layerCount), kinds == nil || kinds?.count == layerCount,
      kinds?.allSatisfy({ ["linear_attention", "full_attention"].contains($0) }) ?? true
    else {
      throw file.invalid(
        "layer_types", "\(kinds?.count ?? 0) layers",
        "'linear_attention' or 'full_attention' for each of \(layerCount)")
    }
    let isLinear = (0..<max(layerCount, 0)).map { layer in
      kinds.map { $0[layer] == "linear_attention" } ?? ((layer + 1) % interval != 0)
    }
    linear = LinearAttention(
      keyHeadCount: keys, valueHeadCount: values, dimension: dimension, convolutionWidth: width,
      layers: Set(isLinear.indices.filter { isLinear[$0] }), tilesHeads: false,
      joinsRates: ArchitectureTraits(architecture).joinsRates)
    set("ssm.group_count", keys)
    set("ssm.time_step_rank", values)
    set("ssm.state_size", dimension)
    set("ssm.inner_size", values * dimension)
    set("ssm.conv_kernel", width)
    metadata["\(architecture.rawValue).\(ArchitectureKeys.recurrentLayersKey)"] =
      .array(.bool(isLinear))
  }

  /// Latent attention as GGUF states it: one head of compressed rows, and what it stands for.
  private mutating func setLatentAttention() throws(CheckpointError) {
    func size(_ key: String) throws(CheckpointError) -> Int {
      let found = try file.integer(key)
      guard (1...65_536).contains(found) else { throw file.invalid(key, "\(found)", "1 to 65536") }
      return found
    }
    let sizes = LatentAttention(
      queryRank: try file.integerIfPresent("q_lora_rank"), keyValueRank: try size("kv_lora_rank"),
      plainDimension: try size("qk_nope_head_dim"), rotaryDimension: try size("qk_rope_head_dim"),
      valueDimension: try size("v_head_dim"))
    latent = sizes
    set("attention.head_count_kv", 1)
    set("attention.q_lora_rank", sizes.queryRank)
    set("attention.kv_lora_rank", sizes.keyValueRank)
    set("attention.key_length", sizes.rowSize)
    set("attention.value_length", sizes.keyValueRank)
    set("attention.key_length_mla", sizes.queryDimension)
    set("attention.value_length_mla", sizes.valueDimension)
    set("rope.dimension_count", sizes.rotaryDimension)
  }

  private mutating func setMixture() throws(CheckpointError) {
    set("expert_count", expertCount)
    set("expert_used_count", try file.integer("num_experts_per_tok", "moe_k", "experts_per_token"))
    set("expert_feed_forward_length", try file.integerIfPresent("moe_intermediate_size"))
    if let normalizes = try file.boolIfPresent("norm_topk_prob") {
      metadata["\(architecture.rawValue).expert_weights_norm"] = .bool(normalizes)
    }
    switch architecture {
    case .olmoe, .qwen3moe, .mixtral: break
    case .gptOSS: try setGPTOSSMixture()
    case .phimoe:
      if let noise = try file.numberIfPresent("router_jitter_noise"), noise != 0.01 {
        throw file.invalid("router_jitter_noise", "\(noise)", "0.01")
      }
    case .deepSeek2: try setDeepSeekMixture()
    case .qwen2moe, .qwen3next, .qwen35moe:
      set(
        "expert_shared_feed_forward_length", try file.integer("shared_expert_intermediate_size"))
    case .granitemoe:
      set(
        "expert_shared_feed_forward_length", try file.integerIfPresent("shared_intermediate_size"))
      for (key, own) in [
        ("attention.scale", "attention_multiplier"), ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"), ("logit_scale", "logits_scaling"),
      ] { set(key, try file.numberIfPresent(own)) }
    case .glm4moe:
      set("leading_dense_block_count", try file.integerIfPresent("first_k_dense_replace"))
      set("expert_shared_count", try file.integerIfPresent("n_shared_experts"))
      set("expert_weights_scale", try file.numberIfPresent("routed_scaling_factor"))
      set("expert_group_count", try file.integerIfPresent("n_group"))
      set("expert_group_used_count", try file.integerIfPresent("topk_group"))
    case .ernie:
      set("leading_dense_block_count", try file.integerIfPresent("moe_layer_start_index"))
      set("interleave_moe_layer_step", try file.integerIfPresent("moe_layer_interval"))
      let shared = try file.integerIfPresent("moe_num_shared_experts") ?? 0
      let (size, overflow) = (try file.integer("moe_intermediate_size"))
        .multipliedReportingOverflow(by: shared)
      guard !overflow else {
        throw file.invalid("moe_num_shared_experts", "\(shared)", "a few")
      }
      set("expert_shared_feed_forward_length", size)
    }
  }

  /// gpt-oss: windows in every other layer, clamped activations.
  private mutating func setGPTOSSMixture() throws(CheckpointError) {
    set("attention.sliding_window", try file.integer("sliding_window"))
    let kinds = file.value["layer_types"]?.array?.map(\.string) ?? []
    for (layer, kind) in kinds.enumerated() {
      let expected = layer.isMultiple(of: 2) ? "sliding_attention" : "full_attention"
      guard kind == expected else {
        throw file.invalid(
          "layer_types", "'\(kind ?? "none")' for layer \(layer)", "'\(expected)'")
      }
    }
    if let limit = try file.numberIfPresent("swiglu_limit"), limit != 7 {
      throw file.invalid("swiglu_limit", "\(limit)", "7")
    }
  }

  private mutating func setDeepSeekMixture() throws(CheckpointError) {
    set("leading_dense_block_count", try file.integerIfPresent("first_k_dense_replace"))
    set("expert_shared_count", try file.integerIfPresent("n_shared_experts"))
    set("expert_weights_scale", try file.numberIfPresent("routed_scaling_factor"))
    let isThird = className == "DeepseekV3ForCausalLM"
    let scoring = file.value["scoring_func"]?.string ?? (isThird ? "sigmoid" : "softmax")
    guard scoring == (isThird ? "sigmoid" : "softmax") else {
      throw file.invalid("scoring_func", "'\(scoring)'", isThird ? "'sigmoid'" : "'softmax'")
    }
    set("expert_gating_func", isThird ? 2 : 1)
    // The second version's choice among all experts has groups in its configuration too.
    if isThird || file.value["topk_method"]?.string != "greedy" {
      set("expert_group_count", try file.integerIfPresent("n_group"))
      set("expert_group_used_count", try file.integerIfPresent("topk_group"))
    }
    if let step = try file.integerIfPresent("moe_layer_freq"), step != 1 {
      throw file.invalid("moe_layer_freq", "\(step)", "1")
    }
  }

  /// What would give another output if it were ignored.
  private func refuseUnsupportedFeatures() throws(CheckpointError) {
    if let activation = file.value["hidden_act"]?.string, activation != "silu" {
      throw file.invalid("hidden_act", "'\(activation)'", "'silu'")
    }
    let bias = try file.boolIfPresent("attention_bias") ?? false
    guard !bias || [.glm4moe, .phimoe, .gptOSS].contains(architecture) else {
      throw file.invalid("attention_bias", "true", "false")
    }
    if architecture == .qwen2moe, try file.boolIfPresent("qkv_bias") == false {
      throw file.invalid("qkv_bias", "false", "true")
    }
    for key in ["use_bias", "use_sliding_window"] where try file.boolIfPresent(key) == true {
      throw file.invalid(key, "true", "false")
    }
    let slides = try file.boolIfPresent("use_sliding_window") ?? true
    let context = try file.integer("max_position_embeddings")
    if slides, architecture != .gptOSS, let window = try file.integerIfPresent("sliding_window"),
      window > 0,
      window < context
    {
      throw file.invalid("sliding_window", "\(window)", "null or at least \(context)")
    }
    if let dense = file.value["mlp_only_layers"]?.array, !dense.isEmpty {
      throw file.invalid("mlp_only_layers", "\(dense.count) layers", "none")
    }
    if let step = try file.integerIfPresent("decoder_sparse_step"), step != 1 {
      throw file.invalid("decoder_sparse_step", "\(step)", "1")
    }
    if architecture == .ernie, let last = try file.integerIfPresent("moe_layer_end_index"),
      last != -1, last != layerCount - 1
    {
      throw file.invalid("moe_layer_end_index", "\(last)", "\(layerCount - 1), the last layer")
    }
  }
}

internal import Checkpoints
internal import Tensors

extension ModelShape {
  /// The metadata that llama.cpp and `ModelDescription` read.
  func metadata(
    quantization: SynthesisQuantization, vocabulary: SyntheticVocabulary
  ) -> [(key: String, value: MetadataValue)] {
    func number(_ key: String, _ value: Int) -> (key: String, value: MetadataValue) {
      ("\(architecture.rawValue).\(key)", .uint32(UInt32(value)))
    }
    func float(_ key: String, _ value: Float) -> (key: String, value: MetadataValue) {
      ("\(architecture.rawValue).\(key)", .float32(value))
    }
    var result: [(key: String, value: MetadataValue)] = [
      ("general.architecture", .string(architecture.rawValue)),
      ("general.type", .string("model")),
      ("general.name", .string("synthetic \(name)")),
      number("block_count", layerCount),
      number("context_length", contextLength),
      number("embedding_length", hiddenSize),
      number("attention.head_count", headCount),
      number("attention.head_count_kv", kvHeadCount),
      float("rope.freq_base", ropeBase),
      float("attention.layer_norm_rms_epsilon", rmsEpsilon),
      number("expert_count", expertCount),
      number("expert_used_count", expertsPerToken),
      number("vocab_size", vocabularySize),
    ]
    let heads = [
      number("attention.key_length", headDimension),
      number("attention.value_length", headDimension),
    ]
    let expertSize = number("expert_feed_forward_length", expertFeedForwardSize)
    switch architecture {
    case .olmoe, .mixtral, .granitemoe, .phimoe:
      // Their experts' size goes by the name of the layer's.
      result.append(number("feed_forward_length", expertFeedForwardSize))
    case .deepSeek2:
      result += [
        number("feed_forward_length", denseFeedForwardSize), expertSize,
        number("leading_dense_block_count", denseLayerCount),
        number("expert_shared_count", sharedExpertCount),
        number("expert_gating_func", groupCount > 0 ? 2 : 1),
        ("\(architecture.rawValue).expert_weights_norm", .bool(groupCount > 0)),
        number("expert_group_count", groupCount), number("expert_group_used_count", usedGroupCount),
      ]
      if let latent {
        result += [
          number("attention.kv_lora_rank", latent.keyValueRank),
          number("attention.key_length", latent.rowSize),
          number("attention.value_length", latent.keyValueRank),
          number("attention.key_length_mla", latent.queryDimension),
          number("attention.value_length_mla", latent.valueDimension),
          number("rope.dimension_count", latent.rotaryDimension),
        ]
        if let rank = latent.queryRank { result.append(number("attention.q_lora_rank", rank)) }
      }
    case .qwen3moe:
      result += [
        number("feed_forward_length", expertFeedForwardSize * expertsPerToken), expertSize,
      ]
      result += heads
    case .gptOSS:
      result += [number("feed_forward_length", expertFeedForwardSize), expertSize]
      result += heads
    case .qwen2moe:
      result += [
        number("feed_forward_length", sharedFeedForwardSize), expertSize,
        number("expert_shared_feed_forward_length", sharedFeedForwardSize),
      ]
    case .qwen3next, .qwen35moe:
      result += [
        number("feed_forward_length", expertFeedForwardSize * expertsPerToken), expertSize,
        number("expert_shared_feed_forward_length", sharedFeedForwardSize),
        number("rope.dimension_count", headDimension / 4),
      ]
      result += heads
      if let linear {
        result += [
          number("ssm.group_count", linear.keyHeadCount),
          number("ssm.time_step_rank", linear.valueHeadCount),
          number("ssm.state_size", linear.dimension), number("ssm.inner_size", linear.valueSize),
          number("ssm.conv_kernel", linear.convolutionWidth),
          number("full_attention_interval", 4),
        ]
      }
      if architecture == .qwen35moe {
        let sections = [11, 11, 10, 0].map { Int32($0 * headDimension / 256) }
        result.append(
          ("\(architecture.rawValue).rope.dimension_sections", .array(.int32(sections))))
      }
    case .glm4moe:
      result += [
        number("feed_forward_length", denseFeedForwardSize), expertSize,
        number("leading_dense_block_count", denseLayerCount),
        number("expert_shared_count", sharedExpertCount), number("expert_gating_func", 2),
        number("rope.dimension_count", headDimension / 2),
      ]
      result += heads
    case .ernie:
      result += [
        number("feed_forward_length", denseFeedForwardSize), expertSize,
        number("leading_dense_block_count", denseLayerCount),
        number("expert_shared_count", sharedExpertCount),
        number("expert_shared_feed_forward_length", sharedFeedForwardSize),
      ]
    }
    if slidingWindow > 0 { result.append(number("attention.sliding_window", slidingWindow)) }
    result += vocabulary.metadata
    result += [
      ("general.quantization_version", .uint32(2)),
      ("general.file_type", .uint32(quantization.fileType)),
    ]
    return result
  }

  /// The rule that splits text: that of the family's own tokenizer.
  var preTokenizer: PreTokenizer {
    architecture == .olmoe ? .olmo : .qwen2
  }

  /// All tensors, in the order of the file.
  func tensors(
    quantization: SynthesisQuantization, design: RoutingDesign
  ) -> [SyntheticTensor] {
    var list = SyntheticTensorList(shape: self, quantization: quantization, design: design)
    // The largest embedding is a shared value with the most of noise.
    list.append(
      "token_embd.weight", quantization.fitting(hiddenSize).elementType,
      [hiddenSize, vocabularySize],
      .embedding(BlockRounding(quantization.fitting(hiddenSize), limit: 3.15)))
    for layer in 0..<layerCount { list.appendLayer(layer) }
    list.appendStateNorm("output_norm")
    list.appendReader("output", rows: [vocabularySize], gain: 2)
    return list.tensors
  }
}

/// The tensors of a model, while they are listed.
private struct SyntheticTensorList {
  let shape: ModelShape
  let quantization: SynthesisQuantization
  let design: RoutingDesign
  var tensors: [SyntheticTensor] = []

  mutating func append(
    _ name: String, _ type: ElementType, _ dimensions: [Int], _ content: SyntheticTensor.Content
  ) {
    tensors.append(
      SyntheticTensor(
        name: name, type: type, shape: dimensions, stream: .tensor(tensors.count),
        content: content))
  }

  mutating func appendNorm(_ name: String, _ count: Int) {
    append("\(name).weight", .f32, [count], .around(1))
  }

  /// Appends a norm of states, with its bias where there is one.
  mutating func appendStateNorm(_ name: String) {
    appendNorm(name, shape.hiddenSize)
    if ArchitectureTraits(shape.architecture).stateNorm == .layer {
      append("\(name).bias", .f32, [shape.hiddenSize], .zeros)
    }
  }

  /// Appends a matrix that reads the state's own part and hardly the shared one, lest it add the
  /// same to every token.
  mutating func appendReader(_ name: String, rows: [Int], gain: Float = 1) {
    appendMatrix(name, rows: rows, sharedGain: 0.1 * gain, gain: gain, shared: nil)
  }

  mutating func appendMatrix(
    _ name: String, rows: [Int], sharedGain: Float, gain: Float,
    shared: SyntheticTensor.SharedRows?
  ) {
    let unit = 1 / Float(shape.hiddenSize).squareRoot()
    let quantization = quantization.fitting(shape.hiddenSize)
    let blocks = RandomBlocks(
      quantization, columns: shape.hiddenSize, sharedCount: design.sharedCount,
      sharedDeviation: sharedGain * unit, deviation: gain * unit)
    append(
      "\(name).weight", quantization.elementType, [shape.hiddenSize] + rows,
      .matrix(blocks, shared: shared))
  }

  /// Appends a matrix whose result is added to the state.
  mutating func appendWriter(_ name: String, columns: Int, rows: [Int], gain: Float) {
    let quantization = quantization.fitting(columns)
    let blocks = RandomBlocks(
      quantization, columns: columns, deviation: gain / Float(columns).squareRoot())
    append(
      "\(name).weight", quantization.elementType, [columns] + rows, .matrix(blocks, shared: nil))
  }

  mutating func appendLayer(_ layer: Int) {
    let prefix = "blk.\(layer)"
    let experts = shape.expertCount
    appendStateNorm("\(prefix).attn_norm")
    if let linear = shape.linear, linear.layers.contains(layer) {
      appendLinear(prefix, linear)
    } else if let latent = shape.latent {
      appendLatent(prefix, latent)
    } else {
      appendGrouped(prefix)
    }
    let traits = ArchitectureTraits(shape.architecture)
    appendStateNorm("\(prefix).\(traits.feedForwardNorm)")
    guard layer >= shape.denseLayerCount else {
      return appendNetwork("\(prefix).ffn_", "", size: shape.denseFeedForwardSize)
    }
    append(
      "\(prefix).ffn_gate_inp.weight", .f32, [shape.hiddenSize, experts],
      .router(leans: design.popularity(layer: layer)))
    if traits.hasExpertBiases {
      append("\(prefix).ffn_gate_inp.bias", .f32, [experts], .zeros)
      for part in ["gate", "up"] {
        append(
          "\(prefix).ffn_\(part)_exps.bias", .f32, [shape.expertFeedForwardSize, experts], .zeros)
      }
      append("\(prefix).ffn_down_exps.bias", .f32, [shape.hiddenSize, experts], .zeros)
    }
    if traits.router.hasCorrection {
      append("\(prefix).exp_probs_b.bias", .f32, [experts], .zeros)
    }
    if shape.sharedFeedForwardSize > 0 {
      if traits.gatesSharedExpert {
        append("\(prefix).ffn_gate_inp_shexp.weight", .f32, [shape.hiddenSize], .zeros)
      }
      appendNetwork("\(prefix).ffn_", "_shexp", size: shape.sharedFeedForwardSize)
    }
    appendReader("\(prefix).ffn_gate_exps", rows: [shape.expertFeedForwardSize, experts])
    appendReader("\(prefix).ffn_up_exps", rows: [shape.expertFeedForwardSize, experts])
    appendWriter(
      "\(prefix).ffn_down_exps", columns: shape.expertFeedForwardSize,
      rows: [shape.hiddenSize, experts], gain: design.expertGain)
  }

  /// Appends what makes queries, keys and values.
  private mutating func appendGrouped(_ prefix: String) {
    let keyStream = RandomStreams.Purpose.tensor(tensors.count)
    appendMatrix(
      "\(prefix).attn_k", rows: [shape.keyValueSize], sharedGain: 2, gain: 0.2, shared: nil)
    appendMatrix(
      "\(prefix).attn_q", rows: [shape.querySize], sharedGain: 2, gain: 0.2,
      shared: SyntheticTensor.SharedRows(
        stream: keyStream, headDimension: shape.headDimension,
        headsPerKey: shape.headCount / shape.kvHeadCount,
        stride: shape.querySize / shape.headCount))
    appendReader("\(prefix).attn_v", rows: [shape.keyValueSize])
    appendOutput(prefix)
    let traits = ArchitectureTraits(shape.architecture)
    if traits.hasOutputBias != false {
      append("\(prefix).attn_output.bias", .f32, [shape.hiddenSize], .zeros)
    }
    if traits.hasSinks { append("\(prefix).attn_sinks.weight", .f32, [shape.headCount], .zeros) }
    if traits.hasProjectionBias != false {
      append("\(prefix).attn_q.bias", .f32, [shape.querySize], .zeros)
      append("\(prefix).attn_k.bias", .f32, [shape.keyValueSize], .zeros)
      append("\(prefix).attn_v.bias", .f32, [shape.keyValueSize], .zeros)
    }
    if let norm = traits.queryKeyNorm, !traits.queryKeyNormIsOptional {
      let ofHead = norm == .head
      appendNorm("\(prefix).attn_q_norm", ofHead ? shape.headDimension : shape.querySize)
      appendNorm("\(prefix).attn_k_norm", ofHead ? shape.headDimension : shape.keyValueSize)
    }
  }

  /// Appends what makes queries and compressed rows, and what stands between them and heads.
  private mutating func appendLatent(_ prefix: String, _ latent: LatentAttention) {
    if let rank = latent.queryRank {
      appendReader("\(prefix).attn_q_a", rows: [rank])
      appendNorm("\(prefix).attn_q_a_norm", rank)
      appendWriter("\(prefix).attn_q_b", columns: rank, rows: [shape.querySize], gain: 1)
    } else {
      appendReader("\(prefix).attn_q", rows: [shape.querySize])
    }
    appendReader("\(prefix).attn_kv_a_mqa", rows: [latent.rowSize])
    appendNorm("\(prefix).attn_kv_a_norm", latent.keyValueRank)
    appendWriter(
      "\(prefix).attn_k_b", columns: latent.plainDimension,
      rows: [latent.keyValueRank, shape.headCount], gain: 1)
    appendWriter(
      "\(prefix).attn_v_b", columns: latent.keyValueRank,
      rows: [latent.valueDimension, shape.headCount], gain: 1)
    appendOutput(prefix)
  }

  /// Appends what a layer with a recurrent state has in place of attention.
  private mutating func appendLinear(_ prefix: String, _ linear: LinearAttention) {
    let heads = linear.valueHeadCount
    appendReader("\(prefix).attn_qkv", rows: [linear.channelCount])
    appendReader("\(prefix).attn_gate", rows: [linear.valueSize])
    if linear.joinsRates {
      appendReader("\(prefix).ssm_ba", rows: [2 * heads])
    } else {
      appendReader("\(prefix).ssm_beta", rows: [heads])
      appendReader("\(prefix).ssm_alpha", rows: [heads])
    }
    append(
      "\(prefix).ssm_conv1d.weight", .f32, [linear.convolutionWidth, linear.channelCount],
      .around(1))
    append("\(prefix).ssm_dt.bias", .f32, [heads], .zeros)
    append("\(prefix).ssm_a", .f32, [heads], .around(-1))
    appendNorm("\(prefix).ssm_norm", linear.dimension)
    appendWriter(
      "\(prefix).ssm_out", columns: linear.valueSize, rows: [shape.hiddenSize],
      gain: design.attentionGain)
  }

  private mutating func appendOutput(_ prefix: String) {
    appendWriter(
      "\(prefix).attn_output", columns: shape.attentionSize, rows: [shape.hiddenSize],
      gain: design.attentionGain)
  }

  /// Appends a network that all tokens go through.
  private mutating func appendNetwork(_ prefix: String, _ suffix: String, size: Int) {
    appendReader("\(prefix)gate\(suffix)", rows: [size])
    appendReader("\(prefix)up\(suffix)", rows: [size])
    appendWriter(
      "\(prefix)down\(suffix)", columns: size, rows: [shape.hiddenSize], gain: design.expertGain)
  }
}

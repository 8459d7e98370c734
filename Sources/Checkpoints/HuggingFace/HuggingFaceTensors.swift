internal import Tensors

/// The tensors of a Hugging Face checkpoint under GGUF's names.
///
/// A layer's experts become the three stacks that GGUF has, but that the bytes of each expert lie anywhere:
/// in tensors of their own, or gate and up of each together in one.
struct HuggingFaceTensors {
  private(set) var tensors: [String: TensorInfo] = [:]
  /// Where each expert of a stack lies, by the stack's name.
  private(set) var stacks: [String: [ExpertSlice]] = [:]
  private let config: HuggingFaceConfig
  private let files: [SafetensorsHeader]
  /// Experts that lie otherwise than they are computed with, by file.
  private(set) var arrangements: [Int: Arrangement] = [:]
  /// Blocks and scales of 4-bit floats, until all have been seen.
  private var packed: [PackedMatrices: (blocks: TensorInfo?, scales: TensorInfo?)] = [:]
  /// Experts by stack and number, until all have been seen.
  private var parts: [String: [Int: TensorInfo]] = [:]

  private static let outside = [
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "model.norm.bias": "output_norm.bias",
    "lm_head.bias": "output.bias",
  ]

  /// Names under `model.layers.N.` and `blk.N.`.
  private static let ofLayer: [String: String] = {
    var names = [
      "input_layernorm.weight": "attn_norm.weight", "input_layernorm.bias": "attn_norm.bias",
      "self_attn.q_norm.weight": "attn_q_norm.weight",
      "self_attn.k_norm.weight": "attn_k_norm.weight",
      "self_attn.o_proj.weight": "attn_output.weight",
      "self_attn.o_proj.bias": "attn_output.bias",
      "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
      "linear_attn.in_proj_z.weight": "attn_gate.weight",
      "linear_attn.in_proj_ba.weight": "ssm_ba.weight",
      "linear_attn.in_proj_b.weight": "ssm_beta.weight",
      "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
      "linear_attn.conv1d.weight": "ssm_conv1d.weight",
      "linear_attn.dt_bias": "ssm_dt.bias",
      "linear_attn.A_log": "ssm_a",
      "linear_attn.norm.weight": "ssm_norm.weight",
      "linear_attn.out_proj.weight": "ssm_out.weight",
      "self_attn.q_a_proj.weight": "attn_q_a.weight",
      "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
      "self_attn.q_b_proj.weight": "attn_q_b.weight",
      "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
      "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
      "self_attn.sinks": "attn_sinks.weight",
      "mlp.router.weight": "ffn_gate_inp.weight", "mlp.router.bias": "ffn_gate_inp.bias",
      "mlp.experts.down_proj_bias": "ffn_down_exps.bias",
      "mlp.gate.weight": "ffn_gate_inp.weight",
      "block_sparse_moe.gate.weight": "ffn_gate_inp.weight",
      "block_sparse_moe.router.weight": "ffn_gate_inp.weight",
      "block_sparse_moe.router.layer.weight": "ffn_gate_inp.weight",
      "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
      "mlp.gate.moe_statics.e_score_correction_bias": "exp_probs_b.bias",
      "mlp.moe_statics.e_score_correction_bias": "exp_probs_b.bias",
      "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
      "shared_mlp.output_linear.weight": "ffn_down_shexp.weight",
    ]
    for part in ["q", "k", "v"] {
      names["self_attn.\(part)_proj.weight"] = "attn_\(part).weight"
      names["self_attn.\(part)_proj.bias"] = "attn_\(part).bias"
    }
    for part in ["gate", "up", "down"] {
      names["mlp.\(part)_proj.weight"] = "ffn_\(part).weight"
      names["mlp.shared_expert.\(part)_proj.weight"] = "ffn_\(part)_shexp.weight"
      names["mlp.shared_experts.\(part)_proj.weight"] = "ffn_\(part)_shexp.weight"
    }
    return names
  }()

  /// The matrix of an expert by its name there.
  private static let ofExpert = [
    "gate_proj.weight": "gate", "up_proj.weight": "up", "down_proj.weight": "down",
    "w1.weight": "gate", "w3.weight": "up", "w2.weight": "down",
  ]

  init(_ files: [SafetensorsHeader], config: HuggingFaceConfig) throws(CheckpointError) {
    self.config = config
    self.files = files
    for file in files {
      for tensor in file.tensors { try add(tensor, path: file.path) }
    }
    // In order, so that places are always the same.
    for key in packed.keys.sorted(by: { ($0.layer, $0.name) < ($1.layer, $1.name) }) {
      try arrange(key, packed[key]!)
    }
    for (name, experts) in parts { try stack(name, experts) }
  }

  /// The endings of the scales of 8-bit floats, after the name of their weights.
  private static let scaleEndings = ["_scale_inv", "_scale"]

  private mutating func add(_ tensor: TensorInfo, path: String) throws(CheckpointError) {
    let name = Self.ofText(tensor.name)
    if let ending = Self.scaleEndings.first(where: { name.hasSuffix(".weight" + $0) }) {
      return try addScales(tensor, of: String(name.dropLast(ending.count)))
    }
    if let own = Self.outside[name] {
      // It is there again, under its second name.
      if own == "output.weight", config.tiesEmbedding { return }
      return try put(tensor, as: own)
    }
    // Blocks that predict further tokens (ERNIE, Qwen), and what sees (Qwen3.5).
    if config.architecture == .ernie, name.hasPrefix("model.mtp_") { return }
    if config.linear != nil, name.hasPrefix("mtp.") || name.hasPrefix("model.visual.") { return }
    guard let (layer, rest) = Self.layer(of: name) else { return try put(tensor, as: name) }
    let traits = ArchitectureTraits(config.architecture)
    if layer >= config.layerCount, traits.mayPredictFurther { return }
    let prefix = "blk.\(layer)."
    for ending in ["weight", "bias"] where rest == "post_attention_layernorm.\(ending)" {
      return try put(tensor, as: "\(prefix)\(traits.feedForwardNorm).\(ending)")
    }
    if let own = Self.ofLayer[rest] {
      switch own {
      case "ffn_gate_inp_shexp.weight", "exp_probs_b.bias":
        return try put(tensor.reshaped([tensor.shape.reduce(1, *)]), as: prefix + own)
      case "ssm_conv1d.weight" where tensor.shape.count == 3 && tensor.shape[1] == 1:
        return try put(tensor.reshaped([tensor.shape[0], tensor.shape[2]]), as: prefix + own)
      default:
        return try put(tensor, as: prefix + own)
      }
    }
    switch rest {
    case "linear_attn.in_proj_qkvz.weight":
      try separate(tensor, prefix: prefix, ending: "weight", blockRows: 1, path: path)
    case "self_attn.kv_b_proj.weight":
      try split(tensor, prefix: prefix, ending: "weight", block: (1, 1), path: path)
    case "self_attn.rotary_emb.inv_freq":
      // Follows from the configuration.
      return
    case "mlp.experts.gate_up_proj_blocks", "mlp.experts.down_proj_blocks":
      packed[PackedMatrices(layer, rest), default: (nil, nil)].blocks = tensor
    case "mlp.experts.gate_up_proj_scales", "mlp.experts.down_proj_scales":
      packed[PackedMatrices(layer, rest), default: (nil, nil)].scales = tensor
    case "mlp.experts.gate_up_proj_bias":
      for (index, part) in ["gate", "up"].enumerated() {
        try put(tensor.alternating(from: index, path: path), as: "\(prefix)ffn_\(part)_exps.bias")
      }
    case "shared_mlp.input_linear.weight":
      for (index, part) in ["gate", "up"].enumerated() {
        try put(
          tensor.rows(half: index, path: path), as: "\(prefix)ffn_\(part)_shexp.weight")
      }
    case "block_sparse_moe.input_linear.weight", "mlp.experts.gate_up_proj",
      "block_sparse_moe.experts.gate_up_proj":
      for (index, part) in ["gate", "up"].enumerated() {
        for (expert, matrix) in try tensor.experts(path: path).enumerated() {
          parts["\(prefix)ffn_\(part)_exps.weight", default: [:]][expert] =
            try matrix.rows(half: index, path: path)
        }
      }
    case "block_sparse_moe.output_linear.weight", "mlp.experts.down_proj",
      "block_sparse_moe.experts.down_proj":
      for (expert, matrix) in try tensor.experts(path: path).enumerated() {
        parts["\(prefix)ffn_down_exps.weight", default: [:]][expert] = matrix
      }
    default:
      guard let (expert, matrix) = Self.expert(of: rest) else { return try put(tensor, as: name) }
      parts["\(prefix)ffn_\(matrix)_exps.weight", default: [:]][expert] = tensor
    }
  }

  /// The name of a tensor of the part that reads, as if there were no other.
  private static func ofText(_ name: String) -> String {
    let prefix = "model.language_model."
    return name.hasPrefix(prefix) ? "model." + name.dropFirst(prefix.count) : name
  }

  /// The layer that a name is of, and what follows in the name.
  private static func layer(of name: String) -> (layer: Int, rest: String)? {
    let words = name.split(separator: ".", maxSplits: 3)
    guard words.count == 4, words[0] == "model", words[1] == "layers", let layer = Int(words[2])
    else { return nil }
    return (layer, String(words[3]))
  }

  /// The expert that a name within a layer is of, and its matrix as GGUF calls it.
  private static func expert(of rest: String) -> (expert: Int, matrix: String)? {
    let words = rest.split(separator: ".", maxSplits: 3)
    guard words.count == 4, words[0] == "mlp" || words[0] == "block_sparse_moe",
      words[1] == "experts", let expert = Int(words[2]), (0..<65_536).contains(expert),
      let matrix = ofExpert[String(words[3])]
    else { return nil }
    return (expert, matrix)
  }

  /// Adds the scales of `weights`, as `.scale` after the name that these have in GGUF.
  private mutating func addScales(
    _ tensor: TensorInfo, of weights: String
  ) throws(CheckpointError) {
    guard let (layer, rest) = Self.layer(of: weights) else {
      return try put(tensor, as: tensor.name)
    }
    if layer >= config.layerCount, ArchitectureTraits(config.architecture).mayPredictFurther {
      return
    }
    if rest == "self_attn.kv_b_proj.weight", let block = config.weightBlock {
      return try split(
        tensor, prefix: "blk.\(layer).", ending: "scale", block: block,
        path: files[tensor.file].path)
    }
    if rest == "linear_attn.in_proj_qkvz.weight", let block = config.weightBlock {
      return try separate(
        tensor, prefix: "blk.\(layer).", ending: "scale", blockRows: block.rows,
        path: files[tensor.file].path)
    }
    if let own = Self.ofLayer[rest], own.hasSuffix(".weight") {
      return try put(tensor, as: "blk.\(layer).\(scaleName(of: own))")
    }
    guard let (expert, matrix) = Self.expert(of: rest) else {
      return try put(tensor, as: tensor.name)
    }
    parts["blk.\(layer).ffn_\(matrix)_exps.scale", default: [:]][expert] = tensor
  }

  /// Takes the matrix that makes queries, keys, values and gates, those of one key head after the other, or its
  /// scales, apart: all queries, then all keys, then all values; and the gates.
  private mutating func separate(
    _ tensor: TensorInfo, prefix: String, ending: String, blockRows: Int, path: String
  ) throws(CheckpointError) {
    guard let linear = config.linear else { return try put(tensor, as: tensor.name) }
    let (keys, values) = (linear.dimension, linear.valueSize / linear.keyHeadCount)
    guard keys.isMultiple(of: blockRows), values.isMultiple(of: blockRows),
      tensor.shape.count == 2,
      tensor.shape[1] == 2 * (linear.keySize + linear.valueSize) / blockRows
    else {
      throw .wrongShape(
        path: path, tensor: tensor.name, found: tensor.shape,
        expected: [tensor.shape[0], 2 * (linear.keySize + linear.valueSize) / blockRows])
    }
    let rowByteCount = tensor.byteCount / tensor.shape[1]
    func rows(from first: Int, _ count: Int) -> [ExpertSlice] {
      (0..<linear.keyHeadCount).map { head in
        let row = (head * 2 * (keys + values) + first) / blockRows
        return ExpertSlice(
          file: tensor.file, offset: tensor.offset + UInt64(row * rowByteCount),
          byteCount: count / blockRows * rowByteCount)
      }
    }
    let mixed = rows(from: 0, keys) + rows(from: keys, keys) + rows(from: 2 * keys, values)
    for (name, slices) in [
      ("attn_qkv", mixed), ("attn_gate", rows(from: 2 * keys + values, values)),
    ] {
      let byteCount = slices.reduce(0) { $0 + $1.byteCount }
      var part = TensorInfo(
        name: tensor.name, type: tensor.type, shape: [tensor.shape[0], byteCount / rowByteCount],
        file: tensor.file, offset: tensor.offset, byteCount: byteCount)
      part.parts = slices
      try put(part, as: "\(prefix)\(name).\(ending)")
    }
  }

  /// Takes the matrix that makes keys and values of compressed rows, [heads * (plain + values), rank], or its
  /// scales, apart: the keys' part of each head is used the other way round.
  private mutating func split(
    _ tensor: TensorInfo, prefix: String, ending: String, block: (rows: Int, columns: Int),
    path: String
  ) throws(CheckpointError) {
    guard let latent = config.latent else { return try put(tensor, as: tensor.name) }
    let (plain, values) = (latent.plainDimension, latent.valueDimension)
    guard block.rows == block.columns, plain.isMultiple(of: block.rows),
      values.isMultiple(of: block.rows), tensor.type.blockSize == 1
    else {
      throw .wrongShape(
        path: path, tensor: tensor.name, found: [block.columns, block.rows],
        expected: [plain, values])
    }
    let rank = (latent.keyValueRank + block.columns - 1) / block.columns
    let (keys, rows) = (plain / block.rows, (plain + values) / block.rows)
    let heads = config.headCount
    let (rowCount, overflow) = heads.multipliedReportingOverflow(by: rows)
    guard !overflow, tensor.shape == [rank, rowCount] else {
      throw .wrongShape(
        path: path, tensor: tensor.name, found: tensor.shape, expected: [rank, rowCount])
    }
    let rowByteCount = rank * tensor.type.blockByteCount
    for (name, first, count) in [("attn_k_b", 0, keys), ("attn_v_b", keys, rows - keys)] {
      var part = TensorInfo(
        name: tensor.name, type: tensor.type,
        shape: first == 0 ? [count, rank, heads] : [rank, count, heads], file: tensor.file,
        offset: tensor.offset, byteCount: heads * count * rowByteCount)
      part.order = first == 0 ? .transposed : .asStored
      part.parts = (0..<heads).map { head in
        ExpertSlice(
          file: tensor.file,
          offset: tensor.offset + UInt64((head * rows + first) * rowByteCount),
          byteCount: count * rowByteCount)
      }
      try put(part, as: "\(prefix)\(name).\(ending)")
    }
  }

  private mutating func put(_ tensor: TensorInfo, as name: String) throws(CheckpointError) {
    guard tensors.updateValue(tensor.named(name), forKey: name) == nil else {
      throw .duplicateTensor(path: files[tensor.file].path, tensor: tensor.name)
    }
  }

  /// Makes experts of 4-bit floats of their blocks, [16, groups, rows, experts], and scales, [groups, rows,
  /// experts]: those of gate and up are one, whose rows take turns.
  private mutating func arrange(
    _ matrices: PackedMatrices, _ pair: (blocks: TensorInfo?, scales: TensorInfo?)
  ) throws(CheckpointError) {
    guard let blocks = pair.blocks, let scales = pair.scales else {
      let missing = pair.blocks == nil ? "blocks" : "scales"
      throw .missingTensor(
        path: files[(pair.blocks ?? pair.scales)!.file].path,
        tensor: "model.layers.\(matrices.layer).mlp.experts.\(matrices.name)_\(missing)")
    }
    let isJoint = matrices.name == "gate_up_proj"
    guard blocks.shape.count == 4, blocks.shape[0] == 16, blocks.type == .i8,
      scales.type == .i8, blocks.shape[3] <= 65_536,
      !isJoint || blocks.shape[2].isMultiple(of: 2)
    else {
      throw .wrongShape(
        path: files[blocks.file].path, tensor: blocks.name, found: blocks.shape,
        expected: [16, blocks.shape.last ?? 0])
    }
    guard scales.shape == Array(blocks.shape[1...]) else {
      throw .wrongShape(
        path: files[scales.file].path, tensor: scales.name, found: scales.shape,
        expected: Array(blocks.shape[1...]))
    }
    let (groups, rows) = (blocks.shape[1], blocks.shape[2])
    for expert in 0..<blocks.shape[3] {
      let place = arrangements[blocks.file, default: Arrangement()].add(
        rows: rows, groups: groups, isInterleaved: isJoint,
        blocks: blocks.offset + UInt64(expert * rows * groups * 16),
        scales: (scales.file, scales.offset + UInt64(expert * rows * groups)))
      let own = isJoint ? ["gate", "up"] : ["down"]
      let byteCount = rows / own.count * groups * 17
      for (index, part) in own.enumerated() {
        parts["blk.\(matrices.layer).ffn_\(part)_exps.weight", default: [:]][expert] = TensorInfo(
          name: blocks.name, type: .mxfp4, shape: [32 * groups, rows / own.count],
          file: blocks.file, offset: place + UInt64(index * byteCount), byteCount: byteCount)
      }
    }
  }

  /// Makes one stack of the experts of a layer.
  private mutating func stack(
    _ name: String, _ experts: [Int: TensorInfo]
  ) throws(CheckpointError) {
    var slices: [ExpertSlice] = []
    guard let first = experts[0] else {
      throw .missingTensor(path: files[0].path, tensor: "\(name), expert 0")
    }
    guard experts.count == config.expertCount else {
      throw .invalidValue(
        path: files[first.file].path, key: name, found: "of \(experts.count) experts",
        expected: "\(config.expertCount), as config.json says")
    }
    var byteCount = 0
    for number in 0..<experts.count {
      guard let expert = experts[number] else {
        throw .missingTensor(path: files[first.file].path, tensor: "\(name), expert \(number)")
      }
      guard expert.shape == first.shape else {
        throw .wrongShape(
          path: files[expert.file].path, tensor: expert.name, found: expert.shape,
          expected: first.shape)
      }
      guard expert.type == first.type else {
        throw .unsupportedElementType(
          path: files[expert.file].path, tensor: expert.name, found: expert.type,
          supported: [first.type])
      }
      slices.append(
        ExpertSlice(file: expert.file, offset: expert.offset, byteCount: expert.byteCount))
      // They lie apart in files, so the sum cannot exceed their sizes.
      byteCount += expert.byteCount
    }
    var stack = TensorInfo(
      name: name, type: first.type, shape: first.shape + [experts.count], file: first.file,
      offset: first.offset, byteCount: byteCount)
    if name.hasSuffix(".weight") { stacks[name] = slices } else { stack.parts = slices }
    try put(stack, as: name)
  }
}

/// The experts' matrices of 4-bit floats of a layer: `gate_up_proj` or `down_proj`.
private struct PackedMatrices: Hashable {
  let layer: Int
  let name: String

  /// - Parameter rest: the name of their blocks or scales within the layer.
  init(_ layer: Int, _ rest: String) {
    self.layer = layer
    name = String(rest.dropFirst("mlp.experts.".count).dropLast("_blocks".count))
  }
}

/// The name of the scales of 8-bit floats.
package func scaleName(of weights: String) -> String { weights.dropLast("weight".count) + "scale" }

extension TensorInfo {
  fileprivate func named(_ name: String) -> TensorInfo {
    TensorInfo(
      name: name, type: type, shape: shape, file: file, offset: offset, byteCount: byteCount,
      parts: parts, order: order)
  }

  /// The same values in another shape.
  fileprivate func reshaped(_ shape: [Int]) -> TensorInfo {
    TensorInfo(
      name: name, type: type, shape: shape, file: file, offset: offset, byteCount: byteCount)
  }

  /// Every other value of rows.
  fileprivate func alternating(from first: Int, path: String) throws(CheckpointError) -> TensorInfo
  {
    guard shape[0].isMultiple(of: 2), type.blockSize == 1 else {
      throw .wrongShape(path: path, tensor: name, found: shape, expected: [2 * (shape[0] / 2 + 1)])
    }
    var part = TensorInfo(
      name: name, type: type, shape: [shape[0] / 2] + shape.dropFirst(), file: file,
      offset: offset, byteCount: byteCount / 2)
    part.parts = [ExpertSlice(file: file, offset: offset, byteCount: byteCount)]
    part.order = .alternating(from: first)
    return part
  }

  /// The first or second half of the rows of a matrix.
  fileprivate func rows(half: Int, path: String) throws(CheckpointError) -> TensorInfo {
    guard shape.count == 2, shape[1].isMultiple(of: 2) else {
      throw .wrongShape(
        path: path, tensor: name, found: shape, expected: [shape[0], 2 * (shape.last ?? 1)])
    }
    let bytes = byteCount / 2
    return TensorInfo(
      name: name, type: type, shape: [shape[0], shape[1] / 2], file: file,
      offset: offset + UInt64(half * bytes), byteCount: bytes)
  }

  /// The matrices of a stack.
  fileprivate func experts(path: String) throws(CheckpointError) -> [TensorInfo] {
    guard shape.count == 3, shape[2] <= 65_536 else {
      throw .invalidDimensionCount(path: path, tensor: name, found: UInt32(shape.count))
    }
    let bytes = byteCount / shape[2]
    return (0..<shape[2]).map { expert in
      TensorInfo(
        name: name, type: type, shape: Array(shape[..<2]), file: file,
        offset: offset + UInt64(expert * bytes), byteCount: bytes)
    }
  }
}

/// The numbers that say what a model's layers are, with the rules of each architecture where files leave
/// them out.
extension ArchitectureKeys {
  /// The layers, without blocks that predict further tokens.
  func layerCount(_ traits: ArchitectureTraits) throws(CheckpointError) -> Int {
    let blocks = try count("block_count", maximum: 4_096)
    let key = "nextn_predict_layers"
    guard traits.mayPredictFurther, let further = try source.integerIfPresent(name(key)) else {
      return blocks
    }
    guard (0..<blocks).contains(further) else {
      throw invalid(key, "\(further)", "0 to \(blocks - 1)")
    }
    return blocks - further
  }

  /// The first layers of `layerCount`, which have no experts.
  func denseLayerCount(of layerCount: Int) throws(CheckpointError) -> Int {
    let key = "leading_dense_block_count"
    guard let dense = try source.integerIfPresent(name(key)) else { return 0 }
    guard (0..<layerCount).contains(dense) else {
      throw invalid(key, "\(dense)", "0 to \(layerCount - 1)")
    }
    return dense
  }

  /// Rows of an expert's gate and up projections.
  func expertFeedForwardSize(
    _ architecture: Architecture, topK: Int
  ) throws(CheckpointError) -> Int {
    let key = "expert_feed_forward_length"
    if let own = try countIfPresent(key, maximum: 1 << 24) { return own }
    switch architecture {
    case .olmoe, .mixtral, .granitemoe, .gptOSS, .phimoe:
      // Their converters state the experts' size as that of the layer.
      return try count("feed_forward_length", maximum: 1 << 24)
    case .qwen2moe:
      // Files from before the key was; all experts of a token were stated together.
      return max(1, try count("feed_forward_length", maximum: 1 << 24) / topK)
    case .qwen3moe, .glm4moe, .ernie, .deepSeek2, .qwen3next, .qwen35moe:
      return try count(key, maximum: 1 << 24)
    }
  }

  /// The same of the expert that every token is sent to besides; 0 without one.
  func sharedFeedForwardSize(
    _ architecture: Architecture, expert: Int
  ) throws(CheckpointError) -> Int {
    let (countKey, sizeKey) = ("expert_shared_count", "expert_shared_feed_forward_length")
    switch architecture {
    case .olmoe, .qwen3moe, .mixtral, .gptOSS, .phimoe:
      try expect(countKey, integer: 0)
      try expect(sizeKey, integer: 0)
      return 0
    case .qwen2moe:
      if let size = try countIfPresent(sizeKey, maximum: 1 << 24) { return size }
      return try count("feed_forward_length", maximum: 1 << 24)
    case .granitemoe, .ernie, .qwen3next, .qwen35moe:
      return try sizeFromZero(sizeKey, maximum: 1 << 24)
    case .glm4moe, .deepSeek2:
      return expert * (try sizeFromZero(countKey, maximum: 256))
    }
  }

  private func sizeFromZero(_ key: String, maximum: Int) throws(CheckpointError) -> Int {
    guard let found = try source.integerIfPresent(name(key)), found != 0 else { return 0 }
    guard (1...maximum).contains(found) else { throw invalid(key, "\(found)", "0 to \(maximum)") }
    return found
  }

  /// How scores become the choice of experts.
  func routerRule(
    _ traits: ArchitectureTraits, firstExpertLayer: Int, _ checkpoint: Checkpoint
  ) throws(CheckpointError) -> RouterRule {
    if traits.statesRouter { return try statedRouterRule(firstExpertLayer, checkpoint) }
    var rule = traits.router
    // 0 is "not stated", 1 softmax, 2 sigmoid, 3 softmax of the chosen experts' scores, which is softmax with
    // weights divided by their sum (`llama_expert_gating_func_type`).
    let (gating, expected) = ("expert_gating_func", rule.gating == .sigmoid ? 2 : 1)
    if let found = try source.integerIfPresent(name(gating)), found != 0, found != expected,
      found != 3 || expected != 1 || !rule.normalizesTopK
    {
      throw invalid(
        gating, "\(found)",
        "\(expected) (\(rule.gating)), as nothing else is supported")
    }
    // No graph of these reads this key, so a file that contradicts it is another model.
    try expect("expert_weights_norm", bool: rule.normalizesTopK)
    if rule.hasCorrection {
      rule.hasCorrection = checkpoint.tensors["blk.\(firstExpertLayer).exp_probs_b.bias"] != nil
    }
    // Zero means that weights are not scaled.
    let scale = "expert_weights_scale"
    guard let found = try source.floatIfPresent(name(scale)), found != 0, found != 1 else {
      return rule
    }
    guard rule.gating == .sigmoid, found.isFinite, found > 0 else {
      throw invalid(scale, "\(found)", "1, as nothing else is supported")
    }
    rule.scale = found
    return rule
  }

  /// The rule of a file that states all of it.
  private func statedRouterRule(
    _ firstExpertLayer: Int, _ checkpoint: Checkpoint
  ) throws(CheckpointError) -> RouterRule {
    var rule = RouterRule()
    let (gating, scale) = ("expert_gating_func", "expert_weights_scale")
    switch try source.integerIfPresent(name(gating)) ?? 0 {
    case 0, 1: rule.gating = .softmax
    case 2: rule.gating = .sigmoid
    case let found: throw invalid(gating, "\(found)", "1 (softmax) or 2 (sigmoid)")
    }
    rule.hasCorrection = checkpoint.tensors["blk.\(firstExpertLayer).exp_probs_b.bias"] != nil
    rule.normalizesTopK = try source.boolIfPresent(name("expert_weights_norm")) ?? false
    if let found = try source.floatIfPresent(name(scale)), found != 0 {
      guard found.isFinite, found > 0 else { throw invalid(scale, "\(found)", "a number above 0") }
      rule.scale = found
    }
    let (groupsKey, usedKey) = ("expert_group_count", "expert_group_used_count")
    let groups = try source.integerIfPresent(name(groupsKey)) ?? 0
    guard groups > 1 else { return rule }
    let experts = try count("expert_count", maximum: 65_536)
    let topK = try count("expert_used_count", maximum: experts)
    // With the sigmoid the best two of a group count.
    guard experts % groups == 0, experts / groups >= (rule.gating == .sigmoid ? 2 : 1) else {
      throw invalid(groupsKey, "\(groups)", "a divisor of \(experts) experts")
    }
    rule.groups = groups
    rule.usedGroups = try count(usedKey, maximum: groups)
    guard rule.usedGroups * (experts / groups) >= topK else {
      throw invalid(usedKey, "\(rule.usedGroups)", "groups of \(topK) experts or more together")
    }
    return rule
  }

  /// The positions that layers with a window see.
  func window(
    _ traits: ArchitectureTraits, contextLength: Int
  ) throws(CheckpointError) -> Int? {
    let key = "attention.sliding_window"
    if traits.alternatesWindow { return try count(key, maximum: 1 << 30) }
    // A window of the whole context is none.
    if let found = try source.integerIfPresent(name(key)), found != 0, found < contextLength {
      throw invalid(
        key, "\(found)", "0 or at least \(contextLength), as nothing else is supported")
    }
    return nil
  }

  /// The first values of a head, which are rotated.
  func rotaryDimension(of headDimension: Int) throws(CheckpointError) -> Int {
    let key = "rope.dimension_count"
    guard let found = try source.integerIfPresent(name(key)) else { return headDimension }
    guard found > 0, found <= headDimension, found % 2 == 0 else {
      throw invalid(key, "\(found)", "an even number up to \(headDimension)")
    }
    return found
  }
}

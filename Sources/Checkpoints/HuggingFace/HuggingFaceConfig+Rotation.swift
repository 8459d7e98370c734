internal import Glibc

/// What a `config.json` says of rotary positions.
extension HuggingFaceConfig {
  /// Values of a head.
  private func headDimension() throws(CheckpointError) -> Int {
    let derived = try file.integer("hidden_size") / headCount
    return try file.integerIfPresent("head_dim") ?? derived
  }

  mutating func setRotation() throws(CheckpointError) {
    // Since version 5 of transformers the rotation has an object of its own.
    let nested = file.value["rope_parameters"]
    let own = (
      base: try file.numberIfPresent("rope_theta"),
      share: try file.numberIfPresent("partial_rotary_factor")
    )
    let base = nested?["rope_theta"]?.number ?? own.base
    set("rope.freq_base", base)
    let head = try headDimension()
    // The classes with recurrent layers rotate a quarter unless they are told otherwise.
    let usual = ArchitectureTraits(architecture).hasLinearLayers ? 0.25 : nil
    var rotated = latent?.rotaryDimension ?? head
    if latent == nil, let share = nested?["partial_rotary_factor"]?.number ?? own.share ?? usual {
      rotated = Int((Double(head) * share).clamped)
      set("rope.dimension_count", rotated)
    }
    guard let scaling = nested ?? file.value["rope_scaling"],
      let type = (scaling["rope_type"] ?? scaling["type"])?.string, type != "default"
    else { return }
    switch type {
    case "linear":
      setScaling(type, factor: scaling["factor"]?.number)
    case "yarn":
      setScaling(type, factor: scaling["factor"]?.number)
      try setYarn(scaling)
    case "longrope", "su":
      try setLongRope(scaling, pairs: rotated / 2)
    case "llama3":
      try setLlama3(scaling, base: base ?? 10_000, rotated: rotated)
    default:
      throw file.invalid(
        "rope_type", "'\(type)'", "'default', 'linear', 'yarn', 'longrope' or 'llama3'")
    }
  }

  private mutating func setScaling(_ type: String, factor: Double?) {
    metadata["\(architecture.rawValue).rope.scaling.type"] = .string(type)
    set("rope.scaling.factor", factor)
  }

  private mutating func setYarn(_ scaling: JSONValue) throws(CheckpointError) {
    set(
      "rope.scaling.original_context_length",
      scaling["original_max_position_embeddings"]?.integer)
    set("rope.scaling.yarn_beta_fast", scaling["beta_fast"]?.number)
    set("rope.scaling.yarn_beta_slow", scaling["beta_slow"]?.number)
    var refused = ["attention_factor", "mscale", "mscale_all_dim", "truncate"]
    if architecture == .deepSeek2 {
      // Of the two factors one is that of the other's quotient and the square of one that of the scores:
      // published models have both alike.
      let both = (scaling["mscale"]?.number ?? 1, scaling["mscale_all_dim"]?.number ?? 0)
      guard both.0 == both.1 else {
        throw file.invalid("mscale_all_dim", "\(both.1)", "\(both.0), as mscale")
      }
      set("rope.scaling.yarn_log_multiplier", 0.1 * both.1)
      refused.removeAll { $0.hasPrefix("mscale") }
    }
    if scaling["truncate"]?.bool == ArchitectureTraits(architecture).roundsRamp {
      refused.removeAll { $0 == "truncate" }
    }
    for key in refused where scaling[key] != nil {
      throw file.invalid(key, "stated", "no such key, as it is not supported")
    }
  }

  /// LongRoPE (arXiv 2402.13753): a factor for each pair of values, one list for short contexts, one for long.
  private mutating func setLongRope(
    _ scaling: JSONValue, pairs: Int
  ) throws(CheckpointError) {
    let key = "original_max_position_embeddings"
    let longest = try file.integer("max_position_embeddings")
    let outside = try file.integerIfPresent(key)
    let original = scaling[key]?.integer ?? outside ?? 0
    guard original > 1, longest > 0 else { throw file.invalid(key, "\(original)", "2 or more") }
    // Phi-3.5-MoE states both magnitudes; others have the paper's.
    let factor = scaling["factor"]?.number ?? Double(longest) / Double(original)
    let usual = factor <= 1 ? 1 : (1 + log(factor) / log(Double(original))).squareRoot()
    let own = scaling["attention_factor"]?.number ?? usual
    try setFactors(
      short: numbers(scaling, "short_factor", count: pairs),
      long: numbers(scaling, "long_factor", count: pairs),
      magnitudes: (
        scaling["short_mscale"]?.number ?? own, scaling["long_mscale"]?.number ?? own
      ), original: original)
  }

  /// Llama 3.1's rule: slow pairs are interpolated, fast ones are not, between the two bounds some of each.
  private mutating func setLlama3(
    _ scaling: JSONValue, base: Double, rotated: Int
  ) throws(CheckpointError) {
    func number(_ key: String) throws(CheckpointError) -> Double {
      guard let found = scaling[key]?.number, found.isFinite, found > 0 else {
        throw file.invalid(key, "\(scaling[key]?.number ?? 0)", "a number above 0")
      }
      return found
    }
    let (factor, low, high) = (
      try number("factor"), try number("low_freq_factor"), try number("high_freq_factor")
    )
    let original = try number("original_max_position_embeddings")
    let factors = (0..<rotated / 2).map { pair in
      // How often it turns over the original context.
      let turns = original / (2 * Double.pi * pow(base, Double(2 * pair) / Double(rotated)))
      if turns < low { return factor }
      if turns > high { return 1 }
      let share = (turns - low) / (high - low)
      return 1 / ((1 - share) / factor + share)
    }
    setFactors(
      short: factors, long: factors, magnitudes: (1, 1), original: Int(original.clamped))
  }

  private func numbers(
    _ scaling: JSONValue, _ key: String, count: Int
  ) throws(CheckpointError) -> [Double] {
    let found = scaling[key]?.array?.compactMap(\.number) ?? []
    guard found.count == count else {
      throw file.invalid(key, "\(found.count) numbers", "\(count) numbers")
    }
    return found
  }

  private mutating func setFactors(
    short: [Double], long: [Double], magnitudes: (short: Double, long: Double), original: Int
  ) {
    let prefix = architecture.rawValue
    for (key, values) in [
      (ArchitectureKeys.shortFactorsKey, short), (ArchitectureKeys.longFactorsKey, long),
    ] {
      metadata["\(prefix).\(key)"] = .array(.float32(values.map { Float($0) }))
    }
    set(ArchitectureKeys.shortMagnitudeKey, magnitudes.short)
    set(ArchitectureKeys.longMagnitudeKey, magnitudes.long)
    set("rope.scaling.original_context_length", original)
  }
}

extension Double {
  /// What no count exceeds, from 0 on.
  fileprivate var clamped: Double { isFinite ? Swift.min(Swift.max(self, 0), 1_048_576) : 0 }
}

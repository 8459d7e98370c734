/// The metadata keys of one architecture, which begin with its name, read with checks of range.
struct ArchitectureKeys {
  let source: any MetadataSource
  let prefix: String

  /// The full name of a key.
  func name(_ key: String) -> String { "\(prefix).\(key)" }

  /// The error for a value that makes no sense.
  func invalid(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    .invalidValue(path: source.path, key: name(key), found: found, expected: expected)
  }

  /// An integer from 1 to `maximum`.
  func count(_ key: String, maximum: Int) throws(CheckpointError) -> Int {
    try inRange(source.integer(name(key)), key, maximum: maximum)
  }

  /// As `count`, or nil without the key.
  func countIfPresent(_ key: String, maximum: Int) throws(CheckpointError) -> Int? {
    guard let value = try source.integerIfPresent(name(key)) else { return nil }
    return try inRange(value, key, maximum: maximum)
  }

  private func inRange(_ value: Int, _ key: String, maximum: Int) throws(CheckpointError) -> Int {
    guard value >= 1, value <= maximum else {
      throw invalid(key, "\(value)", "1 to \(maximum)")
    }
    return value
  }

  /// A finite number above zero.
  func positive(_ key: String) throws(CheckpointError) -> Float {
    try aboveZero(source.float(name(key)), key)
  }

  /// As `positive`, or nil without the key.
  func positiveIfPresent(_ key: String) throws(CheckpointError) -> Float? {
    guard let value = try source.floatIfPresent(name(key)) else { return nil }
    return try aboveZero(value, key)
  }

  private func aboveZero(_ value: Float, _ key: String) throws(CheckpointError) -> Float {
    guard value.isFinite, value > 0 else {
      throw invalid(key, "\(value)", "a finite number above zero")
    }
    return value
  }

  /// Checks that the key, if present, holds `integer`.
  func expect(_ key: String, integer: Int) throws(CheckpointError) {
    if let found = try source.integerIfPresent(name(key)), found != integer {
      throw invalid(key, "\(found)", "\(integer), as nothing else is supported")
    }
  }

  /// Checks that the key, if present, holds `bool`.
  func expect(_ key: String, bool: Bool) throws(CheckpointError) {
    if let found = try source.boolIfPresent(name(key)), found != bool {
      throw invalid(key, "\(found)", "\(bool), as nothing else is supported")
    }
  }

  /// Checks that no key asks for a computation that the supported architectures do not have.
  ///
  /// A file may state such a feature though converters do not; ignoring it would give wrong output.
  func refuseUnsupportedFeatures(_ traits: ArchitectureTraits) throws(CheckpointError) {
    if !traits.alternatesWindow { try expect("attention.sliding_window", integer: 0) }
    if !traits.mayBeginDense { try expect("leading_dense_block_count", integer: 0) }
    if !traits.mayPredictFurther { try expect("nextn_predict_layers", integer: 0) }
    try expect("interleave_moe_layer_step", integer: 1)
    for key in ["expert_group_count", "expert_group_used_count"] where !traits.statesRouter {
      if let found = try source.integerIfPresent(name(key)), found > 1 {
        throw invalid(key, "\(found)", "at most 1, as nothing else is supported")
      }
    }
    try expect("attention.causal", bool: true)
  }

  /// Reads `rope.scaling.*`, with the defaults of llama.cpp.
  func ropeScaling(
    contextLength: Int, _ traits: ArchitectureTraits
  ) throws(CheckpointError) -> RopeScaling {
    let typeKey = "rope.scaling.type"
    let factorKey = "rope.scaling.factor"
    let type = try source.stringIfPresent(name(typeKey))
    // The second is the name in files of 2023. Zero means "not stated".
    var factor = try source.floatIfPresent(name(factorKey))
    if factor == nil || factor == 0 {
      factor = try source.floatIfPresent(name("rope.scale_linear"))
    }
    if factor == 0 { factor = nil }
    if let factor, !factor.isFinite || factor < 1 {
      throw invalid(factorKey, "\(factor)", "a finite number of at least 1")
    }
    switch type {
    case "none": return .none
    case nil, "linear":
      guard let factor, factor != 1 else { return .none }
      return .linear(factor: factor)
    case "yarn":
      guard let factor else {
        throw .missingKey(path: source.path, key: name(factorKey), expected: "float")
      }
      return .yarn(try yarn(factor: factor, contextLength: contextLength, traits))
    case .some(let other):
      throw invalid(typeKey, "'\(other)'", "'none', 'linear' or 'yarn'")
    }
  }

  private func yarn(
    factor: Float, contextLength: Int, _ traits: ArchitectureTraits
  ) throws(CheckpointError) -> YarnScaling {
    let multiplierKey = "rope.scaling.yarn_log_multiplier"
    let multiplier = try source.floatIfPresent(name(multiplierKey)) ?? 0
    guard traits.isLatent ? (0...10).contains(multiplier) : multiplier == 0 else {
      throw invalid(
        multiplierKey, "\(multiplier)",
        traits.isLatent ? "0 to 10" : "0, as nothing else is supported")
    }
    let extrapolation = "rope.scaling.yarn_ext_factor"
    let extrapolationFactor = try source.floatIfPresent(name(extrapolation)) ?? 1
    guard (0...1).contains(extrapolationFactor) else {
      throw invalid(extrapolation, "\(extrapolationFactor)", "0 to 1")
    }
    // The second is the key of older files.
    let attentionFactor = try positiveIfPresent("rope.scaling.yarn_attn_factor")
    let olderFactor = try positiveIfPresent("rope.scaling.attn_factor")
    return YarnScaling(
      factor: factor,
      originalContext: try countIfPresent(
        "rope.scaling.original_context_length", maximum: 1 << 30) ?? contextLength,
      extrapolationFactor: extrapolationFactor,
      attentionFactor: attentionFactor ?? olderFactor ?? 1,
      betaFast: try positiveIfPresent("rope.scaling.yarn_beta_fast") ?? 32,
      betaSlow: try positiveIfPresent("rope.scaling.yarn_beta_slow") ?? 1,
      roundsRamp: traits.roundsRamp, logMultiplier: traits.isLatent ? multiplier : nil)
  }
}

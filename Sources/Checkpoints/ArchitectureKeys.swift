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
}

internal import Glibc

/// How rotary angles are changed for contexts longer than those of the first training.
package enum RopeScaling: Sendable, Equatable {
  case none
  /// Positions are divided by the factor.
  case linear(factor: Float)
  case yarn(YarnScaling)
  /// Each frequency has a factor of its own.
  case factors(RopeFactors)
}

/// The parameters of YaRN (arXiv 2309.00071).
package struct YarnScaling: Sendable, Equatable {
  /// The context grows by this factor.
  package let factor: Float
  /// The context of the first training, in tokens.
  package let originalContext: Int
  /// How much of the interpolation is undone for pairs that turn often: 1 is the paper's.
  package let extrapolationFactor: Float
  /// A factor on the attention temperature of the paper.
  package let attentionFactor: Float
  /// Pairs that turn more often than this over the original context keep their frequency.
  package let betaFast: Float
  /// Pairs that turn less often than this are fully interpolated.
  package let betaSlow: Float
  /// Whether the borders of the ramp between are rounded outward to whole pairs.
  package var roundsRamp = true
  /// Where attention is latent: the temperature is no factor on the rotation, but one on the products of
  /// queries and keys, (1 + logMultiplier ln(factor))^2 (`yarn_log_multiplier`; DeepSeek-V3's `mscale_all_dim`).
  package var logMultiplier: Float?

  /// The factor on cosines and sines.
  package var magnitude: Float {
    logMultiplier == nil ? attentionFactor * (0.1 * log(factor) + 1) : attentionFactor
  }
}

/// Factors that frequencies are divided by, [values rotated / 2]: LongRoPE (arXiv 2402.13753), which has one set
/// for contexts as long as those of the first training and one for longer ones, and Llama 3's, where both are one.
///
/// Which set is taken depends on the context that a model is opened with, not on the positions it is at: keys
/// that are rotated by one of them do not go with queries rotated by the other.
package struct RopeFactors: Sendable, Equatable {
  /// Where the factors are.
  package enum Source: Sendable, Equatable {
    case values([Float])
    /// The tensor of that name.
    case tensor(String)
  }

  /// One of the two sets.
  package struct Set: Sendable, Equatable {
    package let factors: Source
    /// A factor on cosines and sines.
    package let magnitude: Float
  }

  package let short: Set
  package let long: Set
  /// The longest context, in tokens, that the first set is for.
  package let originalContext: Int

  /// The set for a context of so many tokens.
  package func set(context: Int) -> Set { context > originalContext ? long : short }

  /// The tensors that the factors are in.
  var tensorNames: [String] {
    var names: [String] = []
    for set in [short, long] {
      if case .tensor(let name) = set.factors, !names.contains(name) { names.append(name) }
    }
    return names
  }
}

extension ArchitectureKeys {
  static let shortFactorsKey = "rope.scaling.short_factors"
  static let longFactorsKey = "rope.scaling.long_factors"
  static let shortMagnitudeKey = "rope.scaling.short_magnitude"
  static let longMagnitudeKey = "rope.scaling.long_magnitude"
  private static let factorTensors = (
    short: "rope_factors_short.weight", long: "rope_factors_long.weight",
    both: "rope_freqs.weight"
  )

  /// Reads `rope.scaling.*`, with the defaults of llama.cpp.
  ///
  /// - Parameter pairs: values of a head that are rotated, halved.
  func ropeScaling(
    contextLength: Int, pairs: Int, _ traits: ArchitectureTraits, tensors: [String: TensorInfo]
  ) throws(CheckpointError) -> RopeScaling {
    if let factors = try ropeFactors(contextLength: contextLength, pairs: pairs, tensors: tensors) {
      return .factors(factors)
    }
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

  /// The factors of single frequencies that metadata or tensors hold; nil: none.
  private func ropeFactors(
    contextLength: Int, pairs: Int, tensors: [String: TensorInfo]
  ) throws(CheckpointError) -> RopeFactors? {
    let original = "rope.scaling.original_context_length"
    let context = try countIfPresent(original, maximum: 1 << 30) ?? contextLength
    if let short = try source.floatsIfPresent(name(Self.shortFactorsKey)) {
      let long = try source.floats(name(Self.longFactorsKey))
      for (key, values) in [(Self.shortFactorsKey, short), (Self.longFactorsKey, long)] {
        guard values.count == pairs, values.allSatisfy({ $0.isFinite && $0 > 0 }) else {
          throw invalid(key, "\(values.count) numbers", "\(pairs) numbers above 0")
        }
      }
      return RopeFactors(
        short: .init(
          factors: .values(short), magnitude: try positiveIfPresent(Self.shortMagnitudeKey) ?? 1),
        long: .init(
          factors: .values(long), magnitude: try positiveIfPresent(Self.longMagnitudeKey) ?? 1),
        originalContext: context)
    }
    let names = Self.factorTensors
    if tensors[names.both] != nil {
      let set = RopeFactors.Set(factors: .tensor(names.both), magnitude: 1)
      return RopeFactors(short: set, long: set, originalContext: context)
    }
    guard tensors[names.short] != nil || tensors[names.long] != nil else {
      return nil
    }
    let magnitude = try positiveIfPresent("rope.scaling.attn_factor") ?? 1
    return RopeFactors(
      short: .init(factors: .tensor(names.short), magnitude: magnitude),
      long: .init(factors: .tensor(names.long), magnitude: magnitude), originalContext: context)
  }
}

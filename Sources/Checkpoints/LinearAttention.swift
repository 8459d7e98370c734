/// The sizes of layers whose attention is a gated delta network (arXiv 2412.06464): each head keeps a matrix that
/// fades, and in which what a key stands for is replaced.
package struct LinearAttention: Sendable, Hashable {
  /// Heads of keys and queries.
  package let keyHeadCount: Int
  /// Heads of values, a multiple of those: each has a matrix.
  package let valueHeadCount: Int
  /// Values of a key, of a query and of a value.
  package let dimension: Int
  /// Tokens, up to its own, that the convolution of a channel sees.
  package let convolutionWidth: Int
  /// The layers that are so.
  package let layers: Set<Int>
  /// Whether value heads take turns with key heads: head v goes with key head v % keyHeadCount, else the
  /// neighbours go together.
  package let tilesHeads: Bool
  /// Whether one matrix makes both rates, those of the value heads of a key head after one another.
  package let joinsRates: Bool

  package init(
    keyHeadCount: Int, valueHeadCount: Int, dimension: Int, convolutionWidth: Int,
    layers: Set<Int>, tilesHeads: Bool, joinsRates: Bool
  ) {
    self.keyHeadCount = keyHeadCount
    self.valueHeadCount = valueHeadCount
    self.dimension = dimension
    self.convolutionWidth = convolutionWidth
    self.layers = layers
    self.tilesHeads = tilesHeads
    self.joinsRates = joinsRates
  }

  /// Values of all queries, and of all keys.
  package var keySize: Int { keyHeadCount * dimension }

  /// Values of all heads' values.
  package var valueSize: Int { valueHeadCount * dimension }

  /// Channels of the convolution: queries, keys and values.
  package var channelCount: Int { 2 * keySize + valueSize }

  /// Values that a layer keeps: the matrices, [value heads, key, value], and the channels of the latest tokens.
  package var stateSize: Int { matrixSize + (convolutionWidth - 1) * channelCount }

  /// Values of the matrices.
  package var matrixSize: Int { valueHeadCount * dimension * dimension }

  /// The key head of a value head.
  package func keyHead(of head: Int) -> Int {
    tilesHeads ? head % keyHeadCount : head / (valueHeadCount / keyHeadCount)
  }

  /// Where the rates of a value head stand among the rates of all: what it learns by, and what it forgets by.
  package func rates(of head: Int) -> (learning: Int, decay: Int) {
    guard joinsRates else { return (head, valueHeadCount + head) }
    let share = valueHeadCount / keyHeadCount
    let first = head / share * 2 * share + head % share
    return (first, first + share)
  }
}

extension ArchitectureKeys {
  static let recurrentLayersKey = "attention.recurrent_layers"

  /// The sizes of layers with a recurrent state, under the names that state-space models have for them.
  func linearAttention(
    _ traits: ArchitectureTraits, _ checkpoint: Checkpoint
  ) throws(CheckpointError) -> LinearAttention {
    let (innerKey, headsKey) = ("ssm.inner_size", "ssm.time_step_rank")
    let keyHeads = try count("ssm.group_count", maximum: 65_536)
    let valueHeads = try count(headsKey, maximum: 65_536)
    guard valueHeads.isMultiple(of: keyHeads) else {
      throw invalid(headsKey, "\(valueHeads)", "a multiple of \(keyHeads) key heads")
    }
    let dimension = try count("ssm.state_size", maximum: 4_096)
    let inner = try count(innerKey, maximum: 1 << 28)
    guard inner == valueHeads * dimension else {
      throw invalid(
        innerKey, "\(inner)", "\(valueHeads * dimension), \(valueHeads) heads of \(dimension)")
    }
    return LinearAttention(
      keyHeadCount: keyHeads, valueHeadCount: valueHeads, dimension: dimension,
      convolutionWidth: try count("ssm.conv_kernel", maximum: 64),
      layers: try recurrentLayers(layerCount(traits)),
      tilesHeads: traits.tilesHeadsInGGUF && !checkpoint.isAsTrained,
      joinsRates: traits.joinsRates)
  }

  /// Those that the file lists, or all but every fourth, or whatever it says in place of four.
  private func recurrentLayers(_ layerCount: Int) throws(CheckpointError) -> Set<Int> {
    if case .array(.bool(let listed)) = source.metadata[name(Self.recurrentLayersKey)] {
      guard listed.count >= layerCount else {
        throw invalid(Self.recurrentLayersKey, "\(listed.count) layers", "\(layerCount)")
      }
      return Set((0..<layerCount).filter { listed[$0] })
    }
    let interval = try countIfPresent("full_attention_interval", maximum: 4_096) ?? 4
    return Set((0..<layerCount).filter { ($0 + 1) % interval != 0 })
  }
}

extension ExpectedTensor {
  /// What a layer with a recurrent state has in place of attention's projections.
  static func linear(
    _ prefix: String, _ linear: LinearAttention, _ model: ModelDescription
  ) -> [ExpectedTensor] {
    let heads = linear.valueHeadCount
    var tensors = [
      matrix("\(prefix).attn_qkv.weight", [model.hiddenSize, linear.channelCount]),
      matrix("\(prefix).attn_gate.weight", [model.hiddenSize, linear.valueSize]),
      vectors(
        "\(prefix).ssm_conv1d.weight", [linear.convolutionWidth, linear.channelCount]),
      vector("\(prefix).ssm_dt.bias", heads),
      vector("\(prefix).ssm_a", heads),
      vector("\(prefix).ssm_norm.weight", linear.dimension),
      matrix("\(prefix).ssm_out.weight", [linear.valueSize, model.hiddenSize]),
    ]
    if linear.joinsRates {
      tensors.append(matrix("\(prefix).ssm_ba.weight", [model.hiddenSize, 2 * heads]))
    } else {
      tensors += ["beta", "alpha"].map {
        matrix("\(prefix).ssm_\($0).weight", [model.hiddenSize, heads])
      }
    }
    return tensors
  }
}

/// How vectors of some names are stored otherwise than they are used.
package struct ValueChange: Sendable, Hashable {
  /// What makes of a stored value the one that is used.
  package enum Rule: Sendable, Hashable {
    /// x + 1: norms around zero.
    case plusOne
    /// -e^x: decay rates by their logarithm.
    case negativeExponential
  }

  package let rule: Rule
  private let suffix: String
  private let exception: String?

  /// Whether the tensor of that name is so.
  package func applies(to name: String) -> Bool {
    name.hasSuffix(suffix) && exception.map { !name.hasSuffix($0) } ?? true
  }

  /// As Qwen3-Next and Qwen3.5 are trained, which converters to GGUF change.
  static let ofCentredNorms = [
    ValueChange(rule: .plusOne, suffix: "norm.weight", exception: "ssm_norm.weight"),
    ValueChange(rule: .negativeExponential, suffix: ".ssm_a", exception: nil),
  ]
}

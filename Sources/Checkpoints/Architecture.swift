package import Tensors

/// The architectures that can be run, by the names that GGUF has for them. All are decoders whose layers
/// have attention with grouped heads and rotary positions, or in its place a recurrent state, then a mixture of
/// experts; the first layers of some have one network for all tokens instead.
package enum Architecture: String, CaseIterable, Sendable {
  /// OLMoE (arXiv 2409.02060).
  case olmoe
  /// Qwen3-MoE (arXiv 2505.09388).
  case qwen3moe
  /// Qwen1.5-MoE and Qwen2-MoE (arXiv 2407.10671).
  case qwen2moe
  /// Mixtral (arXiv 2401.04088), which has the name of the dense models it comes from.
  case mixtral = "llama"
  /// Granite 3 MoE, with or without a shared expert.
  case granitemoe
  /// GLM-4.5 and GLM-4.5-Air (arXiv 2508.06471).
  case glm4moe
  /// ERNIE 4.5.
  case ernie = "ernie4_5-moe"
  /// gpt-oss (arXiv 2508.10925).
  case gptOSS = "gpt-oss"
  /// DeepSeek-V2 and V2-Lite (arXiv 2405.04434), DeepSeek-V3 and R1 (arXiv 2412.19437), Kimi-K2.
  case deepSeek2 = "deepseek2"
  /// Phi-3.5-MoE (arXiv 2404.14219, 2409.12136).
  case phimoe
  /// Qwen3-Next.
  case qwen3next
  /// Qwen3.5-MoE.
  case qwen35moe
}

/// What activations are normalised by before attention and experts.
package enum StateNorm: Sendable, Equatable {
  /// The root of their mean square (arXiv 1910.07467).
  case rms
  /// Mean and deviation, with a bias (arXiv 1607.06450).
  case layer
}

/// What the RMS norm of queries and keys runs over.
package enum QueryKeyNorm: Sendable, Equatable {
  /// The whole projection, all heads together (OLMoE).
  case projection
  /// Each head by itself (Qwen3).
  case head
}

/// Which values of a head are rotated together.
package enum RotaryPairs: Sendable, Equatable {
  /// Those half of the rotated values apart, as GPT-NeoX has it.
  case halves
  /// Neighbours, as the paper has it; llama.cpp's converter stores Mixtral and Granite so.
  case neighbours
}

/// How a router's scores become the choice and the weights of experts.
package struct RouterRule: Sendable, Equatable {
  /// What makes probabilities of scores.
  package enum Gating: Sendable, Equatable {
    case softmax
    /// Each score by itself (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
    case sigmoid
    /// One expert after the other, each weighed by a softmax over those that are not far below it, without
    /// those chosen before (SparseMixer, arXiv 2409.12136): scores whose distance to the best is more than
    /// `threshold` of the larger of that and their own size count for nothing.
    case sparseMixer(threshold: Float)
  }

  package var gating = Gating.softmax
  /// Whether a bias is added to the probabilities for the choice, and only for it (the balancing without
  /// an auxiliary loss of DeepSeek-V3).
  package var hasCorrection = false
  /// Whether the weights of the chosen experts are divided by their sum.
  package var normalizesTopK = true
  /// What the weights are multiplied by then.
  package var scale: Float = 1
  /// Groups of as many experts, of which a token's come from the best `usedGroups` only (arXiv 2405.04434,
  /// section 2.2.2): those whose best expert, or with the sigmoid the sum of the best two, is the largest.
  package var groups = 1
  package var usedGroups = 1
}

/// The parts of an architecture that all of its models share.
package struct ArchitectureTraits: Sendable {
  package private(set) var queryKeyNorm: QueryKeyNorm?
  /// Whether queries and keys are normalised only in those models that have the norms' tensors.
  package private(set) var queryKeyNormIsOptional = false
  /// Whether queries, keys and values have biases: always, never, or where their tensors are (nil).
  package private(set) var hasProjectionBias: Bool? = false
  package private(set) var rotaryPairs = RotaryPairs.halves
  /// Whether `rotaryPairs` is so in GGUF only: Hugging Face's files have halves.
  package private(set) var permutesInGGUF = false
  package private(set) var router = RouterRule()
  /// The name of the norm before a layer's experts.
  package private(set) var feedForwardNorm = "ffn_norm"
  /// Whether the first layers may be without experts.
  package private(set) var mayBeginDense = false
  /// Whether a sigmoid of a product with the input weighs the shared expert.
  package private(set) var gatesSharedExpert = false
  /// Whether blocks after the last layer may predict further tokens; they are not used.
  package private(set) var mayPredictFurther = false
  /// What states are normalised by.
  package private(set) var stateNorm = StateNorm.rms
  /// Whether the weights of norms are stored less one, but in GGUF, and decay rates by their logarithm.
  package private(set) var centresNorms = false
  /// Whether the output projection of attention has a bias: always, never, or where its tensor is (nil).
  package private(set) var hasOutputBias: Bool? = false
  /// Whether the projection to the vocabulary has a bias, where its tensor is.
  package private(set) var mayHaveHeadBias = false
  /// Whether the router and the experts have biases.
  package private(set) var hasExpertBiases = false
  /// Whether queries come with gates for what attention gives.
  package private(set) var gatesAttention = false
  /// Whether some layers have a recurrent state in place of attention (`LinearAttention`).
  package private(set) var hasLinearLayers = false
  /// Whether the rates of those layers are made by one matrix.
  package private(set) var joinsRates = false
  /// Whether value heads take turns with the key heads they belong to in GGUF, not elsewhere.
  package private(set) var tilesHeadsInGGUF = false
  /// Whether each head has a score without a value, which takes its share of the softmax.
  package private(set) var hasSinks = false
  /// Whether every other layer, from the first on, sees a window of positions only.
  package private(set) var alternatesWindow = false
  /// Whether attention is latent, in the form of `LatentAttention`.
  package private(set) var isLatent = false
  /// Whether files state how the router chooses.
  package private(set) var statesRouter = false
  /// What gate and up products become.
  package private(set) var activation = GatedActivation.silu
  /// Whether the borders of YaRN's ramp are rounded to whole pairs.
  package private(set) var roundsRamp = true
  /// Whether embedding, residuals, attention and logits are scaled by numbers of the metadata.
  package private(set) var isScaled = false

  package init(_ architecture: Architecture) {
    switch architecture {
    case .olmoe:
      queryKeyNorm = .projection
      router.normalizesTopK = false
    case .qwen3moe:
      queryKeyNorm = .head
    case .qwen2moe:
      hasProjectionBias = true
      router.normalizesTopK = false
      gatesSharedExpert = true
    case .mixtral:
      (rotaryPairs, permutesInGGUF) = (.neighbours, true)
    case .granitemoe:
      (rotaryPairs, permutesInGGUF) = (.neighbours, true)
      isScaled = true
    case .glm4moe:
      (queryKeyNorm, queryKeyNormIsOptional) = (.head, true)
      hasProjectionBias = nil
      router.gating = .sigmoid
      router.hasCorrection = true
      feedForwardNorm = "post_attention_norm"
      (mayBeginDense, mayPredictFurther) = (true, true)
    case .ernie:
      rotaryPairs = .neighbours
      router.hasCorrection = true
      mayBeginDense = true
    case .gptOSS:
      (hasProjectionBias, hasOutputBias, hasExpertBiases) = (true, true, true)
      (hasSinks, alternatesWindow) = (true, true)
      activation = .clamped(alpha: 1.702, limit: 7)
      feedForwardNorm = "post_attention_norm"
      roundsRamp = false
    case .deepSeek2:
      (isLatent, rotaryPairs) = (true, .neighbours)
      statesRouter = true
      (mayBeginDense, mayPredictFurther) = (true, true)
    case .phimoe:
      stateNorm = .layer
      (hasProjectionBias, hasOutputBias, mayHaveHeadBias) = (nil, nil, true)
      // Twice the noise that the router was trained with.
      router.gating = .sparseMixer(threshold: 0.02)
      router.normalizesTopK = false
    case .qwen3next, .qwen35moe:
      queryKeyNorm = .head
      (centresNorms, gatesAttention, gatesSharedExpert) = (true, true, true)
      feedForwardNorm = "post_attention_norm"
      hasLinearLayers = true
      joinsRates = architecture == .qwen3next
      tilesHeadsInGGUF = architecture == .qwen35moe
      mayPredictFurther = true
    }
  }
}

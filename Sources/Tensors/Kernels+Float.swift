internal import CKernels

extension Kernels {
  /// out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]; `out` may be `x`.
  package func rmsNorm(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>,
    count: Int, epsilon: Float
  ) {
    ckernels_rms_norm(set.cValue, x, weight, out, count, epsilon)
  }

  /// out[i] = (x[i] - mean(x)) / sqrt(variance(x) + epsilon) * weight[i] + bias[i]; `out` may be `x`.
  package func layerNorm(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, bias: UnsafePointer<Float>,
    into out: UnsafeMutablePointer<Float>, count: Int, epsilon: Float
  ) {
    ckernels_layer_norm(set.cValue, x, weight, bias, out, count, epsilon)
  }

  /// out[i] = sigmoid(gate[i]) * up[i]; `out` may be either input.
  package func sigmoidMultiply(
    gate: UnsafePointer<Float>, up: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>,
    count: Int
  ) {
    ckernels_sigmoid_multiply(set.cValue, gate, up, out, count)
  }

  /// out[i] = silu(gate[i]) * up[i]; `out` may be either input.
  package func siluMultiply(
    gate: UnsafePointer<Float>, up: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>,
    count: Int
  ) {
    ckernels_silu_multiply(set.cValue, gate, up, out, count)
  }

  /// out[i] = (clamp(up[i], ±limit) + 1) * g * sigmoid(alpha * g), g = min(gate[i], limit); `out` may be
  /// either input.
  package func clampedSwiGLU(
    gate: UnsafePointer<Float>, up: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>,
    count: Int, alpha: Float, limit: Float
  ) {
    ckernels_clamped_swiglu(set.cValue, gate, up, out, count, alpha, limit)
  }

  /// Softmax in place.
  package func softmax(_ x: UnsafeMutablePointer<Float>, count: Int) {
    ckernels_softmax(set.cValue, x, count)
  }

  /// Attention of one query over the positions 0..<`positions` that it sees.
  ///
  /// - Parameters:
  ///   - query: `head.dimension` floats.
  ///   - scores: scratch of positions + 1 floats.
  ///   - out: `head.valueDimension` floats.
  package func attention(
    _ head: AttentionHead, query: UnsafePointer<Float>, positions: Int,
    scores: UnsafeMutablePointer<Float>, into out: UnsafeMutablePointer<Float>
  ) {
    withUnsafePointer(to: head.cValue) {
      ckernels_attention(set.cValue, $0, query, positions, scores, out)
    }
  }

  /// The most tokens of one `attentionBlock`.
  package static let attentionBlockTokens = Int(CKernelsAttentionBlockTokens)

  /// Causal attention of one query head for a block of tokens, faster than one token at a time.
  ///
  /// Token t sees positions up to positionsBefore + t. The bits of its output depend on its query and
  /// those positions alone; they are not the bits of `attention`.
  ///
  /// - Parameters:
  ///   - queries: [tokens] rows of `head.dimension` floats. Keys and values must be finite.
  ///   - tokens: At most `attentionBlockTokens`.
  ///   - scores: Scratch of tokens * (positionsBefore + tokens + 1) floats.
  ///   - outputs: [tokens] rows of `head.valueDimension` floats.
  package func attentionBlock(
    _ head: AttentionHead, queries: UnsafePointer<UnsafePointer<Float>>, positionsBefore: Int,
    tokens: Int, scores: UnsafeMutablePointer<Float>,
    outputs: UnsafePointer<UnsafeMutablePointer<Float>>
  ) {
    withUnsafePointer(to: head.cValue) {
      ckernels_attention_block(
        set.cValue, $0, queries, positionsBefore, tokens, scores, outputs)
    }
  }

  /// Rotates one head in place: pairs (i, i + dimension / 2), the GPT-NeoX layout.
  package func rope(
    _ head: UnsafeMutablePointer<Float>, cosines: UnsafePointer<Float>,
    sines: UnsafePointer<Float>, dimension: Int
  ) {
    ckernels_rope(head, cosines, sines, dimension)
  }

  /// Rotates one head in place: pairs (2 i, 2 i + 1), the layout of the paper.
  package func ropeOfNeighbours(
    _ head: UnsafeMutablePointer<Float>, cosines: UnsafePointer<Float>,
    sines: UnsafePointer<Float>, dimension: Int
  ) {
    for pair in 0..<dimension / 2 {
      let (x, y) = (head[2 * pair], head[2 * pair + 1])
      head[2 * pair] = x * cosines[pair] - y * sines[pair]
      head[2 * pair + 1] = x * sines[pair] + y * cosines[pair]
    }
  }

  /// Rounds floats to IEEE half precision, to nearest even.
  package func storeHalf(
    _ x: UnsafePointer<Float>, into out: UnsafeMutablePointer<UInt16>, count: Int
  ) {
    ckernels_store_half(x, out, count)
  }

  /// out[i] += x[i].
  package func add(
    _ x: UnsafePointer<Float>, to out: UnsafeMutablePointer<Float>, count: Int
  ) {
    ckernels_add(x, out, count)
  }

  /// out[i] += x[i] * scale, rounded once.
  package func add(
    _ x: UnsafePointer<Float>, scaledBy scale: Float, to out: UnsafeMutablePointer<Float>,
    count: Int
  ) {
    ckernels_add_scaled(set.cValue, x, scale, out, count)
  }

  /// Clamps to [-limit, limit] in place.
  package func clamp(_ x: UnsafeMutablePointer<Float>, limit: Float, count: Int) {
    ckernels_clamp(x, count, limit)
  }
}

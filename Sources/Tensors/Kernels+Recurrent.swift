internal import CKernels

extension Kernels {
  /// out[c] = silu(sum_j taps[c, j] * rows[j][c]): each channel's convolution over the latest tokens.
  ///
  /// - Parameters:
  ///   - rows: `width` rows of `count` channels, the token's own last.
  ///   - taps: [channels, width].
  package func convolve(
    _ rows: UnsafePointer<UnsafePointer<Float>>, taps: UnsafePointer<Float>, width: Int,
    into out: UnsafeMutablePointer<Float>, count: Int
  ) {
    ckernels_convolve(set.cValue, rows, taps, width, out, count)
  }

  /// One head of one token by the gated delta rule (arXiv 2412.06464, equation 10): the state fades, what it
  /// holds for the key is replaced by the value, and the query reads it.
  ///
  /// - Parameters:
  ///   - before: the state, [dimension of keys, dimension of values].
  ///   - after: the state afterwards; may be `before`.
  ///   - key, query, value, out: `dimension` floats.
  ///   - decay: what the state is multiplied by.
  ///   - rate: how much of what is held for the key is replaced, 0 to 1.
  package func delta(
    dimension: Int, before: UnsafePointer<Float>, after: UnsafeMutablePointer<Float>,
    key: UnsafePointer<Float>, query: UnsafePointer<Float>, value: UnsafePointer<Float>,
    decay: Float, rate: Float, into out: UnsafeMutablePointer<Float>
  ) {
    var step = ckernels_delta_step(
      dimension: dimension, before: before, after: after, key: key, query: query, value: value,
      decay: decay, rate: rate, out: out)
    ckernels_delta(set.cValue, &step)
  }
}

/// How the gate and up products of an expert become what its down projection multiplies.
package enum GatedActivation: Sendable, Equatable {
  /// silu(gate) * up: SwiGLU (arXiv 2002.05202).
  case silu
  /// (clamp(up) + 1) * g * sigmoid(alpha * g) with g = min(gate, limit), as gpt-oss has it.
  case clamped(alpha: Float, limit: Float)
}

extension Kernels {
  /// out[i] = activation(gate[i], up[i]); `out` may be either input.
  package func activate(
    _ activation: GatedActivation, gate: UnsafePointer<Float>, up: UnsafePointer<Float>,
    into out: UnsafeMutablePointer<Float>, count: Int
  ) {
    switch activation {
    case .silu: siluMultiply(gate: gate, up: up, into: out, count: count)
    case .clamped(let alpha, let limit):
      clampedSwiGLU(gate: gate, up: up, into: out, count: count, alpha: alpha, limit: limit)
    }
  }
}

internal import Tensors

/// A norm of states: by the root of their mean square or, with a bias, by mean and deviation (`StateNorm`).
package struct Norm {
  let weight: UnsafePointer<Float>
  let bias: UnsafePointer<Float>?

  /// The norm whose tensors' names begin with `name`, which have been validated.
  init(_ name: String, weights: DenseWeights) {
    weight = weights.vector("\(name).weight")
    bias = weights.contains("\(name).bias") ? weights.vector("\(name).bias") : nil
  }

  /// Normalises one row of `count` values; `out` may be `row`.
  func apply(
    _ row: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>, count: Int,
    epsilon: Float, kernels: Kernels
  ) {
    if let bias {
      kernels.layerNorm(
        row, weight: weight, bias: bias, into: out, count: count, epsilon: epsilon)
    } else {
      kernels.rmsNorm(row, weight: weight, into: out, count: count, epsilon: epsilon)
    }
  }
}

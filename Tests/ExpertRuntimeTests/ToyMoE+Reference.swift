import Glibc
import Tensors

extension ToyMoE {
  /// An expert's output in double precision, and how far each value may be off.
  struct Reference {
    var output: [Double]
    var bound: [Double]
  }

  /// down(silu(gate(x)) * up(x)), with inputs of quantized matrices rounded as the kernels do.
  func reference(layer: Int, expert: Int, input: [Float]) -> Reference {
    let x = input.map(Double.init)
    let gate = product(layer, 0, expert, x).values
    let up = product(layer, 1, expert, x).values
    let inner = zip(gate, up).map { gate, up in gate / (1 + exp(-gate)) * up }
    let down = product(layer, 2, expert, inner)
    // The inner values are themselves rounded to single precision: where one lies half way between
    // two steps of the quantization, the kernels may take the other step. Two such are allowed for.
    let step = types[layer][2].wantsQuantizedActivations ? inner.map(abs).max()! / 127 : 0
    return Reference(
      output: down.values, bound: down.magnitudes.map { 2e-6 * $0 + 2 * step * 0.1 })
  }

  /// The layer's output for one token, experts summed with their weights.
  func reference(
    layer: Int, experts: ArraySlice<Int32>, weights: ArraySlice<Float>, input: [Float]
  ) -> Reference {
    var sum = Reference(
      output: Array(repeating: 0, count: hidden), bound: Array(repeating: 0, count: hidden))
    for (expert, weight) in zip(experts, weights) {
      let term = reference(layer: layer, expert: Int(expert), input: input)
      for i in 0..<hidden {
        sum.output[i] += Double(weight) * term.output[i]
        sum.bound[i] += abs(Double(weight)) * term.bound[i]
      }
    }
    return sum
  }

  /// One matrix of an expert times `x`, and the same of absolute values.
  private func product(
    _ layer: Int, _ matrix: Int, _ expert: Int, _ x: [Double]
  ) -> (values: [Double], magnitudes: [Double]) {
    let x = types[layer][matrix].wantsQuantizedActivations ? quantized(x) : x
    let rows = hidden * feedForward / x.count
    var values = [Double](repeating: 0, count: rows)
    var magnitudes = values
    self.values[layer][matrix].withUnsafeBufferPointer { weights in
      x.withUnsafeBufferPointer { x in
        for row in 0..<rows {
          let first = (expert * rows + row) * x.count
          for column in 0..<x.count {
            let term = Double(weights[first + column]) * x[column]
            values[row] += term
            magnitudes[row] += abs(term)
          }
        }
      }
    }
    return (values, magnitudes)
  }

  /// Rounds blocks of 32 to multiples of a 127th of their largest absolute value.
  private func quantized(_ x: [Double]) -> [Double] {
    stride(from: 0, to: x.count, by: 32).flatMap { start in
      let block = x[start..<(start + 32)]
      let scale = block.map(abs).max()! / 127
      return block.map { scale == 0 ? 0 : ($0 / scale).rounded(.toNearestOrEven) * scale }
    }
  }
}

internal import Checkpoints

/// What is added to the products of a layer's experts, a row for each expert. The memory belongs to whoever
/// made the value and must outlive the runtime.
package struct ExpertBiases {
  let gate: UnsafePointer<Float>
  let up: UnsafePointer<Float>
  let down: UnsafePointer<Float>

  /// - Parameters:
  ///   - gate: [experts, feed-forward], as `up`.
  ///   - down: [experts, hidden].
  package init(
    gate: UnsafePointer<Float>, up: UnsafePointer<Float>, down: UnsafePointer<Float>
  ) {
    self.gate = gate
    self.up = up
    self.down = down
  }

  func row(_ matrix: ExpertMatrix, expert: Int, count: Int) -> UnsafePointer<Float> {
    switch matrix {
    case .gate: gate + expert * count
    case .up: up + expert * count
    case .down: down + expert * count
    }
  }
}

package import Checkpoints
internal import DirectIO
package import ExpertRuntime

/// What layers with a recurrent state keep of a sequence, whatever its length: for each of them the matrices of
/// its heads and the channels of the latest tokens, in single precision.
///
/// It is there twice. A pass reads the one and writes the other, and they change places when the pass is done:
/// one that ends with an error can be made again.
package final class RecurrentState {
  /// The tokens that it has seen.
  private(set) var position = 0
  private let sizes: LinearAttention
  /// The number of a layer among those with a state.
  private let places: [Int: Int]
  private let memory: Arena
  private var current = 0

  /// The bytes of the state of `model`; 0 without such layers.
  package static func byteCount(_ model: ModelDescription) -> Int {
    guard let sizes = model.linear else { return 0 }
    return 2 * sizes.layers.count * sizes.stateSize * 4
  }

  /// Nil for a model without such layers.
  package init?(_ model: ModelDescription, ledger: MemoryLedger) throws(RuntimeError) {
    guard let sizes = model.linear, !sizes.layers.isEmpty else { return nil }
    self.sizes = sizes
    places = Dictionary(
      uniqueKeysWithValues: sizes.layers.sorted().enumerated().map { ($1, $0) })
    memory = try ledger.allocate("recurrent state", byteCount: Self.byteCount(model))
  }

  /// Values of one of the two.
  private var count: Int { places.count * sizes.stateSize }

  private func state(_ index: Int) -> UnsafeMutablePointer<Float> {
    memory.base.assumingMemoryBound(to: Float.self) + index * count
  }

  /// Begins a pass at `position`: 0, where a sequence begins, or where the last pass ended.
  func begin(at position: Int) {
    if position == 0 {
      state(current).update(repeating: 0, count: count)
    } else {
      precondition(position == self.position, "a recurrent state goes on where it ended")
    }
  }

  /// Takes what there is for the state after so many tokens, for a pass whose output nobody looks at.
  func pretend(_ position: Int) { self.position = position }

  /// Ends a pass: what it wrote is what the next one reads.
  func commit(_ position: Int) {
    current = 1 - current
    self.position = position
  }

  /// The matrices of a layer, [value heads, key, value], before the pass and after it.
  func matrices(
    layer: Int
  ) -> (before: UnsafePointer<Float>, after: UnsafeMutablePointer<Float>) {
    let offset = place(layer) * sizes.stateSize
    return (UnsafePointer(state(current) + offset), state(1 - current) + offset)
  }

  /// The channels of the tokens before the pass, the oldest first, [width - 1, channels], and of those before
  /// the next.
  func channels(
    layer: Int
  ) -> (before: UnsafePointer<Float>, after: UnsafeMutablePointer<Float>) {
    let matrices = matrices(layer: layer)
    return (matrices.before + sizes.matrixSize, matrices.after + sizes.matrixSize)
  }

  private func place(_ layer: Int) -> Int {
    guard let place = places[layer] else { preconditionFailure("layer \(layer) has no state") }
    return place
  }
}

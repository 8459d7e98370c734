package import Checkpoints
internal import DirectIO
package import ExpertRuntime
package import Tensors

/// How keys and values are stored.
public enum KeyValueType: String, Sendable, Codable, CaseIterable {
  /// IEEE half precision.
  case f16
  /// Single precision.
  case f32

  /// Bytes of one value.
  package var byteCount: Int { self == .f16 ? 2 : 4 }
}

/// Keys and values of every position so far, [layers with attention][heads][positions, values of a key], then the same of
/// values, so that a head streams through consecutive rows.
package final class KeyValueCache {
  /// The number of positions there is room for.
  package let capacity: Int
  package let type: KeyValueType
  private let heads: Int
  /// The number of a layer among those with attention.
  private let places: [Int]
  private let memory: Arena
  private let keyByteCount: Int
  private let valueByteCount: Int

  /// The bytes of a cache for `model`.
  package static func byteCount(
    _ model: ModelDescription, capacity: Int, type: KeyValueType
  ) -> Int {
    model.attentionLayerCount * model.kvHeadCount * (model.cachedKeySize + model.cachedValueSize)
      * capacity
      * type.byteCount
  }

  package init(
    _ model: ModelDescription, capacity: Int, type: KeyValueType, ledger: MemoryLedger
  ) throws(RuntimeError) {
    self.capacity = capacity
    self.type = type
    heads = model.kvHeadCount
    var place = 0
    places = (0..<model.layerCount).map { layer in
      defer { place += model.isLinear(layer: layer) ? 0 : 1 }
      return place
    }
    keyByteCount = capacity * model.cachedKeySize * type.byteCount
    valueByteCount = capacity * model.cachedValueSize * type.byteCount
    memory = try ledger.allocate(
      "key-value cache", byteCount: Self.byteCount(model, capacity: capacity, type: type))
  }

  /// The rows of one head's keys, [capacity, values of a key].
  package func keys(layer: Int, head: Int) -> UnsafeMutableRawPointer {
    memory.base + places[layer] * heads * (keyByteCount + valueByteCount) + head * keyByteCount
  }

  /// The rows of one head's values, [capacity, values of a value].
  package func values(layer: Int, head: Int) -> UnsafeMutableRawPointer {
    keys(layer: layer, head: heads) + head * valueByteCount
  }

  /// Stores one row of `count` floats at `position` of a head's keys or values, whose rows are as long.
  package func store(
    _ row: UnsafePointer<Float>, count: Int, at position: Int, of head: UnsafeMutableRawPointer,
    kernels: Kernels
  ) {
    precondition(position < capacity, "the key-value cache is full")
    let target = head + position * count * type.byteCount
    switch type {
    case .f16:
      kernels.storeHalf(
        row, into: target.assumingMemoryBound(to: UInt16.self), count: count)
    case .f32:
      target.assumingMemoryBound(to: Float.self).update(from: row, count: count)
    }
  }
}

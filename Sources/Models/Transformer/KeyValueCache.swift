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

/// Keys and values of every position so far, [layers][key, value][heads][positions, dimension], so
/// that a head streams through consecutive rows.
package final class KeyValueCache {
  /// The number of positions there is room for.
  package let capacity: Int
  package let type: KeyValueType
  private let heads: Int
  private let dimension: Int
  private let memory: Arena
  private let headByteCount: Int

  /// The bytes of a cache of this shape.
  package static func byteCount(
    layers: Int, heads: Int, dimension: Int, capacity: Int, type: KeyValueType
  ) -> Int {
    layers * 2 * heads * capacity * dimension * type.byteCount
  }

  package init(
    layers: Int, heads: Int, dimension: Int, capacity: Int, type: KeyValueType,
    ledger: MemoryLedger
  ) throws(RuntimeError) {
    self.capacity = capacity
    self.type = type
    self.heads = heads
    self.dimension = dimension
    headByteCount = capacity * dimension * type.byteCount
    memory = try ledger.allocate(
      "key-value cache",
      byteCount: Self.byteCount(
        layers: layers, heads: heads, dimension: dimension, capacity: capacity, type: type))
  }

  /// The rows of one head's keys, [capacity, dimension].
  package func keys(layer: Int, head: Int) -> UnsafeMutableRawPointer {
    memory.base + (layer * 2 * heads + head) * headByteCount
  }

  /// The rows of one head's values, [capacity, dimension].
  package func values(layer: Int, head: Int) -> UnsafeMutableRawPointer {
    memory.base + ((layer * 2 + 1) * heads + head) * headByteCount
  }

  /// Stores one row of `dimension` floats at `position` of a head's keys or values.
  package func store(
    _ row: UnsafePointer<Float>, at position: Int, of head: UnsafeMutableRawPointer,
    kernels: Kernels
  ) {
    precondition(position < capacity, "the key-value cache is full")
    let target = head + position * dimension * type.byteCount
    switch type {
    case .f16:
      kernels.storeHalf(
        row, into: target.assumingMemoryBound(to: UInt16.self), count: dimension)
    case .f32:
      target.assumingMemoryBound(to: Float.self).update(from: row, count: dimension)
    }
  }
}

internal import Routing

/// Slots of one size.
public struct SlotClass: Hashable, Sendable {
  /// The bytes one slot holds.
  public let byteCount: Int
  /// The number of slots.
  public let slotCount: Int
}

/// How a number of bytes is divided into slots when experts differ in size.
///
/// A file that mixes quantisations by layer has two or three expert sizes. Each size gets a class
/// of slots in proportion to how many experts have it, so that no slot is larger than it need be;
/// an expert may use a slot of its class or a larger one.
public struct SlotPlan: Hashable, Sendable {
  /// Classes in ascending order of size.
  public let classes: [SlotClass]

  /// The bytes of all slots.
  public var byteCount: Int { classes.reduce(0) { $0 + $1.byteCount * $1.slotCount } }
  /// The number of slots.
  public var slotCount: Int { classes.reduce(0) { $0 + $1.slotCount } }

  /// Divides at most `capacity` bytes.
  ///
  /// - Parameters:
  ///   - expertByteCounts: the slot size each layer's experts need, [layers]; equal within a layer.
  ///   - expertsPerLayer: experts of one layer.
  ///   - topK: the experts a token uses of one layer: the fewest slots that can be of use.
  ///   - capacity: bytes to divide; nil makes one slot for every expert.
  /// - Returns: nil if `capacity` is below `minimumByteCount` of the same arguments.
  public init?(
    expertByteCounts: [Int], expertsPerLayer: Int, topK: Int, capacity: Int?
  ) {
    var expertsOfSize: [Int: Int] = [:]
    for size in expertByteCounts { expertsOfSize[size, default: 0] += expertsPerLayer }
    let sizes = expertsOfSize.keys.sorted()
    let total = sizes.reduce(0) { $0 + $1 * expertsOfSize[$1]! }
    guard let capacity, capacity < total else {
      classes = sizes.map { SlotClass(byteCount: $0, slotCount: expertsOfSize[$0]!) }
      return
    }
    guard let largest = sizes.last, capacity >= largest * topK else { return nil }
    // The largest class alone must hold a layer's top-k; the rest is shared in proportion.
    var counts = sizes.map { size in
      Int(Double(capacity) * (Double(expertsOfSize[size]!) / Double(total)))
    }
    let last = sizes.count - 1
    counts[last] = max(counts[last], topK)
    var used = zip(sizes, counts).reduce(0) { $0 + $1.0 * $1.1 }
    for index in sizes.indices.dropLast() where used > capacity {
      let excess = (used - capacity + sizes[index] - 1) / sizes[index]
      let removed = min(excess, counts[index])
      counts[index] -= removed
      used -= removed * sizes[index]
    }
    for index in sizes.indices.reversed() {
      let added = min(
        max(0, capacity - used) / sizes[index], expertsOfSize[sizes[index]]! - counts[index])
      counts[index] += max(0, added)
      used += max(0, added) * sizes[index]
    }
    classes = zip(sizes, counts).map { SlotClass(byteCount: $0, slotCount: $1) }
  }

  /// The fewest bytes that can be divided: one layer's top-k of the largest experts.
  public static func minimumByteCount(expertByteCounts: [Int], topK: Int) -> Int {
    (expertByteCounts.max() ?? 0) * topK
  }
}

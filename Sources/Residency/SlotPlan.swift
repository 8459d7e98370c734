public import Routing

/// Slots of one size.
public struct SlotClass: Hashable, Sendable {
  /// The bytes one slot holds.
  public let byteCount: Int
  /// The number of slots.
  public let slotCount: Int
}

/// How a number of bytes is divided into slots when experts differ in size.
///
/// A file that mixes quantisations by layer has two or three expert sizes. Each size gets a class of
/// slots of its own, the same share of its experts in every class, so that no slot is larger than it
/// need be; experts of one size never take the place of another's.
public struct SlotPlan: Hashable, Sendable {
  /// Classes in ascending order of size.
  public let classes: [SlotClass]
  /// The class of each layer's experts, [layers].
  public let classOfLayer: [Int]
  /// The bytes that were divided; what is less than a slot of them is left over.
  public let capacity: Int

  /// Slots of each class, beside those of `classes`, for experts that are read ahead.
  public private(set) var stagingCount = 0
  /// The slots for staging, all classes together.
  public var stagingSlotCount: Int { stagingCount * classes.count }
  /// The bytes of all slots, those for staging among them.
  public var byteCount: Int {
    classes.reduce(0) { $0 + $1.byteCount * ($1.slotCount + stagingCount) }
  }
  /// The number of slots.
  public var slotCount: Int { classes.reduce(0) { $0 + $1.slotCount } }

  /// Divides at most `capacity` bytes.
  ///
  /// - Parameters:
  ///   - expertByteCounts: the slot size each layer's experts need, [layers]; equal within a layer.
  ///   - expertsPerLayer: experts of one layer.
  ///   - topK: the experts a token uses of one layer: the fewest slots of a class that are of use.
  ///   - capacity: bytes to divide; nil makes one slot for every expert.
  /// - Returns: nil if `capacity` is below `minimumByteCount` of the same arguments.
  public init?(
    expertByteCounts: [Int], expertsPerLayer: Int, topK: Int, capacity: Int?
  ) {
    let sizes = Set(expertByteCounts).sorted()
    let classOfLayer = expertByteCounts.map { sizes.firstIndex(of: $0)! }
    let experts = sizes.indices.map { index in
      classOfLayer.count { $0 == index } * expertsPerLayer
    }
    let total = zip(sizes, experts).reduce(0) { $0 + $1.0 * $1.1 }
    self.classOfLayer = classOfLayer
    guard let capacity, capacity < total else {
      classes = zip(sizes, experts).map { SlotClass(byteCount: $0, slotCount: $1) }
      self.capacity = total
      return
    }
    guard capacity >= Self.minimumByteCount(expertByteCounts: expertByteCounts, topK: topK) else {
      return nil
    }
    self.capacity = capacity
    let share = Double(capacity) / Double(total)
    var counts = experts.map { max(topK, Int(share * Double($0))) }
    var left = capacity - zip(sizes, counts).reduce(0) { $0 + $1.0 * $1.1 }
    // The least of each class may be more than its share; the largest classes give it back.
    while left < 0 {
      let index = counts.indices.filter { counts[$0] > topK }.max { counts[$0] < counts[$1] }!
      counts[index] -= 1
      left += sizes[index]
    }
    for index in sizes.indices.reversed() {
      let added = min(left / sizes[index], experts[index] - counts[index])
      counts[index] += added
      left -= added * sizes[index]
    }
    classes = zip(sizes, counts).map { SlotClass(byteCount: $0, slotCount: $1) }
  }

  /// The most experts of a class that are staged at a time.
  public static let mostStaged = 4
  /// The slots of a class for each that is given up for staging.
  public static let slotsPerStaged = 32

  /// The experts that are staged at a time, at the most; files of more than four sizes of expert have no
  /// more.
  public static let mostStagedOfAll = 4 * mostStaged

  /// The division of the same bytes with some of them for experts that are read ahead; the same plan
  /// where there are too few slots to spare any, or enough for every expert.
  ///
  /// The arguments are those that the plan was made with.
  public func withStaging(
    expertByteCounts: [Int], expertsPerLayer: Int, topK: Int
  ) -> SlotPlan {
    let fewest = classes.map(\.slotCount).min() ?? 0
    let most = min(Self.mostStaged, Self.mostStagedOfAll / max(1, classes.count))
    let count = min(most, fewest / Self.slotsPerStaged)
    let bytes = classes.reduce(0) { $0 + $1.byteCount * count }
    guard count > 0, slotCount < expertByteCounts.count * expertsPerLayer,
      var plan = SlotPlan(
        expertByteCounts: expertByteCounts, expertsPerLayer: expertsPerLayer, topK: topK,
        capacity: capacity - bytes)
    else { return self }
    plan.stagingCount = count
    return plan
  }

  /// The fewest bytes that can be divided: one layer's top-k of each size of expert.
  public static func minimumByteCount(expertByteCounts: [Int], topK: Int) -> Int {
    Set(expertByteCounts).reduce(0, +) * topK
  }

  /// The bytes of as many experts of mean size as there are slots.
  public func meanCapacity(of geometry: RoutingGeometry) -> Int {
    geometry.totalByteCount / (geometry.layerCount * geometry.expertCount) * slotCount
  }

  /// The bytes of a wave, half a stream's window: enough reads to keep a disk busy.
  private static let waveByteCount = 16 << 20

  /// The slots that a stream of experts, such as a prompt needs, passes through: two waves of at least
  /// four, but no more than an eighth of the slots where there are many.
  public var streamWindow: Int {
    let wanted = 2 * Self.waveByteCount / max(1, classes.last?.byteCount ?? 0)
    return min(slotCount, max(8, min(wanted, slotCount / 8)))
  }

  /// The experts of a stream that are read, or multiplied, together: half a window. While one half of the
  /// window is multiplied the other is read.
  public var wave: Int { (streamWindow + 1) / 2 }
}

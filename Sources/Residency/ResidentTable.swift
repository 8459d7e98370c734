public import Routing

/// Which experts are resident, as policies see it.
///
/// Residents are in one pool, or, where slots have a size, in one for each size; room in a pool is made
/// by residents of the same.
public struct ResidentTable: Sendable {
  /// The model.
  public let geometry: RoutingGeometry
  /// The layer of the event being served.
  public private(set) var layer = 0
  /// Whether the experts of the event being served may not be evicted.
  var protectsEvent: Bool
  private var pools: [Pool]
  private let poolOfLayer: [UInt8]
  private var entries: [Entry]
  private var event: Int32 = 0
  private var pool: UInt8 = 0
  /// What residents take of the event's pool; of the others, `pools` knows.
  private var occupied = 0
  private var capacity: Int

  /// What an expert of each layer takes of its pool: its bytes, or one of its slots.
  private let sizeOfLayer: [Int]

  private struct Pool: Sendable {
    var capacity: Int
    var occupied = 0
  }

  private struct Entry: Sendable {
    /// The number of the latest event that needed the expert.
    var lastEvent: Int32 = -1
    var pool: UInt8 = 0
    var isResident = false
  }

  /// One pool of `capacity` bytes.
  init(geometry: RoutingGeometry, capacity: Int, protectsEvent: Bool) {
    self.init(
      geometry: geometry, capacities: [capacity], sizeOfLayer: geometry.expertByteCounts,
      poolOfLayer: Array(repeating: 0, count: geometry.layerCount), protectsEvent: protectsEvent)
  }

  /// A pool for each class of `plan`.
  init(geometry: RoutingGeometry, plan: SlotPlan) {
    self.init(
      geometry: geometry, capacities: plan.classes.map(\.slotCount),
      sizeOfLayer: Array(repeating: 1, count: geometry.layerCount),
      poolOfLayer: plan.classOfLayer.map(UInt8.init), protectsEvent: true)
  }

  private init(
    geometry: RoutingGeometry, capacities: [Int], sizeOfLayer: [Int], poolOfLayer: [UInt8],
    protectsEvent: Bool
  ) {
    self.geometry = geometry
    self.protectsEvent = protectsEvent
    self.sizeOfLayer = sizeOfLayer
    self.poolOfLayer = poolOfLayer
    pools = capacities.map { Pool(capacity: $0) }
    capacity = capacities[0]
    entries = poolOfLayer.flatMap {
      Array(repeating: Entry(pool: $0), count: geometry.expertCount)
    }
  }

  /// Whether `expert` is resident.
  public func contains(_ expert: Int32) -> Bool { entries[Int(expert)].isResident }

  /// Whether `expert` is a resident that may be evicted now.
  public func isEvictable(_ expert: Int32) -> Bool {
    let entry = entries[Int(expert)]
    return entry.isResident && entry.pool == pool
      && !(protectsEvent && entry.lastEvent == event)
  }

  /// Whether evicting experts of `layer` makes room for those of the event being served.
  public func makesRoom(layer: Int) -> Bool { poolOfLayer[layer] == pool }

  /// The experts of `layer`.
  public func experts(ofLayer layer: Int) -> Range<Int> {
    layer * geometry.expertCount..<(layer + 1) * geometry.expertCount
  }

  /// Whether the pool of the event being served has more residents than it holds.
  var isOverfull: Bool { occupied > capacity }

  /// Whether `expert`, of the event's pool and no resident, fits without anything having to go.
  func hasRoom(for expert: Int32) -> Bool { occupied + size(of: expert) <= capacity }

  mutating func beginEvent(layer: Int) {
    event &+= 1
    self.layer = layer
    let next = poolOfLayer[layer]
    guard next != pool else { return }
    pools[Int(pool)].occupied = occupied
    pool = next
    occupied = pools[Int(next)].occupied
    capacity = pools[Int(next)].capacity
  }

  /// Gives each pool other room; the residents stay, even if they are too many.
  mutating func resize(capacities: [Int]) {
    for index in pools.indices { pools[index].capacity = capacities[index] }
    capacity = capacities[Int(pool)]
  }

  /// Marks `expert` as needed by the event; returns whether it is resident.
  mutating func touch(_ expert: Int32) -> Bool {
    entries[Int(expert)].lastEvent = event
    return entries[Int(expert)].isResident
  }

  /// Makes `expert`, of the event's pool, resident.
  mutating func insert(_ expert: Int32) {
    // A damaged trace may name an expert twice in an event.
    guard !entries[Int(expert)].isResident else { return }
    entries[Int(expert)].isResident = true
    occupied += size(of: expert)
  }

  mutating func remove(_ expert: Int32) {
    precondition(entries[Int(expert)].isResident, "the victim is not resident")
    entries[Int(expert)].isResident = false
    occupied -= size(of: expert)
  }

  private func size(of expert: Int32) -> Int {
    sizeOfLayer[Int(expert) / geometry.expertCount]
  }
}

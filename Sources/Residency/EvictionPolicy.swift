public import Routing

/// What one layer needs at one step: the experts that the tokens of the step are routed to.
///
/// Experts are numbered over the whole model: layer * experts of a layer + expert.
public struct RoutingEvent: Sendable {
  /// The layer, counted over the MoE layers.
  public var layer = 0
  /// The passes over the layers before this one.
  public var pass = 0
  /// The different experts needed, in the order of their last choice, token by token.
  public var experts: [Int32] = []
  /// The sum over the tokens of each expert's gate weights, as `experts`; empty where unknown.
  public var weights: [Float] = []
  /// The sum over the tokens of the router scores of every expert of the layer, [experts of a layer];
  /// empty where unknown.
  public var scores: [Float] = []
  /// The tokens routed.
  public var tokenCount = 1
  /// Whether the tokens follow each other in one prompt; else they are of different sequences.
  public var isPrompt = false
  /// How many of the tokens chose each expert, as `experts`; empty where it was one token.
  public var counts: [Int32] = []

  /// An event of nothing.
  public init() {}
}

/// Decides which expert goes when room is needed.
///
/// Events are atomic (arXiv 2608.07911): what is resident is settled when an event begins; the policy
/// observes the event, every missed expert is read and becomes resident, and only then are victims
/// taken until the residents fit.
public protocol EvictionPolicy: Sendable {
  /// Whether an expert of the event itself may be the victim, so that it is served and not kept
  /// (bypass). Otherwise all of them stay at least until the next event.
  var mayBypass: Bool { get }

  /// Takes note of `event`. Its experts are resident after it, whether they were before or not.
  mutating func observe(_ event: borrowing RoutingEvent, residents: borrowing ResidentTable)

  /// Chooses the resident that goes and forgets that it was one; nil if none may go.
  mutating func takeVictim(residents: borrowing ResidentTable) -> Int32?
}

extension EvictionPolicy {
  public var mayBypass: Bool { false }
}

/// Which experts are resident, as policies see it.
public struct ResidentTable: Sendable {
  /// The model.
  public let geometry: RoutingGeometry
  /// Bytes that residents may take.
  public let capacity: Int
  /// Bytes that residents take.
  public private(set) var byteCount = 0
  /// The layer of the event being served.
  public internal(set) var layer = 0
  private let protectsEvent: Bool
  private var entries: [Entry]
  private var event: Int32 = 0

  private struct Entry: Sendable {
    /// The number of the latest event that needed the expert.
    var lastEvent: Int32 = -1
    var isResident = false
  }

  init(geometry: RoutingGeometry, capacity: Int, protectsEvent: Bool) {
    self.geometry = geometry
    self.capacity = capacity
    self.protectsEvent = protectsEvent
    entries = Array(repeating: Entry(), count: geometry.layerCount * geometry.expertCount)
  }

  /// Whether `expert` is resident.
  public func contains(_ expert: Int32) -> Bool { entries[Int(expert)].isResident }

  /// Whether `expert` is a resident that may be evicted now.
  public func isEvictable(_ expert: Int32) -> Bool {
    let entry = entries[Int(expert)]
    return entry.isResident && !(protectsEvent && entry.lastEvent == event)
  }

  /// The experts of `layer`.
  public func experts(ofLayer layer: Int) -> Range<Int> {
    layer * geometry.expertCount..<(layer + 1) * geometry.expertCount
  }

  mutating func beginEvent(layer: Int) {
    event &+= 1
    self.layer = layer
  }

  /// Marks `expert` as needed by the event; returns whether it is resident.
  mutating func touch(_ expert: Int32) -> Bool {
    entries[Int(expert)].lastEvent = event
    return entries[Int(expert)].isResident
  }

  mutating func insert(_ expert: Int32) {
    // A damaged trace may name an expert twice in an event.
    guard !entries[Int(expert)].isResident else { return }
    entries[Int(expert)].isResident = true
    byteCount += geometry.expertByteCounts[Int(expert) / geometry.expertCount]
  }

  mutating func remove(_ expert: Int32) {
    precondition(entries[Int(expert)].isResident, "the victim is not resident")
    entries[Int(expert)].isResident = false
    byteCount -= geometry.expertByteCounts[Int(expert) / geometry.expertCount]
  }
}

internal import Routing

/// A key for every resident, and the resident with the largest key.
///
/// The largest key of each layer is kept, so that finding the victim looks at one key per layer and
/// at the keys of two layers: O(layers + experts of a layer).
struct KeyTable: Sendable {
  private let expertCount: Int
  /// [layers * experts of a layer]; `absent` for what is not resident.
  private var keys: [Double]
  /// The largest key of each layer, where it is known.
  private var largest: [Double]
  private var isKnown: [Bool]

  static let absent = -Double.infinity

  init(_ geometry: RoutingGeometry) {
    expertCount = geometry.expertCount
    keys = Array(repeating: Self.absent, count: geometry.layerCount * geometry.expertCount)
    largest = Array(repeating: Self.absent, count: geometry.layerCount)
    isKnown = Array(repeating: true, count: geometry.layerCount)
  }

  subscript(expert: Int32) -> Double {
    get { keys[Int(expert)] }
    set {
      let layer = Int(expert) / expertCount
      if isKnown[layer] {
        if newValue >= largest[layer] {
          largest[layer] = newValue
        } else if keys[Int(expert)] == largest[layer] {
          isKnown[layer] = false
        }
      }
      keys[Int(expert)] = newValue
    }
  }

  /// Sets the key of `expert`; `order` must follow before the next victim is taken.
  mutating func setUnordered(_ key: Double, of expert: Int) { keys[expert] = key }

  /// Takes note that keys of `layer` were set by `setUnordered`.
  mutating func order(layer: Int) { isKnown[layer] = false }

  /// The evictable resident with the largest key; the lowest number among equals. Its key is removed.
  mutating func takeLargest(_ residents: borrowing ResidentTable) -> Int32? {
    var best = Self.absent
    var bestLayer = 0
    for layer in largest.indices where layer != residents.layer && residents.makesRoom(layer: layer)
    {
      if !isKnown[layer] { findLargest(of: layer) }
      if largest[layer] > best {
        best = largest[layer]
        bestLayer = layer
      }
    }
    // Only here can some be protected.
    var victim: Int?
    for expert in residents.experts(ofLayer: residents.layer)
    where keys[expert] > best && residents.isEvictable(Int32(expert)) {
      best = keys[expert]
      victim = expert
    }
    guard best > Self.absent else { return nil }
    let found = victim ?? residents.experts(ofLayer: bestLayer).first { keys[$0] == best }!
    self[Int32(found)] = Self.absent
    return Int32(found)
  }

  private mutating func findLargest(of layer: Int) {
    var best = Self.absent
    for key in keys[layer * expertCount..<(layer + 1) * expertCount] { best = max(best, key) }
    largest[layer] = best
    isKnown[layer] = true
  }
}

/// What lies on an accelerator: the matrices that every token uses, if they fit, and the experts that are
/// worth most there.
///
/// Planned and predicted from datasheets; nothing runs there yet.
public struct DevicePlacement: Hashable, Sendable, Codable {
  public var name: String
  /// Bytes of its memory that may be used, and that are.
  public var memory: Int
  public var usedBytes: Int
  /// Whether attention, routers, output head and key-value cache are there.
  public var holdsDense: Bool
  /// The experts of each layer that are there, [layers].
  public var experts: [[Int]]
  /// The share of a token's experts that are there.
  public var hitRate: Double
  /// Tokens of an expert from which on it pays to bring it there; nil: it never does.
  public var fetchFromTokens: Int?

  public var expertCount: Int { experts.reduce(0) { $0 + $1.count } }

  public init(
    name: String, memory: Int, usedBytes: Int, holdsDense: Bool, experts: [[Int]], hitRate: Double,
    fetchFromTokens: Int?
  ) {
    self.name = name
    self.memory = memory
    self.usedBytes = usedBytes
    self.holdsDense = holdsDense
    self.experts = experts
    self.hitRate = hitRate
    self.fetchFromTokens = fetchFromTokens
  }
}

/// Something that may be placed: what it takes and what it is worth there.
public struct PlacementItem: Hashable, Sendable {
  public var bytes: Int
  /// Seconds that a token is spared.
  public var value: Double

  public init(bytes: Int, value: Double) {
    self.bytes = bytes
    self.value = value
  }
}

/// Chooses what to place in so many bytes.
///
/// Each item's value does not depend on the others, so the choice is a knapsack. Experts are many and of
/// few sizes, so taking the largest value per byte first loses at most the value of the one item that
/// does not fit any more (Dantzig 1957).
public enum PlacementChoice {
  /// The items with the most value per byte that fit, by index, ascending.
  public static func greedy(_ items: [PlacementItem], bytes: Int) -> [Int] {
    var left = bytes
    let order = items.indices.filter { items[$0].value > 0 }.sorted {
      let (a, b) = (items[$0], items[$1])
      let (left, right) = (a.value * Double(b.bytes), b.value * Double(a.bytes))
      return left == right ? $0 < $1 : left > right
    }
    var chosen: [Int] = []
    for index in order where items[index].bytes <= left {
      left -= items[index].bytes
      chosen.append(index)
    }
    return chosen.sorted()
  }

  /// The best choice of all, by dynamic programming over bytes in steps of `unit`: time and memory grow
  /// with items times bytes over unit.
  ///
  /// - Parameter unit: a divisor of every item's bytes.
  public static func exact(_ items: [PlacementItem], bytes: Int, unit: Int) -> [Int] {
    let room = bytes / unit
    var best = Array(repeating: 0.0, count: room + 1)
    var taken = Array(repeating: [Bool](), count: items.count)
    for (index, item) in items.enumerated() {
      taken[index] = Array(repeating: false, count: room + 1)
      let size = item.bytes / unit
      guard item.value > 0, size <= room else { continue }
      for used in stride(from: room, through: size, by: -1) {
        let value = best[used - size] + item.value
        guard value > best[used] else { continue }
        best[used] = value
        taken[index][used] = true
      }
    }
    var chosen: [Int] = []
    var used = room
    for index in items.indices.reversed() where taken[index][used] {
      chosen.append(index)
      used -= items[index].bytes / unit
    }
    return chosen.sorted()
  }
}

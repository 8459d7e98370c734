internal import Foundation
public import Routing

/// Least frequently used: the victim is the expert with the fewest uses so far, resident or not; among
/// equals the one needed longest ago.
public struct LFUPolicy: EvictionPolicy {
  private var keys: KeyTable
  private var uses: [Int32]
  private var clock = 0

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry) {
    keys = KeyTable(geometry)
    uses = Array(repeating: 0, count: geometry.layerCount * geometry.expertCount)
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    for expert in event.experts {
      clock += 1
      uses[Int(expert)] += 1
      // Exact for the first million uses of an expert, and four billion of all.
      keys[expert] = -(Double(uses[Int(expert)]) * 0x1p32 + Double(clock))
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    keys.takeLargest(residents)
  }
}

/// LFU whose uses count half as much after every `halfLife` passes (LRFU: Lee et al., "LRFU: a spectrum
/// of policies that subsumes the least recently used and least frequently used policies", IEEE
/// Transactions on Computers 50, 2001).
///
/// Every expert's count decays at the same rate, so the order changes only with a use: what is kept is
/// the logarithm of the count as of pass 0.
public struct DecayedLFUPolicy: EvictionPolicy {
  private var keys: KeyTable
  /// log2 of the sum over the uses of 2^(pass / half-life).
  private var logarithms: [Double]
  private let halfLife: Double

  /// - Parameters:
  ///   - geometry: the model.
  ///   - halfLife: passes over the layers.
  public init(geometry: RoutingGeometry, halfLife: Double = 32) {
    keys = KeyTable(geometry)
    logarithms = Array(
      repeating: -.infinity, count: geometry.layerCount * geometry.expertCount)
    self.halfLife = halfLife
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    let now = Double(event.pass) / halfLife
    for expert in event.experts {
      let before = logarithms[Int(expert)]
      logarithms[Int(expert)] = now + log2(1 + exp2(before - now))
      keys[expert] = -logarithms[Int(expert)]
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    keys.takeLargest(residents)
  }
}

/// LFRU: the victim has the smallest uses / (age + 1), the age being the passes since its last use; the
/// best causal policy of arXiv 2608.07911, section on baselines.
///
/// Complexity of a victim: O(experts), as ages change the order at every pass.
public struct LFRUPolicy: EvictionPolicy {
  private var uses: [Int32]
  private var lastPass: [Int32]
  private var pass: Int32 = 0

  /// - Parameter geometry: the model.
  public init(geometry: RoutingGeometry) {
    uses = Array(repeating: 0, count: geometry.layerCount * geometry.expertCount)
    lastPass = uses
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    pass = Int32(truncatingIfNeeded: event.pass)
    for expert in event.experts {
      uses[Int(expert)] += 1
      lastPass[Int(expert)] = pass
    }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    var victim: Int32?
    var lowest = Float.infinity
    for expert in uses.indices {
      guard residents.isEvictable(Int32(expert)) else { continue }
      let score = Float(uses[expert]) / Float(pass &- lastPass[expert] &+ 1)
      if score < lowest {
        lowest = score
        victim = Int32(expert)
      }
    }
    return victim
  }
}

/// Minus recent score: S = a * TopP(s) + (1 - a) * S per layer; the victim has the lowest S (HybriMoE,
/// arXiv 2504.05897, section 4.3; a = 0.5 and the highest 2k scores in its released code).
///
/// Where the trace has no router scores the gate weights of the chosen experts stand in for them, and
/// without those their number.
public struct MRSPolicy: EvictionPolicy {
  private var keys: KeyTable
  private var scores: [Float]
  private let share: Float
  private var order: [Int] = []
  private var recent: [Float]

  /// - Parameters:
  ///   - geometry: the model.
  ///   - share: the weight of the newest score, above 0 and at most 1.
  public init(geometry: RoutingGeometry, share: Float = 0.5) {
    keys = KeyTable(geometry)
    scores = Array(repeating: 0, count: geometry.layerCount * geometry.expertCount)
    recent = Array(repeating: 0, count: geometry.expertCount)
    self.share = share
  }

  public mutating func observe(
    _ event: borrowing RoutingEvent, residents: borrowing ResidentTable
  ) {
    let experts = residents.experts(ofLayer: event.layer)
    for index in recent.indices { recent[index] = 0 }
    if event.scores.isEmpty {
      for (place, expert) in event.experts.enumerated() {
        recent[Int(expert) - experts.lowerBound] =
          event.weights.isEmpty ? 1 : event.weights[place]
      }
    } else {
      let most = min(recent.count, 2 * residents.geometry.topK * event.tokenCount)
      order = event.scores.indices.sorted { (event.scores[$1], $0) < (event.scores[$0], $1) }
      for index in order.prefix(most) { recent[index] = event.scores[index] }
    }
    let unit = share / Float(event.tokenCount)
    for index in recent.indices {
      let expert = experts.lowerBound + index
      scores[expert] = unit * recent[index] + (1 - share) * scores[expert]
      if residents.contains(Int32(expert)) { keys[Int32(expert)] = -Double(scores[expert]) }
    }
    for expert in event.experts { keys[expert] = -Double(scores[Int(expert)]) }
  }

  public mutating func takeVictim(residents: borrowing ResidentTable) -> Int32? {
    keys.takeLargest(residents)
  }
}

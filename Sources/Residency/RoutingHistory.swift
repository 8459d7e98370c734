internal import Foundation

/// How often a model's experts were used in earlier runs: what a new one begins with.
public struct RoutingHistory: Hashable, Sendable, Codable {
  /// The format that this program writes and reads.
  public static let currentVersion = 1
  /// Tokens after which what was before them counts half.
  public static let halfLife = 4096.0

  public var version = currentVersion
  /// The model's name, for people.
  public var model: String
  /// The hash of the routers that the uses are of.
  public var routers: String
  /// The tokens that the uses are of, older ones counting less.
  public private(set) var tokens = 0.0
  /// Uses of each expert, [layers][experts].
  public private(set) var uses: [[Double]]
  /// The experts that were resident when the last run ended, numbered over the model; nil where that is not
  /// known, or where all were.
  public var residents: [Int32]?

  /// A history of nothing.
  public init(model: String, routers: String, layerCount: Int, expertCount: Int) {
    self.model = model
    self.routers = routers
    uses = Array(repeating: Array(repeating: 0, count: expertCount), count: layerCount)
  }

  /// Takes note of what went through a layer together.
  public mutating func note(_ event: borrowing RoutingEvent) {
    if event.layer == 0 { tokens += Double(event.tokenCount) }
    let first = event.layer * uses[0].count
    for (place, expert) in event.experts.enumerated() {
      uses[event.layer][Int(expert) - first] +=
        event.counts.isEmpty ? 1 : Double(event.counts[place])
    }
  }

  /// Adds what came after this history, which counts the less for it.
  public mutating func append(_ later: Self) {
    precondition(uses.count == later.uses.count, "histories of different models")
    let share = exp2(-later.tokens / Self.halfLife)
    tokens = tokens * share + later.tokens
    residents = later.residents ?? residents
    for layer in uses.indices {
      for expert in uses[layer].indices {
        let sum = uses[layer][expert] * share + later.uses[layer][expert]
        uses[layer][expert] = (1000 * sum).rounded() / 1000
      }
    }
  }

  /// All that went through `layer`, as one prompt.
  func event(layer: Int) -> RoutingEvent {
    var event = RoutingEvent()
    event.layer = layer
    event.isPrompt = true
    event.tokenCount = max(1, Int(min(tokens, 0x1p30).rounded()))
    let first = layer * uses[layer].count
    for (expert, count) in uses[layer].enumerated() where count > 0 {
      event.experts.append(Int32(first + expert))
      event.counts.append(Int32(max(1, min(count, 0x1p30).rounded())))
    }
    return event
  }

  /// The experts that were used, the likeliest to be used again last: those that the last run has ended with,
  /// and of these and of the others the most used.
  public var byLikelihood: [Int32] {
    let all = uses.flatMap { $0 }
    var isResident = Array(repeating: 0, count: all.count)
    for expert in residents ?? [] { isResident[Int(expert)] = 1 }
    return all.indices.filter { all[$0] > 0 }
      .sorted { (isResident[$0], all[$0], $1) < (isResident[$1], all[$1], $0) }
      .map(Int32.init)
  }

  /// What cannot be in the history of a model of `layerCount` layers of `expertCount` experts whose routers
  /// have the hash `routers`, in words; nil if all can.
  public func fault(routers: String, layerCount: Int, expertCount: Int) -> String? {
    guard version == Self.currentVersion else {
      return "version \(version), expected \(Self.currentVersion)"
    }
    guard self.routers == routers else { return "the history of another model" }
    guard uses.count == layerCount, uses.allSatisfy({ $0.count == expertCount }) else {
      return "not \(layerCount) layers of \(expertCount) experts"
    }
    guard tokens >= 0, tokens < 0x1p40, uses.joined().allSatisfy({ $0 >= 0 && $0 < 0x1p40 }) else {
      return "a number of uses that cannot be"
    }
    let experts = 0..<Int32(layerCount * expertCount)
    guard residents?.allSatisfy(experts.contains) ?? true else {
      return "residents that the model does not have"
    }
    return nil
  }
}

import Replay
import Residency
import Routing
import Stoker

/// What `stoker plan` supposes of routing where it has no trace, beside real traces: the hit rates of
/// `next-use` on both, in models of the same shape and as many tokens.
enum PriorTable {
  private static let shares = [0.15, 0.25, 0.5, 0.75]

  static func show(_ files: [(name: String, path: String)]) throws {
    print(
      "Hit rates of `next-use` on real traces -> on what is supposed without one, and how much more or"
    )
    print("less is missed then.\n")
    print("| trace | " + shares.map { "\(Int(100 * $0)) %" }.joined(separator: " | ") + " |")
    print("|---|" + String(repeating: "---|", count: shares.count))
    var errors: [Double] = []
    for (name, path) in files {
      let real = try TraceImport.read(TraceImport.filesIfFolder(path))
      var header = real.header
      (header.hasWeights, header.hasScores) = (false, false)
      header.predictionDistances = []
      let tokens = (0..<real.eventCount).count {
        real.layer(of: $0) == 0 && real.phase(of: $0) == .decode
      }
      let prior = RoutingPrior(topK: header.geometry.topK, of: header.geometry.expertCount).trace(
        header, promptTokens: 0, tokens: min(tokens, 1000))
      let rates = try [real, prior].map { try hitRates($0) }
      let cells = shares.indices.map { index in
        let (seen, supposed) = (rates[0][index], rates[1][index])
        let error = (1 - supposed) / (1 - seen) - 1
        errors.append(error)
        return
          "\(formatFixed(100 * seen, digits: 1)) -> \(formatFixed(100 * supposed, digits: 1)) % "
          + "(\(error < 0 ? "" : "+")\(formatFixed(100 * error, digits: 0)) %)"
      }
      print("| \(name) | \(cells.joined(separator: " | ")) |")
    }
    let sizes = errors.map { abs($0) }.sorted()
    print(
      "\nMedian of the misses' errors: \(formatFixed(100 * sizes[sizes.count / 2], digits: 0)) %.")
  }

  private static func hitRates(_ trace: RoutingTrace) throws -> [Double] {
    var options = ReplayOptions()
    options.policies = [.nextUse]
    options.capacities = shares.map { .share($0) }
    options.showsGap = false
    return try Comparison(trace, name: "", options: options).rows().map(\.hitRate)
  }
}

internal import Glibc
internal import Stoker

/// Runs random hidden states through every expert layer of a checkpoint within a memory budget.
///
/// It stands for a model of one's own: whoever computes attention and routers can leave the experts
/// to `ExpertRuntime`, whatever the architecture.
@main struct ForeignModelExample {
  static let tokenCount = 4
  static let stepCount = 8

  static func main() {
    do {
      try run()
    } catch {
      _ = "\(error)\n".withCString { write(STDERR_FILENO, $0, strlen($0)) }
      exit(1)
    }
  }

  private static func run() throws {
    let arguments = CommandLine.arguments
    guard arguments.count == 3, let mebibytes = Int(arguments[2]),
      (1...(1 << 24)).contains(mebibytes)
    else {
      throw UsageError()
    }
    let experts = try ExpertRuntime.open(
      arguments[1], memory: mebibytes << 20, tokenCapacity: tokenCount,
      threads: Machine.processorCount, readsAhead: true)
    for fallback in experts.fallbacks { print("note: \(fallback)") }
    print(
      "\(experts.layerCount) layers of \(experts.expertCount) experts, \(experts.topK) per token; "
        + "\(experts.slotCount) slots, read with \(experts.engineName)")

    var generator = LinearCongruentialGenerator(state: 1)
    var hidden = [Float](repeating: 0, count: tokenCount * experts.hiddenSize)
    var output = hidden
    var routing = Routing(topK: experts.topK, tokenCapacity: tokenCount)
    var nextRouting = routing
    var checksum: UInt64 = 0xcbf2_9ce4_8422_2325
    for _ in 0..<stepCount {
      for i in hidden.indices { hidden[i] = .random(in: -1...1, using: &generator) }
      _ = route(tokenCount, of: experts.expertCount, into: &nextRouting, using: &generator)
      for layer in 0..<experts.layerCount {
        swap(&routing, &nextRouting)
        if layer + 1 < experts.layerCount {
          // A model of one's own predicts; this one looks.
          let scores = route(
            tokenCount, of: experts.expertCount, into: &nextRouting, using: &generator)
          try experts.predict(layer: layer + 1, distance: 1, scores: scores.span)
        }
        var span = output.mutableSpan
        try experts.execute(
          layer: layer, hidden: hidden.span, routing: routing, output: &span, phase: .decode)
        for value in output { checksum = (checksum ^ UInt64(value.bitPattern)) &* 0x100_0000_01b3 }
      }
    }
    let accesses = experts.statistics.decode
    let ahead = experts.statistics.totalPrefetch
    print("hits \(accesses.hits), misses \(accesses.misses)")
    print(
      "read ahead \(formatBytes(ahead.issued.byteCount)), of that needed in time "
        + formatBytes(ahead.inTime.byteCount))
    print(
      "read \(formatBytes(accesses.demandedByteCount)), checksum \(String(checksum, radix: 16))")
  }

  /// Stands for the model's router: scores are random, the top of them share a weight of one.
  /// - Returns: the sum of the chosen experts' weights, [experts].
  static func route(
    _ tokens: Int, of expertCount: Int, into routing: inout Routing,
    using generator: inout LinearCongruentialGenerator
  ) -> [Float] {
    routing.removeAll()
    for _ in 0..<tokens {
      let scores = (0..<expertCount).map { _ in Float.random(in: 0...1, using: &generator) }
      scores.withUnsafeBufferPointer { routing.appendTopK(of: $0, normalized: true) }
    }
    var sums = [Float](repeating: 0, count: expertCount)
    for (expert, weight) in zip(routing.experts, routing.weights) { sums[Int(expert)] += weight }
    return sums
  }
}

/// Knuth's MMIX generator: the same numbers on every run, so that checksums can be compared.
struct LinearCongruentialGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    var word: UInt64 = 0
    // The low bits have short periods; only the high halves are used.
    for _ in 0..<2 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      word = word << 32 | state >> 32
    }
    return word
  }
}

struct UsageError: Error, CustomStringConvertible {
  let description = "usage: ForeignModelExample GGUF-FILE MEBIBYTES"
}

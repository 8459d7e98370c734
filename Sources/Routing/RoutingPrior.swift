internal import Glibc

/// What is supposed of a model's routing where no trace of it is at hand.
///
/// A layer's experts are chosen with probabilities that fall by the same factor from one to the next, in
/// an order of each layer's own; and of the experts of a token, the next one keeps some. Two numbers say
/// how skewed and how steady that is. The defaults are about the middle of what real traces show: the
/// hottest fifth of a layer's experts got 46 to 77 % of the choices, and 26 to 43 % of a token's experts
/// were its predecessor's too, in traces of OLMoE-1B-7B, gpt-oss-20b, Qwen3-30B-A3B, Gemma-4-26B-A4B and
/// DeepSeek-V2-Lite.
public struct RoutingPrior: Hashable, Sendable, Codable {
  /// The share of choices that the hottest fifth of a layer's experts would get if a token chose one.
  public var hottestFifth = 0.6
  /// The probability that a token keeps an expert of the one before it.
  public var keeping = 0.2

  public init() {}

  /// What is supposed of a layer of so many experts: the smaller the part of them that a token uses, the
  /// fewer of them get most of the choices. Real traces have 46 to 50 % for the hottest fifth where a token
  /// uses an eighth to a tenth of the experts, and 75 to 77 % where it uses a twentieth.
  public init(topK: Int, of expertCount: Int) {
    hottestFifth = min(0.85, max(0.45, 0.95 - 3.6 * Double(topK) / Double(expertCount)))
  }

  /// In words.
  public var summary: String {
    "no trace: supposed that a fifth of the experts gets \(Int(hottestFifth * 100)) % of the choices "
      + "and a token keeps \(Int(keeping * 100)) % of its predecessor's"
  }

  /// The factor by which probabilities fall over all experts, as a logarithm: the hottest fifth then has
  /// its share.
  private var slope: Double {
    var (low, high) = (1e-6, 100.0)
    for _ in 0..<60 {
      let middle = (low + high) / 2
      if (1 - exp(-middle / 5)) / (1 - exp(-middle)) < hottestFifth {
        low = middle
      } else {
        high = middle
      }
    }
    return low
  }

  /// A trace of a prompt and the tokens after it, the same for the same arguments.
  ///
  /// - Parameters:
  ///   - header: the model's shape and sizes.
  ///   - chunk: the prompt's tokens that pass through a layer together.
  public func trace(
    _ header: TraceHeader, promptTokens: Int, chunk: Int = 512, tokens: Int
  ) -> RoutingTrace {
    var generator = Generator(self, geometry: header.geometry, slope: slope)
    var trace = RoutingTrace(header: header)
    var event = TraceEvent()
    let layers = header.geometry.layerCount
    var step = 0
    while step < promptTokens {
      let count = min(chunk, promptTokens - step)
      for layer in 0..<layers {
        event.removeAll()
        (event.phase, event.layer, event.step) = (.prefill, layer, Int32(step))
        for _ in 0..<count { event.experts += generator.next(layer: layer) }
        trace.append(event)
      }
      step += count
    }
    for token in 0..<tokens {
      for layer in 0..<layers {
        event.removeAll()
        (event.phase, event.layer, event.step) = (.decode, layer, Int32(promptTokens + token))
        event.experts += generator.next(layer: layer)
        trace.append(event)
      }
    }
    return trace
  }
}

extension RoutingTrace {
  /// The same decoded tokens with predictions made up for them, which name each expert with the probability
  /// `recall` gives for a distance: where a trace was recorded without.
  public func predicting(recall: [Int: Double]) -> RoutingTrace {
    var header = header
    header.predictionDistances = recall.keys.sorted()
    var result = RoutingTrace(header: header)
    var generator = RoutingPrior.Generator(RoutingPrior(), geometry: header.geometry, slope: 1)
    var event = TraceEvent()
    for index in 0..<eventCount {
      read(index, into: &event)
      event.predictions = []
      if event.phase == .decode, event.experts.count == header.geometry.topK {
        for distance in header.predictionDistances {
          event.predictions += generator.prediction(
            of: event.experts, recall: recall[distance]!)
        }
      }
      result.append(event)
    }
    return result
  }
}

extension RoutingPrior {
  /// Draws tokens' experts, layer by layer.
  struct Generator {
    private let prior: RoutingPrior
    private let geometry: RoutingGeometry
    private var random = SplitMix64(state: 0x5703)
    /// The sums of probabilities up to each rank, [experts]; the last is 1.
    private let sums: [Double]
    /// The expert of each rank, [layers][experts].
    private var order: [[UInt16]] = []
    /// The experts of the latest token, [layers][topK].
    private var latest: [[UInt16]]

    init(_ prior: RoutingPrior, geometry: RoutingGeometry, slope: Double) {
      self.prior = prior
      self.geometry = geometry
      let weights = (0..<geometry.expertCount).map {
        exp(-slope * Double($0) / Double(geometry.expertCount))
      }
      let total = weights.reduce(0, +)
      var sum = 0.0
      sums = weights.map { weight in
        sum += weight / total
        return sum
      }
      latest = Array(repeating: [], count: geometry.layerCount)
      for _ in 0..<geometry.layerCount {
        var ranks = (0..<geometry.expertCount).map(UInt16.init)
        for index in ranks.indices.dropFirst() { ranks.swapAt(index, below(index + 1)) }
        order.append(ranks)
      }
    }

    private mutating func uniform() -> Double { Double(random.next() >> 11) * 0x1p-53 }
    private mutating func below(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }

    mutating func next(layer: Int) -> [UInt16] {
      var chosen: [UInt16] = []
      for expert in latest[layer] where uniform() < prior.keeping { chosen.append(expert) }
      var tries = 0
      while chosen.count < geometry.topK {
        let draw = uniform()
        var (low, high) = (0, geometry.expertCount - 1)
        while low < high {
          let middle = (low + high) / 2
          if sums[middle] <= draw { low = middle + 1 } else { high = middle }
        }
        // Where nearly all of the probability is taken, the rest comes in order.
        tries += 1
        let rank = tries < 64 * geometry.topK ? low : tries % geometry.expertCount
        let expert = order[layer][rank]
        if !chosen.contains(expert) { chosen.append(expert) }
      }
      latest[layer] = chosen
      return chosen
    }

    /// Scores that name `experts` but for those it misses, in the place of which it names others.
    mutating func prediction(of experts: [UInt16], recall: Double) -> [UInt8] {
      var codes = Array(repeating: UInt8(64), count: geometry.expertCount)
      for index in codes.indices { codes[index] += UInt8(below(32)) }
      for expert in experts {
        let isNamed = uniform() < recall
        let named = isNamed ? Int(expert) : below(geometry.expertCount)
        // What is clear is named more surely than what is not.
        codes[named] = UInt8(isNamed ? below(24) : 12 + below(24))
      }
      return codes
    }
  }
}

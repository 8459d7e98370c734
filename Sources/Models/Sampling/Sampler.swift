#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Chooses the next token from the logits of a decode step.
///
/// The order is that of llama.cpp's default chain: repetition penalty, top-k, top-p, min-p,
/// temperature, then one draw. So the filters see the model's own distribution, and the temperature
/// only shapes what they leave. The choice is a function of the parameters, the accepted tokens
/// and the logits: of equal logits the lower id comes first.
package struct Sampler: Sendable {
  /// How tokens are chosen.
  package let parameters: SamplingParameters

  private var random: Xoshiro256
  /// The last accepted tokens; a ring once it is full.
  private var recentTokens: [Int32] = []
  private var oldestIndex = 0
  /// The logits after the repetition penalty; used only if there is one.
  private var penalized: [Float] = []
  private var candidates = CandidateList()
  private var weights: [Double] = []

  /// Creates a sampler at the start of the random sequence of `parameters.seed`.
  /// - Throws: `SamplerError.invalidOption`.
  package init(_ parameters: SamplingParameters) throws(SamplerError) {
    try parameters.validate()
    self.parameters = parameters
    random = Xoshiro256(seed: parameters.seed)
    recentTokens.reserveCapacity(parameters.repetitionWindow)
  }

  /// Takes note of a token of the prompt or the answer for the repetition penalty.
  package mutating func accept(_ token: Int32) {
    guard parameters.repetitionWindow > 0 else { return }
    if recentTokens.count < parameters.repetitionWindow {
      recentTokens.append(token)
    } else {
      recentTokens[oldestIndex] = token
      oldestIndex = (oldestIndex + 1) % parameters.repetitionWindow
    }
  }

  /// Chooses a token; `logits` holds one number per token, -inf for a token that is not allowed.
  ///
  /// The token is not accepted yet. After the first call nothing is allocated, as long as the
  /// number of logits does not grow.
  /// - Throws: `SamplerError` if there is no token to choose or a logit is NaN or +inf.
  package mutating func sample(_ logits: UnsafeBufferPointer<Float>) throws(SamplerError) -> Int32 {
    let (best, bestLogit) = try checkedMaximum(logits)
    let isPenalized = parameters.repetitionPenalty != 1 && !recentTokens.isEmpty
    if parameters.temperature == 0 && !isPenalized {
      return try possible(best, bestLogit, logitCount: logits.count)
    }
    guard isPenalized else { return try choose(from: logits) }
    try penalize(logits)
    // The scratch leaves `self` while it is read, so that `choose` may change the rest of it.
    let scratch = penalized
    defer { penalized = scratch }
    penalized = []
    return try scratch.withUnsafeBufferPointer { (logits) throws(SamplerError) in
      try choose(from: logits)
    }
  }

  /// Chooses among logits that are known to be numbers.
  private mutating func choose(
    from logits: UnsafeBufferPointer<Float>
  ) throws(SamplerError) -> Int32 {
    let isGreedy = parameters.temperature == 0
    let limit = isGreedy ? 1 : parameters.topK == 0 ? logits.count : parameters.topK
    candidates.selectBest(min(limit, logits.count), of: logits)
    let best = candidates[0]
    _ = try possible(best.token, best.logit, logitCount: logits.count)
    if isGreedy { return best.token }
    candidates.truncate(to: countWithinTopP())
    candidates.truncate(to: countWithinMinP())
    return draw()
  }

  /// The number of best candidates that reach the probability `topP` together.
  private mutating func countWithinTopP() -> Int {
    guard parameters.topP < 1 else { return candidates.count }
    let total = weigh(temperature: 1)
    var sum = 0.0
    for index in 0..<candidates.count {
      sum += weights[index]
      if sum >= Double(parameters.topP) * total { return index + 1 }
    }
    return candidates.count
  }

  /// The number of candidates whose probability is at least `minP` times that of the best.
  private func countWithinMinP() -> Int {
    guard parameters.minP > 0 else { return candidates.count }
    let threshold = Double(candidates[0].logit) + log(Double(parameters.minP))
    var count = 1
    while count < candidates.count, Double(candidates[count].logit) >= threshold { count += 1 }
    return count
  }

  private mutating func draw() -> Int32 {
    let total = weigh(temperature: Double(parameters.temperature))
    let target = random.nextUnit() * total
    var sum = 0.0
    var last = 0
    for index in 0..<candidates.count where weights[index] > 0 {
      sum += weights[index]
      last = index
      if target < sum { break }
    }
    return candidates[last].token
  }

  /// Sets `weights` to the candidates' probabilities before division by their sum, and returns it.
  private mutating func weigh(temperature: Double) -> Double {
    weights.removeAll(keepingCapacity: true)
    let maximum = Double(candidates[0].logit)
    var total = 0.0
    for index in 0..<candidates.count {
      let weight = exp((Double(candidates[index].logit) - maximum) / temperature)
      weights.append(weight)
      total += weight
    }
    return total
  }

  /// Copies `logits` and applies the repetition penalty, once per token however often it occurs.
  private mutating func penalize(_ logits: UnsafeBufferPointer<Float>) throws(SamplerError) {
    penalized.removeAll(keepingCapacity: true)
    penalized.append(contentsOf: logits)
    for token in recentTokens {
      guard token >= 0, Int(token) < logits.count else {
        throw .tokenOutOfRange(token: token, logitCount: logits.count)
      }
      let logit = logits[Int(token)]
      guard logit > -.infinity else { continue }
      let scaled =
        logit > 0 ? logit / parameters.repetitionPenalty : logit * parameters.repetitionPenalty
      // An extreme penalty may overflow; a token must not become impossible or certain by it.
      let limit = Float.greatestFiniteMagnitude
      penalized[Int(token)] = max(-limit, min(scaled, limit))
    }
  }

  private func possible(
    _ token: Int32, _ logit: Float, logitCount: Int
  ) throws(SamplerError) -> Int32 {
    guard logit > -.infinity else { throw .noPossibleToken(logitCount: logitCount) }
    return token
  }
}

/// The first largest logit, after a look at all of them.
private func checkedMaximum(
  _ logits: UnsafeBufferPointer<Float>
) throws(SamplerError) -> (token: Int32, logit: Float) {
  guard !logits.isEmpty else { throw .noLogits }
  var best = 0
  for index in logits.indices {
    let logit = logits[index]
    guard logit < .infinity else {
      throw .invalidLogit(token: index, value: "\(logit)")
    }
    if logit > logits[best] { best = index }
  }
  return (Int32(best), logits[best])
}

public import Models
internal import Routing
internal import Tensors

/// What to generate.
public struct GenerationRequest: Sendable {
  /// The prompt's token ids.
  public var prompt: [Int32]
  /// The most tokens to generate.
  public var maxTokens: Int
  /// How to choose among likely tokens.
  public var sampling: SamplingParameters
  /// Tokens to decode instead of sampling any: teacher forcing.
  public var forced: [Int32]?
  /// Whether to go on after an end-of-text token.
  public var ignoresEnd: Bool

  /// Tokens after the prompt, at the most.
  var steps: Int { forced?.count ?? maxTokens }

  public init(
    prompt: [Int32], maxTokens: Int = 128, sampling: SamplingParameters = SamplingParameters(),
    forced: [Int32]? = nil, ignoresEnd: Bool = false
  ) {
    self.prompt = prompt
    self.maxTokens = maxTokens
    self.sampling = sampling
    self.forced = forced
    self.ignoresEnd = ignoresEnd
  }
}

/// What was generated.
public struct Generation: Sendable {
  /// The tokens after the prompt; the end-of-text token is not among them.
  public let tokens: [Int32]
  public let statistics: RunStatistics
}

extension MoEModel {
  /// Checks that `request` can be met: `generate` throws the same errors before it starts.
  /// - Throws: `StokerError` for prompt, lengths and token ids, `SamplerError` for sampling.
  public func validate(_ request: GenerationRequest) throws {
    let steps = request.steps
    guard steps >= 0 else {
      throw StokerError.option(name: "--max-tokens", found: "\(steps)", expected: "0 or more")
    }
    if let forced = request.forced { try checkVocabulary(of: forced) }
    try validate(request.prompt, extra: request.forced == nil ? max(0, steps - 1) : steps)
    try request.sampling.validate()
  }

  /// Generates from an empty context.
  ///
  /// - Parameters:
  ///   - isCancelled: asked before every step; the generation ends when it says so.
  ///   - onToken: called with each token as soon as it is known.
  /// - Throws: `StokerError` for a request that cannot be met, `RuntimeError.read` if an expert
  ///   could not be read. The model stays usable.
  public func generate(
    _ request: GenerationRequest, isCancelled: () -> Bool = { false },
    onToken: (Int32) throws -> Void = { _ in }
  ) throws -> Generation {
    try validate(request)
    recorder?.beginSequence()
    let steps = request.steps
    var sampler = try Sampler(request.sampling)
    for token in request.prompt { sampler.accept(token) }

    var meter = RunMeter(self, steps: steps)
    var tokens: [Int32] = []
    tokens.reserveCapacity(steps)
    var next: Int32?
    let completed = try prefill(
      request.prompt[...], at: 0, logits: .last, isCancelled: isCancelled
    ) { _, logits in
      next = try request.forced == nil ? sampler.sample(UnsafeBufferPointer(logits)) : nil
    }
    guard completed else { return finish(meter, tokens, cancelled: true) }
    meter.markFirstToken(promptTokens: request.prompt.count)

    var position = request.prompt.count
    while tokens.count < steps {
      guard let token = request.forced?[tokens.count] ?? next else { break }
      if request.forced == nil, !request.ignoresEnd, file.tokenizer.endIDs.contains(token) { break }
      tokens.append(token)
      try onToken(token)
      sampler.accept(token)
      // A sampled run needs no pass after its last token; a forced one decodes all it is given.
      if request.forced == nil, tokens.count == steps { break }
      if isCancelled() { return finish(meter, tokens, cancelled: true) }
      let start = monotonicNanoseconds()
      next = try decode(token, at: position, with: &sampler, samples: request.forced == nil)
      meter.add(decodeNanoseconds: monotonicNanoseconds() - start)
      position += 1
    }
    return finish(meter, tokens, cancelled: false)
  }

  /// One decode step; if `samples`, the token to come after it.
  private func decode(
    _ token: Int32, at position: Int, with sampler: inout Sampler, samples: Bool
  ) throws -> Int32? {
    var next: Int32?
    var failure: (any Error)?
    let one: InlineArray<1, Int32> = [token]
    try transformer.forward(one.span, at: position, phase: .decode, logits: .last) { _, logits in
      guard samples else { return }
      do {
        next = try sampler.sample(UnsafeBufferPointer(logits))
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return next
  }

  private func finish(_ meter: RunMeter, _ tokens: [Int32], cancelled: Bool) -> Generation {
    noteFallbacks()
    return Generation(
      tokens: tokens,
      statistics: meter.finish(generatedTokens: tokens.count, cancelled: cancelled))
  }
}

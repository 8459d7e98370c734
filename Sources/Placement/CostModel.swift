internal import Glibc

/// The tokens that are decoded together, one of each of so many sequences.
public struct DecodeStep: Hashable, Sendable {
  public var tokens = 1
  /// The tokens that go through an expert together, at the mean over those that any goes through.
  public var tokensPerExpert = 1.0

  /// One token.
  public init() {}

  public init(tokens: Int, tokensPerExpert: Double) {
    self.tokens = tokens
    self.tokensPerExpert = tokensPerExpert
  }
}

/// What a model takes on a machine: the parts of its times, from bytes and rates.
///
/// Weights are read once for each pass, so a product of n tokens with S bytes of one type takes
///
///     T(n) = S / R(type, n)                                                        [seconds]
///
/// where the measured rate R is the smaller of what memory gives and what arithmetic allows, in bytes of
/// weights per second; it falls as n grows and arithmetic binds (the roofline of MoE-Lightning, arXiv
/// 2411.11217; the table by number of tokens is KTransformers', SOSP'25). Constant terms (Fiddler's
/// linear fit has none, HybriMoE's, arXiv 2504.05897, has) are in the seconds of a layer.
///
/// m experts missed by a layer are 3 m reads at once, or m where the matrices of each lie together: with
/// bursts measured at this block and depth,
///
///     T_read(m) = l + m S / B                                                      [seconds]
///
/// and while they arrive the processor multiplies what is there (`LayerTimeline`), at the share of its
/// rate that is left then: B_cpu,eff = B_H - B_used in FreeToken (arXiv 2608.16157), measured as a pair.
public struct CostModel: Sendable {
  public let profile: MachineProfile
  public let work: ModelWork
  /// Whether the weights that a token uses stay in the processor's cache from token to token.
  public let isCached: Bool

  /// - Parameter profile: without `fault`.
  public init(profile: MachineProfile, work: ModelWork) {
    precondition(profile.fault == nil, "an impossible profile")
    self.profile = profile
    self.work = work
    // Others use the cache too: what takes more than half of it comes from memory mostly.
    isCached = work.tokenByteCount < profile.machine.cacheBytes / 2
  }

  // MARK: - Decoding

  /// T(n) of some matrices, in seconds.
  public func productSeconds(_ matrices: [ModelWork.Weights], tokens: Double) -> Double {
    matrices.reduce(0) {
      $0 + Double($1.bytes)
        / profile.productBytesPerSecond($1.type, tokens: tokens, isCached: isCached)
    } / efficiency(tokens: tokens)
  }

  /// The share of the rates of products alone that is left in a model that runs: threads wait for each other
  /// at the end of every loop, and what comes between has to be fetched again.
  private func efficiency(tokens: Double) -> Double {
    guard !isCached else { return 1 }
    return interpolate(
      [(1, profile.decodeEfficiency.value), (32, profile.promptEfficiency.value)], at: tokens)
  }

  /// Seconds of the products of one expert of a mean layer with `tokens` tokens.
  public func expertSeconds(tokens: Double) -> Double {
    productSeconds(work.expertMatrices.flatMap { $0 }, tokens: tokens)
      / Double(max(1, work.layers))
  }

  /// Seconds of the matrices that every token uses, over all layers.
  public func denseSeconds(tokens: Double) -> Double { productSeconds(work.dense, tokens: tokens) }

  /// Seconds that one token's attention takes to look back on `positions`, over all layers.
  public func contextSeconds(positions: Double) -> Double {
    work.lookBackBytes(positions: positions) / profile.contextBytesPerSecond.value
  }

  /// The latency l and the bandwidth B of an expert's reads: with them a burst of one expert and one of
  /// all that a token needs of a layer take as long as was measured, with reads alone.
  public func reads(_ kind: ReadKind) -> (latency: Double, bytesPerSecond: Double)? {
    let block = work.meanReadByteCount
    let count = work.readCount
    guard let one = profile.burstSeconds(kind, blockBytes: block, count: count),
      let all = profile.burstSeconds(kind, blockBytes: block, count: count * max(2, work.topK))
    else { return nil }
    let bytes = Double(count * block)
    let slope = (all - one) / Double(max(2, work.topK) - 1)
    let rate = slope > 0 ? min(bytes / slope, 2 * bytes * Double(work.topK) / all) : bytes / one
    return (max(0, one - bytes / rate), rate)
  }

  /// The parts of a step that decodes a token of each of some sequences, for the simulation of it.
  ///
  /// - Parameters:
  ///   - kind: how reads are answered.
  ///   - positions: those of the context that a token looks back on, at the mean.
  ///   - step: the tokens of the step.
  /// - Returns: nil if reads of `kind` were not measured.
  public func hardware(
    reads kind: ReadKind, positions: Double, step: DecodeStep = DecodeStep()
  ) -> HardwareProfile? {
    guard let reads = reads(kind) else { return nil }
    let layers = Double(work.layers)
    let tokens = Double(step.tokens)
    var layer = profile.layerSeconds.value
    layer += (denseSeconds(tokens: tokens) + tokens * contextSeconds(positions: positions)) / layers
    // What a layer takes for one token beside its products is in its seconds.
    layer += (tokens - 1) * Double(work.hiddenSize) * profile.promptValueSeconds.value
    var hardware = HardwareProfile(
      name: profile.name, readBytesPerSecond: reads.bytesPerSecond,
      readLatencySeconds: reads.latency,
      computeBytesPerSecond: Double(work.meanExpertByteCount)
        / expertSeconds(tokens: step.tokensPerExpert),
      layerSeconds: layer,
      tokenSeconds: tokenSeconds(tokens: tokens))
    hardware.readsOccupyProcessor = kind == .cached
    hardware.readsPerExpert = work.readsPerExpert
    hardware.predictionSeconds = predictionSeconds
    if kind != .cached {
      hardware.handInSeconds = profile.handInSeconds.value
      hardware.readHandInSeconds = profile.readHandInSeconds.value
      hardware.computeShareWhileReading = min(1, profile.contention.computeShare.value)
      hardware.readShareWhileComputing = min(1, profile.contention.readShare.value)
    }
    return hardware
  }

  /// What a step takes beside its layers: output head, choosing the next token of each sequence.
  private func tokenSeconds(tokens: Double) -> Double {
    profile.tokenSeconds.value + productSeconds([work.head], tokens: tokens)
      + tokens * Double(work.vocabulary) * profile.samplingSeconds.value
  }

  /// A prediction: a product with a router, or with a head fitted to do better, which is as large, and what
  /// comes of it.
  private var predictionSeconds: Double {
    let router = ModelWork.Weights(type: "Q8_0", bytes: work.hiddenSize * work.experts * 34 / 32)
    return productSeconds([router], tokens: 1) + profile.predictionSeconds.value
  }

  // MARK: - Prompts

  /// What a prompt takes until the first token after it.
  public struct Prompt: Hashable, Sendable, Codable {
    public var seconds = 0.0
    /// Bytes of experts that are read.
    public var readBytes = 0.0
    /// Of these seconds, those in which nothing could be computed until bytes arrived.
    public var stallSeconds = 0.0
  }

  /// The seconds of a prompt, chunk by chunk, layer by layer.
  ///
  /// A layer reads the m of the u experts touched by its tokens that are not resident, several at a time,
  /// while it multiplies those that are there. While both go on, reads keep the share r of their rate and
  /// products c; what ends later has its whole rate from then on. The last expert that was read is
  /// multiplied when nothing is left to read, and nothing is multiplied before the first is there:
  ///
  ///     T_read = m S / B
  ///     T = T_dense(n) + T_read + (1 - r) T_experts / c + T_experts / u   if T_experts / c < T_read / r
  ///     T = T_dense(n) + T_experts + (1 - c) T_read / r + T_read / m      else
  ///
  /// What the page cache answers is copied by the processor: T = T_dense + T_experts + T_read.
  ///
  /// - Parameters:
  ///   - tokens: tokens of the prompt, at least one.
  ///   - kind: how reads are answered.
  ///   - touched: the experts of a mean layer that so many tokens touch together.
  ///   - resident: of all experts, the share that is resident once the prompt has filled the slots; before
  ///     its first chunk none is.
  public func prompt(
    tokens: Int, reads kind: ReadKind, touched: (Int) -> Double, resident: Double
  ) -> Prompt? {
    guard let steady = steadyBytesPerSecond(kind) else { return nil }
    var prompt = Prompt()
    var position = 0
    let layers = Double(work.layers)
    let expertBytes = Double(work.meanExpertByteCount)
    while position < tokens {
      let count = min(work.chunkTokens, tokens - position)
      let used = max(1, touched(count))
      let perExpert = Double(count * work.topK) / used
      let held = resident >= 1 ? 1 : position == 0 ? 0 : resident
      let bytes = used * (1 - held) * expertBytes
      let reading = bytes / steady
      let experts = used * expertSeconds(tokens: perExpert)
      let mixed =
        kind == .cached
        ? experts + reading
        : overlapped(reading: reading, experts: experts)
          + (reading > experts ? experts / used : min(reading, expertBytes / steady))
      prompt.seconds +=
        layers * (mixed + profile.layerSeconds.value)
        + chunkSeconds(tokens: count, position: position)
      prompt.stallSeconds += layers * (mixed - experts)
      prompt.readBytes += layers * bytes
      position += count
    }
    prompt.seconds += tokenSeconds(tokens: 1)
    return prompt
  }

  /// Seconds of reading and of a prompt's products that go on at once, from what each takes alone.
  private func overlapped(reading: Double, experts: Double) -> Double {
    let both = profile.promptContention.overlap(computing: experts, reading: reading)
    return both.seconds + (experts - both.computed) + (reading - both.read)
  }

  /// Seconds of a chunk of a prompt from `position` on beside its experts and what each layer takes anyway.
  private func chunkSeconds(tokens: Int, position: Int) -> Double {
    let lookBack = Double(position) + Double(tokens) / 2
    return denseSeconds(tokens: Double(tokens))
      + Double(tokens) * work.lookBackBytes(positions: lookBack)
      / profile.promptContextBytesPerSecond.value
      + Double(tokens * work.hiddenSize) * Double(work.layers) * profile.promptValueSeconds.value
  }

  /// Bytes per second of a long row of experts' matrices, as deep as was measured: what the drive gives at
  /// most, with nothing computed meanwhile; nil if reads of `kind` were not measured.
  public func steadyBytesPerSecond(_ kind: ReadKind) -> Double? {
    let rates = profile.disk.filter { $0.kind == kind }
    guard let depth = rates.map(\.depth).max() else { return nil }
    let row = rates.filter { $0.depth == depth }.sorted { $0.blockBytes < $1.blockBytes }
    return interpolate(
      row.map { (Double($0.blockBytes), $0.bytesPerSecond.value) },
      at: Double(work.meanReadByteCount))
  }

  /// The same while a token's products are computed; copying out of the page cache is computing itself.
  public func contendedBytesPerSecond(_ kind: ReadKind) -> Double? {
    steadyBytesPerSecond(kind).map {
      kind == .cached ? $0 : $0 * min(1, profile.contention.readShare.value)
    }
  }

  // MARK: - Calibration

  /// Takes the products out of what was measured with this model, every expert of which is resident: what
  /// is left is what a layer, a token and a prompt's token take beside.
  public func takeProducts(out profile: inout MachineProfile, tokens: Int) {
    let layers = Double(work.layers)
    profile.layerSeconds.value = max(0, profile.layerSeconds.value - layerProductSeconds)
    profile.tokenSeconds.value = max(
      0, profile.tokenSeconds.value - productSeconds([work.head], tokens: 1))
    let perExpert = Double(tokens * work.topK) / Double(work.experts)
    let many =
      denseSeconds(tokens: Double(tokens))
      + layers * Double(work.experts) * expertSeconds(tokens: perExpert)
    profile.promptValueSeconds.value = max(
      0, profile.promptValueSeconds.value - many / Double(tokens * work.hiddenSize) / layers)
  }

  /// Seconds of one token's products in a mean layer.
  public var layerProductSeconds: Double {
    denseSeconds(tokens: 1) / Double(work.layers) + Double(work.topK) * expertSeconds(tokens: 1)
  }

  /// The seconds of this model's layers when every expert is resident: of one token at the beginning of a
  /// context, and of `tokens` tokens of a prompt that use all experts. What they take measured, over this, is
  /// what products lose in a model that runs.
  public func residentSeconds(promptTokens tokens: Int) -> (decode: Double, prompt: Double) {
    let layers = Double(work.layers)
    let decode =
      denseSeconds(tokens: 1)
      + layers * (Double(work.topK) * expertSeconds(tokens: 1) + profile.layerSeconds.value)
    let perExpert = Double(tokens * work.topK) / Double(work.experts)
    let prompt =
      chunkSeconds(tokens: tokens, position: 0)
      + layers
      * (Double(work.experts) * expertSeconds(tokens: perExpert) + profile.layerSeconds.value)
    return (decode, prompt)
  }

  // MARK: - Bounds

  /// Tokens from which on fetching an expert over a device's link and multiplying there beats the
  /// processor: the smallest n with T_cpu(n) > T_link + T_device(n) (Fiddler, arXiv 2402.07033); nil if
  /// up to a whole chunk the processor is faster.
  public func fetchThreshold(_ device: DeviceRate) -> Int? {
    let bytes = Double(work.meanExpertByteCount)
    let link = device.linkSeconds + bytes / device.linkBytesPerSecond
    var tokens = 1
    while tokens <= work.chunkTokens {
      if expertSeconds(tokens: Double(tokens)) > link + deviceSeconds(device, tokens: tokens) {
        return tokens
      }
      tokens += 1
    }
    return nil
  }

  /// Seconds of one expert's products with `tokens` tokens on `device`.
  public func deviceSeconds(_ device: DeviceRate, tokens: Int) -> Double {
    // A weight is multiplied and added once for each token. Bytes per weight are those of the type; a
    // half of one, of four bits, asks for the most operations.
    let operations = Double(2 * tokens) * Double(work.meanExpertByteCount) * 2
    return device.launchSeconds
      + max(
        Double(work.meanExpertByteCount) / device.bytesPerSecond,
        operations / device.operationsPerSecond)
  }
}

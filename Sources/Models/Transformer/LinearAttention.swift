internal import Checkpoints
internal import ExpertRuntime
internal import Glibc
internal import Tensors

/// The weights of a layer whose attention is a gated delta network (arXiv 2412.06464), as Qwen3-Next has it:
/// queries, keys and values go through a short convolution, each head's matrix fades and is corrected by the
/// delta rule, and what the query reads is normalised and gated.
struct LinearProjections {
  /// What makes the rates by which heads learn and forget.
  enum Rates {
    case joint(Matrix)
    case apart(learning: Matrix, decay: Matrix)
  }

  let sizes: LinearAttention
  /// Queries, keys and values, [channels, hidden].
  let mixed: Matrix
  /// The gates of what is read, [values of all heads, hidden].
  let gate: Matrix
  let rates: Rates
  /// Of the convolution, [channels, width].
  let taps: UnsafePointer<Float>
  /// Added to what makes decay, and what that is multiplied by, [value heads]; the latter is below 0.
  let decayBias: UnsafePointer<Float>
  let decayScale: UnsafePointer<Float>
  /// Of what a head's query reads.
  let norm: UnsafePointer<Float>

  init(_ layer: Int, _ sizes: LinearAttention, weights: DenseWeights) {
    func matrix(_ part: String) -> Matrix { weights.matrix("blk.\(layer).\(part).weight") }
    func vector(_ part: String) -> UnsafePointer<Float> { weights.vector("blk.\(layer).\(part)") }
    self.sizes = sizes
    mixed = matrix("attn_qkv")
    gate = matrix("attn_gate")
    rates =
      sizes.joinsRates
      ? .joint(matrix("ssm_ba"))
      : .apart(learning: matrix("ssm_beta"), decay: matrix("ssm_alpha"))
    taps = vector("ssm_conv1d.weight")
    decayBias = vector("ssm_dt.bias")
    decayScale = vector("ssm_a")
    norm = vector("ssm_norm.weight")
  }
}

/// The working memory of such layers.
struct LinearBuffers {
  /// Queries, keys and values before the convolution and after it, [tokens, channels].
  let mixed: UnsafeMutablePointer<Float>
  let mixedRows: TransformerBuffers.Rows
  let convolved: UnsafeMutablePointer<Float>
  /// The gates, [tokens, values of all heads].
  let gate: UnsafeMutablePointer<Float>
  let gateRows: TransformerBuffers.Rows
  /// The rates, [tokens, 2 * value heads], and where those of decay begin, if they are made apart.
  let rates: UnsafeMutablePointer<Float>
  let rateRows: TransformerBuffers.Rows
  let decayRows: TransformerBuffers.Rows
  /// What heads read, normalised and gated.
  let read: ActivationRows
  private let sizes: LinearAttention

  init(
    _ sizes: LinearAttention, tokenCapacity: Int, kernels: Kernels, cursor: inout ScratchCursor
  ) {
    self.sizes = sizes
    mixed = cursor.take(tokenCapacity * sizes.channelCount)
    mixedRows = cursor.take(tokenCapacity)
    convolved = cursor.take(tokenCapacity * sizes.channelCount)
    gate = cursor.take(tokenCapacity * sizes.valueSize)
    gateRows = cursor.take(tokenCapacity)
    rates = cursor.take(tokenCapacity * 2 * sizes.valueHeadCount)
    rateRows = cursor.take(tokenCapacity)
    decayRows = cursor.take(tokenCapacity)
    read = ActivationRows(
      capacity: tokenCapacity, columns: sizes.valueSize, kernels: kernels, cursor: &cursor)
  }

  /// Fills the pointers that never change.
  func bind(tokenCapacity: Int) {
    for token in 0..<tokenCapacity {
      (mixedRows + token).initialize(to: mixed + token * sizes.channelCount)
      (gateRows + token).initialize(to: gate + token * sizes.valueSize)
      let rate = rates + token * 2 * sizes.valueHeadCount
      (rateRows + token).initialize(to: rate)
      (decayRows + token).initialize(to: rate + sizes.valueHeadCount)
    }
    read.bind(capacity: tokenCapacity)
  }
}

extension MoETransformer {
  /// What takes the place of attention for a chunk of tokens, whose normalised states are `buffers.input`.
  /// - Returns: what the heads read, for the output projection.
  func attend(_ projections: LinearProjections, block: Int, count: Int) -> ActivationRows {
    guard let own = buffers.linear, let state = recurrent else {
      preconditionFailure("no room for a recurrent state")
    }
    append(projections.mixed, of: buffers.input, into: own.mixedRows, count: count)
    append(projections.gate, of: buffers.input, into: own.gateRows, count: count)
    switch projections.rates {
    case .joint(let rates):
      append(rates, of: buffers.input, into: own.rateRows, count: count)
    case .apart(let learning, let decay):
      append(learning, of: buffers.input, into: own.rateRows, count: count)
      append(decay, of: buffers.input, into: own.decayRows, count: count)
    }
    batch.run()
    runtime.advanceReads()
    let loop = DeltaLoop(
      model: self, projections: projections, buffers: own, matrices: state.matrices(layer: block),
      channels: state.channels(layer: block), tokenCount: count)
    pool.run(loop.convolving, chunkCount: count)
    pool.run(loop, chunkCount: projections.sizes.valueHeadCount)
    loop.keepChannels()
    return own.read
  }
}

/// The delta rule for a chunk of tokens at one layer, one value head per chunk of the loop: a head goes through
/// the tokens one after the other, so that their bits do not depend on how a prompt was split.
struct DeltaLoop: ParallelWork {
  unowned let model: MoETransformer
  let projections: LinearProjections
  let buffers: LinearBuffers
  let matrices: (before: UnsafePointer<Float>, after: UnsafeMutablePointer<Float>)
  let channels: (before: UnsafePointer<Float>, after: UnsafeMutablePointer<Float>)
  let tokenCount: Int

  private var sizes: LinearAttention { projections.sizes }

  static var body: WorkerPool.Body {
    { pointer, chunk, _ in
      pointer.assumingMemoryBound(to: DeltaLoop.self).pointee.perform(head: chunk)
    }
  }

  private func perform(head: Int) {
    let (dimension, sizes) = (sizes.dimension, sizes)
    let kernels = model.kernels
    let size = dimension * dimension
    let (key, rates) = (sizes.keyHead(of: head) * dimension, sizes.rates(of: head))
    var before = matrices.before + head * size
    let after = matrices.after + head * size
    for token in 0..<tokenCount {
      let row = buffers.convolved + token * sizes.channelCount
      let out = buffers.read.row(token) + head * dimension
      kernels.delta(
        dimension: dimension, before: before, after: after, key: row + sizes.keySize + key,
        query: row + key, value: row + 2 * sizes.keySize + head * dimension,
        decay: buffers.rateRows[token][rates.decay],
        rate: buffers.rateRows[token][rates.learning], into: out)
      before = UnsafePointer(after)
      kernels.rmsNorm(
        out, weight: projections.norm, into: out, count: dimension,
        epsilon: model.description.rmsEpsilon)
      kernels.siluMultiply(
        gate: buffers.gateRows[token] + head * dimension, up: out, into: out, count: dimension)
    }
  }

  /// The loop that goes before, per token: the convolution, the length of queries and keys, the rates.
  var convolving: Convolving { Convolving(loop: self) }

  struct Convolving: ParallelWork {
    let loop: DeltaLoop

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in
        pointer.assumingMemoryBound(to: Convolving.self).pointee.loop.prepare(token: chunk)
      }
    }
  }

  private func prepare(token: Int) {
    let sizes = sizes
    let row = buffers.convolved + token * sizes.channelCount
    let width = sizes.convolutionWidth
    withUnsafeTemporaryAllocation(of: UnsafePointer<Float>.self, capacity: width) { rows in
      for tap in 0..<width { rows[tap] = self.mixed(token - width + 1 + tap) }
      model.kernels.convolve(
        rows.baseAddress!, taps: projections.taps, width: width, into: row,
        count: sizes.channelCount)
    }
    let scale = 1 / Float(sizes.dimension).squareRoot()
    for head in 0..<sizes.keyHeadCount {
      let query = row + head * sizes.dimension
      makeUnit(query, times: scale)
      makeUnit(query + sizes.keySize, times: 1)
    }
    let rates = buffers.rateRows[token]
    for head in 0..<sizes.valueHeadCount {
      let place = sizes.rates(of: head)
      rates[place.learning] = 1 / (1 + exp(-rates[place.learning]))
      let raw = rates[place.decay] + projections.decayBias[head]
      let softened = raw > 20 ? raw : log1p(exp(raw))
      rates[place.decay] = exp(projections.decayScale[head] * softened)
    }
  }

  /// The channels of a token of the chunk, or from -1 downwards of those before it.
  private func mixed(_ token: Int) -> UnsafePointer<Float> {
    token >= 0
      ? UnsafePointer(buffers.mixedRows[token])
      : channels.before + (sizes.convolutionWidth - 1 + token) * sizes.channelCount
  }

  /// Gives a vector the length `scale`.
  private func makeUnit(_ x: UnsafeMutablePointer<Float>, times scale: Float) {
    var sum: Float = 0
    for index in 0..<sizes.dimension { sum += x[index] * x[index] }
    let factor = scale / (sum + 1e-6).squareRoot()
    for index in 0..<sizes.dimension { x[index] *= factor }
  }

  /// Keeps the channels that the convolution of the next tokens sees.
  func keepChannels() {
    let kept = sizes.convolutionWidth - 1
    for place in 0..<kept {
      (channels.after + place * sizes.channelCount).update(
        from: mixed(tokenCount - kept + place), count: sizes.channelCount)
    }
  }
}

package import Checkpoints
internal import DirectIO
package import ExpertRuntime
package import Tensors

/// The working memory of a transformer outside its experts, for a chunk of tokens.
package struct TransformerBuffers {
  /// Rows of logits computed at a time.
  static let logitRowCount = 8

  /// The residual stream, [tokens, hidden].
  let residual: UnsafeMutablePointer<Float>
  /// What a layer half adds to it, [tokens, hidden].
  let branch: UnsafeMutablePointer<Float>
  /// Normalised residual rows.
  let input: ActivationRows
  /// Attention outputs, [tokens, all heads' values].
  let mixed: ActivationRows
  let query: UnsafeMutablePointer<Float>
  let key: UnsafeMutablePointer<Float>
  let value: UnsafeMutablePointer<Float>
  /// For latent attention; nil without it.
  let latent: LatentBuffers?
  /// For layers with a recurrent state; nil without such.
  let linear: LinearBuffers?
  /// Rotation of each token's position, [tokens, dimension / 2].
  let cosines: UnsafeMutablePointer<Float>
  let sines: UnsafeMutablePointer<Float>
  /// Attention scores of a block of tokens for each worker, [threads, block, positions + 1].
  private let allScores: UnsafeMutablePointer<Float>
  private let scoresOfWorker: Int
  let router: UnsafeMutablePointer<Float>
  /// A token's probabilities with their correction, [experts].
  let choice: UnsafeMutableBufferPointer<Float>
  /// Outputs of the shared expert, [tokens, hidden]; nothing without one.
  let shared: UnsafeMutablePointer<Float>
  let sharedNetwork: FeedForwardBuffers
  /// For the networks of layers without experts.
  let denseNetwork: FeedForwardBuffers
  let logits: UnsafeMutablePointer<Float>

  typealias Rows = UnsafeMutablePointer<UnsafeMutablePointer<Float>>
  let branchRows: Rows
  let queryRows: Rows
  let keyRows: Rows
  let valueRows: Rows
  let routerRows: Rows
  let sharedRows: Rows
  let logitRows: Rows

  private let memory: Arena?

  /// The bytes of the buffers.
  package static func byteCount(
    _ model: ModelDescription, tokenCapacity: Int, positions: Int, threadCount: Int,
    kernels: Kernels
  ) -> Int {
    ScratchCursor.measure { cursor in
      _ = TransformerBuffers(
        model, tokenCapacity: tokenCapacity, positions: positions, threadCount: threadCount,
        kernels: kernels, cursor: &cursor, memory: nil)
    }
  }

  /// Allocates the buffers.
  package init(
    _ model: ModelDescription, tokenCapacity: Int, positions: Int, threadCount: Int,
    kernels: Kernels, ledger: MemoryLedger
  ) throws(RuntimeError) {
    let byteCount = Self.byteCount(
      model, tokenCapacity: tokenCapacity, positions: positions, threadCount: threadCount,
      kernels: kernels)
    let memory = try ledger.allocate("activations", byteCount: byteCount, isTouched: true)
    var cursor = ScratchCursor(memory.region(offset: 0, count: memory.byteCount))
    self.init(
      model, tokenCapacity: tokenCapacity, positions: positions, threadCount: threadCount,
      kernels: kernels, cursor: &cursor, memory: memory)
    bind(model, tokenCapacity: tokenCapacity)
  }

  private init(
    _ model: ModelDescription, tokenCapacity: Int, positions: Int, threadCount: Int,
    kernels: Kernels, cursor: inout ScratchCursor, memory: Arena?
  ) {
    self.memory = memory
    let pairs = model.rotaryDimension / 2
    residual = cursor.take(tokenCapacity * model.hiddenSize)
    branch = cursor.take(tokenCapacity * model.hiddenSize)
    // The output head reuses `input`, which then holds rows of logits' inputs.
    let inputCapacity = max(tokenCapacity, Self.logitRowCount)
    input = ActivationRows(
      capacity: inputCapacity, columns: model.hiddenSize, kernels: kernels, cursor: &cursor)
    mixed = ActivationRows(
      capacity: tokenCapacity, columns: model.attentionSize, kernels: kernels, cursor: &cursor)
    query = cursor.take(tokenCapacity * model.querySize)
    key = cursor.take(tokenCapacity * model.kvHeadCount * model.cachedKeySize)
    value = cursor.take(tokenCapacity * model.kvHeadCount * model.cachedValueSize)
    latent = model.latent.map {
      LatentBuffers(
        $0, heads: model.headCount, tokenCapacity: tokenCapacity, kernels: kernels, cursor: &cursor)
    }
    linear = model.linear.map {
      LinearBuffers($0, tokenCapacity: tokenCapacity, kernels: kernels, cursor: &cursor)
    }
    cosines = cursor.take(tokenCapacity * pairs)
    sines = cursor.take(tokenCapacity * pairs)
    scoresOfWorker = min(Kernels.attentionBlockTokens, tokenCapacity) * (positions + 1)
    allScores = cursor.take(threadCount * scoresOfWorker)
    router = cursor.take(tokenCapacity * model.expertCount)
    let choiceCount =
      model.router.hasCorrection || model.router.groups > 1 ? model.expertCount : 0
    choice = UnsafeMutableBufferPointer(start: cursor.take(choiceCount), count: choiceCount)
    let sharedCount = model.sharedFeedForwardSize == 0 ? 0 : tokenCapacity
    shared = cursor.take(sharedCount * model.hiddenSize)
    sharedRows = cursor.take(sharedCount)
    sharedNetwork = FeedForwardBuffers(
      capacity: tokenCapacity, size: model.sharedFeedForwardSize, kernels: kernels, cursor: &cursor)
    denseNetwork = FeedForwardBuffers(
      capacity: tokenCapacity, size: model.denseFeedForwardSize, kernels: kernels, cursor: &cursor)
    logits = cursor.take(Self.logitRowCount * model.vocabularySize)
    branchRows = cursor.take(tokenCapacity)
    queryRows = cursor.take(tokenCapacity)
    keyRows = cursor.take(tokenCapacity)
    valueRows = cursor.take(tokenCapacity)
    routerRows = cursor.take(tokenCapacity)
    logitRows = cursor.take(Self.logitRowCount)
  }

  /// Room for the attention scores of a block of tokens that `worker` computes.
  func scores(worker: Int) -> UnsafeMutablePointer<Float> { allScores + worker * scoresOfWorker }

  /// Fills the pointers that never change.
  private func bind(_ model: ModelDescription, tokenCapacity: Int) {
    func point(_ rows: Rows, at base: UnsafeMutablePointer<Float>, width: Int, count: Int) {
      for row in 0..<count { (rows + row).initialize(to: base + row * width) }
    }
    let keys = model.kvHeadCount * model.cachedKeySize
    let values = model.kvHeadCount * model.cachedValueSize
    point(branchRows, at: branch, width: model.hiddenSize, count: tokenCapacity)
    point(queryRows, at: query, width: model.querySize, count: tokenCapacity)
    point(keyRows, at: key, width: keys, count: tokenCapacity)
    point(valueRows, at: value, width: values, count: tokenCapacity)
    latent?.bind(tokenCapacity: tokenCapacity)
    linear?.bind(tokenCapacity: tokenCapacity)
    point(routerRows, at: router, width: model.expertCount, count: tokenCapacity)
    point(logitRows, at: logits, width: model.vocabularySize, count: Self.logitRowCount)
    if model.sharedFeedForwardSize > 0 {
      point(sharedRows, at: shared, width: model.hiddenSize, count: tokenCapacity)
    }
    sharedNetwork.bind(capacity: tokenCapacity, size: model.sharedFeedForwardSize)
    denseNetwork.bind(capacity: tokenCapacity, size: model.denseFeedForwardSize)
    input.bind(capacity: max(tokenCapacity, Self.logitRowCount))
    mixed.bind(capacity: tokenCapacity)
  }
}

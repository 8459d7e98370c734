internal import Checkpoints
internal import ExpertRuntime
internal import Tensors

/// The weights of latent attention (arXiv 2405.04434, section 2.1), in the absorbed form: queries are taken into
/// the space of the compressed rows, in which all heads attend to the same rows, and results out of it.
struct LatentProjections {
  /// What queries are made of, by way of a compressed one or at once.
  enum Query {
    case direct(Matrix)
    case compressed(down: Matrix, norm: UnsafePointer<Float>, up: Matrix)
  }

  let sizes: LatentAttention
  let query: Query
  /// The compressed row and the rotated part of its keys, [rank + rotated, hidden].
  let row: Matrix
  let rowNorm: UnsafePointer<Float>
  /// Of each head: takes the plain part of a query into the space of rows, [rank, plain].
  let intoRows: [Matrix]
  /// Of each head: takes a mean of rows to a value, [values, rank].
  let outOfRows: [Matrix]

  init(_ layer: Int, _ latent: LatentAttention, weights: DenseWeights) {
    func matrix(_ part: String) -> Matrix { weights.matrix("blk.\(layer).\(part).weight") }
    func vector(_ part: String) -> UnsafePointer<Float> {
      weights.vector("blk.\(layer).\(part).weight")
    }
    sizes = latent
    query =
      latent.queryRank == nil
      ? .direct(matrix("attn_q"))
      : .compressed(
        down: matrix("attn_q_a"), norm: vector("attn_q_a_norm"), up: matrix("attn_q_b"))
    row = matrix("attn_kv_a_mqa")
    rowNorm = vector("attn_kv_a_norm")
    intoRows = matrix("attn_k_b").parts(rows: latent.keyValueRank)
    outOfRows = matrix("attn_v_b").parts(rows: latent.valueDimension)
  }
}

extension Matrix {
  /// The matrices of `rows` rows that lie one after the other.
  fileprivate func parts(rows: Int) -> [Matrix] {
    let byteCount = rows * (type.byteCount(valueCount: columns) ?? 0)
    return (0..<self.rows / rows).map { part in
      let own = scales.map {
        BlockScales(
          values: $0.values + part * ((rows + $0.rows - 1) / $0.rows) * $0.stride, rows: $0.rows,
          columns: $0.columns, stride: $0.stride)
      }
      return Matrix(
        bytes: bytes + part * byteCount, type: type, rows: rows, columns: columns, scales: own)
    }
  }
}

/// The working memory of latent attention. Rows of heads are in the order [heads][tokens of a block].
struct LatentBuffers {
  /// Tokens that are taken together: whole blocks of attention.
  static let blockTokens = 4 * Kernels.attentionBlockTokens

  /// Compressed queries, [tokens, rank].
  let compressed: ActivationRows
  let compressedRows: TransformerBuffers.Rows
  /// The plain parts of queries.
  let plain: ActivationRows
  /// Queries in the space of rows, with the rotated part, and pointers to them.
  let absorbed: UnsafeMutablePointer<Float>
  let absorbedRows: TransformerBuffers.Rows
  /// Means of rows.
  let mean: ActivationRows
  let meanRows: TransformerBuffers.Rows
  /// Where each head's value of each token goes.
  let valueRows: TransformerBuffers.Rows
  private let queryRank: Int
  private let rowSize: Int
  private let rowCount: Int

  init(
    _ latent: LatentAttention, heads: Int, tokenCapacity: Int, kernels: Kernels,
    cursor: inout ScratchCursor
  ) {
    queryRank = latent.queryRank ?? 0
    rowSize = latent.rowSize
    rowCount = heads * min(tokenCapacity, Self.blockTokens)
    let capacity = queryRank == 0 ? 0 : tokenCapacity
    compressed = ActivationRows(
      capacity: capacity, columns: queryRank, kernels: kernels, cursor: &cursor)
    compressedRows = cursor.take(capacity)
    plain = ActivationRows(
      capacity: rowCount, columns: latent.plainDimension, kernels: kernels, cursor: &cursor)
    absorbed = cursor.take(rowCount * rowSize)
    absorbedRows = cursor.take(rowCount)
    mean = ActivationRows(
      capacity: rowCount, columns: latent.keyValueRank, kernels: kernels, cursor: &cursor)
    meanRows = cursor.take(rowCount)
    valueRows = cursor.take(rowCount)
  }

  /// Fills the pointers that never change.
  func bind(tokenCapacity: Int) {
    if queryRank > 0 {
      compressed.bind(capacity: tokenCapacity)
      for row in 0..<tokenCapacity { (compressedRows + row).initialize(to: compressed.row(row)) }
    }
    plain.bind(capacity: rowCount)
    mean.bind(capacity: rowCount)
    for row in 0..<rowCount {
      (absorbedRows + row).initialize(to: absorbed + row * rowSize)
      (meanRows + row).initialize(to: mean.row(row))
    }
  }
}

extension MoETransformer {
  /// Latent attention of a chunk of tokens, whose normalised states are `buffers.input`, into `buffers.mixed`.
  func attend(_ projections: LatentProjections, block: Int, position: Int, count: Int) {
    guard let own = buffers.latent else { preconditionFailure("no room for latent attention") }
    append(projections.row, of: buffers.input, into: buffers.keyRows, count: count)
    switch projections.query {
    case .direct(let query):
      append(query, of: buffers.input, into: buffers.queryRows, count: count)
      batch.run()
    case .compressed(let down, let norm, let up):
      append(down, of: buffers.input, into: own.compressedRows, count: count)
      batch.run()
      for token in 0..<count {
        let row = own.compressed.row(token)
        kernels.rmsNorm(
          row, weight: norm, into: row, count: down.rows, epsilon: description.rmsEpsilon)
      }
      own.compressed.quantize(0..<count, kernels: kernels, pool: pool)
      append(up, of: own.compressed, into: buffers.queryRows, count: count)
      batch.run()
    }
    runtime.advanceReads()
    for first in stride(from: 0, to: count, by: LatentBuffers.blockTokens) {
      let heads = LatentAttentionLoop(
        model: self, projections: projections, buffers: own, layer: block,
        position: position, first: first,
        tokenCount: min(LatentBuffers.blockTokens, count - first))
      pool.run(heads.splitting, chunkCount: heads.tokenCount)
      multiply(
        projections.intoRows, of: own.plain, into: own.absorbedRows, count: heads.tokenCount)
      pool.run(heads, chunkCount: heads.chunkCount)
      runtime.advanceReads()
      multiply(projections.outOfRows, of: own.mean, into: own.valueRows, count: heads.tokenCount)
    }
  }

  /// Multiplies each head's matrix by its rows of `input`.
  private func multiply(
    _ matrices: [Matrix], of input: ActivationRows, into rows: TransformerBuffers.Rows, count: Int
  ) {
    if matrices[0].type.wantsQuantizedActivations {
      input.quantize(0..<matrices.count * count, kernels: kernels, pool: pool)
    }
    for (head, matrix) in matrices.enumerated() {
      batch.append(
        Product(
          matrix, activations: input.rows(for: matrix.type) + head * count,
          outputs: UnsafePointer(rows + head * count), tokenCount: count))
    }
    batch.run()
  }
}

/// Attention of some tokens at one layer in the space of compressed rows, one (block of tokens, head) pair per
/// chunk of the loop. A row is key and, without its rotated part, value of every head.
struct LatentAttentionLoop: ParallelWork {
  unowned let model: MoETransformer
  let projections: LatentProjections
  let buffers: LatentBuffers
  let layer: Int
  let position: Int
  /// The first of the tokens, in the chunk.
  let first: Int
  let tokenCount: Int

  private var latent: LatentAttention { projections.sizes }

  /// The chunks of the loop.
  var chunkCount: Int {
    let block = Kernels.attentionBlockTokens
    return (tokenCount + block - 1) / block * model.description.headCount
  }

  static var body: WorkerPool.Body {
    { pointer, chunk, worker in
      pointer.assumingMemoryBound(to: LatentAttentionLoop.self).pointee
        .perform(chunk, worker: worker)
    }
  }

  private func perform(_ chunk: Int, worker: Int) {
    let shape = model.description
    let begin = chunk / shape.headCount * Kernels.attentionBlockTokens
    let head = chunk % shape.headCount
    let rows = model.cache.keys(layer: layer, head: 0)
    var attended = AttentionHead(
      keys: rows, values: rows, isHalf: model.cache.type == .f16, dimension: latent.rowSize,
      scale: shape.attentionScale)
    attended.valueDimension = latent.keyValueRank
    let scores = model.buffers.scores(worker: worker)
    let row = head * tokenCount + begin
    let before = position + first + begin
    if tokenCount == 1 {
      model.kernels.attention(
        attended, query: buffers.absorbedRows[row], positions: before + 1, scores: scores,
        into: buffers.meanRows[row])
      return
    }
    let count = min(Kernels.attentionBlockTokens, tokenCount - begin)
    let queries = buffers.absorbedRows + row
    queries.withMemoryRebound(to: UnsafePointer<Float>.self, capacity: count) {
      model.kernels.attentionBlock(
        attended, queries: $0, positionsBefore: before, tokens: count, scores: scores,
        outputs: UnsafePointer(buffers.meanRows + row))
    }
  }

  /// The loop that goes before: per token, the norm and rotation of its row and its store, and the parts of
  /// its queries.
  var splitting: Splitting { Splitting(attention: self) }

  struct Splitting: ParallelWork {
    let attention: LatentAttentionLoop

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in
        pointer.assumingMemoryBound(to: Splitting.self).pointee.attention.split(token: chunk)
      }
    }
  }

  private func split(token: Int) {
    let shape = model.description
    let chunkToken = first + token
    let row = model.buffers.keyRows[chunkToken]
    model.kernels.rmsNorm(
      row, weight: projections.rowNorm, into: row, count: latent.keyValueRank,
      epsilon: shape.rmsEpsilon)
    rotate(row + latent.keyValueRank, token: chunkToken)
    model.cache.store(
      row, count: latent.rowSize, at: position + chunkToken,
      of: model.cache.keys(layer: layer, head: 0), kernels: model.kernels)
    for head in 0..<shape.headCount {
      let query = model.buffers.queryRows[chunkToken] + head * latent.queryDimension
      let place = head * tokenCount + token
      buffers.plain.row(place).update(from: query, count: latent.plainDimension)
      let rotated = buffers.absorbedRows[place] + latent.keyValueRank
      rotated.update(from: query + latent.plainDimension, count: latent.rotaryDimension)
      rotate(rotated, token: chunkToken)
      (buffers.valueRows + place).initialize(
        to: model.buffers.mixed.row(chunkToken) + head * latent.valueDimension)
    }
  }

  private func rotate(_ values: UnsafeMutablePointer<Float>, token: Int) {
    let pairs = latent.rotaryDimension / 2
    model.kernels.ropeOfNeighbours(
      values, cosines: model.buffers.cosines + token * pairs,
      sines: model.buffers.sines + token * pairs, dimension: latent.rotaryDimension)
  }
}

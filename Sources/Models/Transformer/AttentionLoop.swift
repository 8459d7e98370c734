internal import Checkpoints
internal import Tensors

/// Attention of a chunk of tokens at one layer, one (block of tokens, query head) pair per chunk of
/// the loop.
///
/// Query heads share key and value heads in groups (arXiv 2305.13245). Blocks begin at the chunk's
/// first token, so the threads have no say in which tokens share one.
struct AttentionLoop: ParallelWork {
  unowned let model: MoETransformer
  let projections: TransformerLayer.Projections
  let layer: Int
  let position: Int
  let tokenCount: Int

  /// The chunks of the loop.
  var chunkCount: Int {
    let block = Kernels.attentionBlockTokens
    return (tokenCount + block - 1) / block * model.description.headCount
  }

  static var body: WorkerPool.Body {
    { pointer, chunk, worker in
      pointer.assumingMemoryBound(to: AttentionLoop.self).pointee.perform(chunk, worker: worker)
    }
  }

  private func perform(_ chunk: Int, worker: Int) {
    let shape = model.description
    let first = chunk / shape.headCount * Kernels.attentionBlockTokens
    let head = chunk % shape.headCount
    let shared = head / (shape.headCount / shape.kvHeadCount)
    let dimension = shape.headDimension
    var attended = AttentionHead(
      keys: model.cache.keys(layer: layer, head: shared),
      values: model.cache.values(layer: layer, head: shared),
      isHalf: model.cache.type == .f16, dimension: dimension, scale: shape.attentionScale)
    attended.window = shape.window(ofLayer: layer)
    attended.sink = model.layers[layer].sinks?[head]
    let buffers = model.buffers
    let scores = buffers.scores(worker: worker)
    if tokenCount == 1 {
      model.kernels.attention(
        attended, query: buffers.queryRows[0] + head * shape.queryStride, positions: position + 1,
        scores: scores, into: buffers.mixed.row(0) + head * dimension)
      gate(head: head, token: 0)
      return
    }
    let count = min(Kernels.attentionBlockTokens, tokenCount - first)
    withUnsafeTemporaryAllocation(
      of: UnsafeMutablePointer<Float>.self, capacity: 2 * count
    ) { rows in
      for token in 0..<count {
        rows[token] = buffers.queryRows[first + token] + head * shape.queryStride
        rows[count + token] = buffers.mixed.row(first + token) + head * dimension
      }
      let base = rows.baseAddress!
      base.withMemoryRebound(to: UnsafePointer<Float>.self, capacity: count) { queries in
        model.kernels.attentionBlock(
          attended, queries: queries, positionsBefore: position + first, tokens: count,
          scores: scores, outputs: UnsafePointer(base + count))
      }
    }
    for token in first..<first + count { gate(head: head, token: token) }
  }

  /// Weighs what a head gives by the gates that came with its query.
  private func gate(head: Int, token: Int) {
    let shape = model.description
    guard shape.gatesAttention else { return }
    let out = model.buffers.mixed.row(token) + head * shape.headDimension
    let gates =
      model.buffers.queryRows[token] + head * shape.queryStride + shape.headDimension
    model.kernels.sigmoidMultiply(gate: gates, up: out, into: out, count: shape.headDimension)
  }

  /// The loop that goes before: per token, norms and rotation of queries and keys, and the store
  /// of keys and values.
  var storing: Storing { Storing(attention: self) }

  struct Storing: ParallelWork {
    let attention: AttentionLoop

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in
        pointer.assumingMemoryBound(to: Storing.self).pointee.attention.prepare(token: chunk)
      }
    }
  }

  private func prepare(token: Int) {
    let shape = model.description
    let query = model.buffers.queryRows[token]
    let key = model.buffers.keyRows[token]
    let value = model.buffers.valueRows[token]
    if let biases = projections.biases {
      model.kernels.add(biases.query, to: query, count: shape.querySize)
      model.kernels.add(biases.key, to: key, count: shape.keyValueSize)
      model.kernels.add(biases.value, to: value, count: shape.keyValueSize)
    }
    if let norms = projections.norms {
      normalize(query, heads: shape.headCount, stride: shape.queryStride, weight: norms.query)
      normalize(key, heads: shape.kvHeadCount, stride: shape.headDimension, weight: norms.key)
    }
    if let limit = shape.qkvClamp {
      model.kernels.clamp(query, limit: limit, count: shape.headCount * shape.headDimension)
      model.kernels.clamp(key, limit: limit, count: shape.kvHeadCount * shape.headDimension)
      model.kernels.clamp(value, limit: limit, count: shape.kvHeadCount * shape.headDimension)
    }
    rotate(query, heads: shape.headCount, stride: shape.queryStride, token: token)
    rotate(key, heads: shape.kvHeadCount, stride: shape.headDimension, token: token)
    for head in 0..<shape.kvHeadCount {
      model.cache.store(
        key + head * shape.headDimension, count: shape.headDimension, at: position + token,
        of: model.cache.keys(layer: layer, head: head), kernels: model.kernels)
      model.cache.store(
        value + head * shape.headDimension, count: shape.headDimension, at: position + token,
        of: model.cache.values(layer: layer, head: head), kernels: model.kernels)
    }
  }

  private func normalize(
    _ row: UnsafeMutablePointer<Float>, heads: Int, stride: Int, weight: UnsafePointer<Float>
  ) {
    let shape = model.description
    let dimension = shape.headDimension
    switch shape.queryKeyNorm {
    case nil: break
    case .projection:
      model.kernels.rmsNorm(
        row, weight: weight, into: row, count: heads * dimension, epsilon: shape.rmsEpsilon)
    case .head:
      for head in 0..<heads {
        let start = row + head * stride
        model.kernels.rmsNorm(
          start, weight: weight, into: start, count: dimension, epsilon: shape.rmsEpsilon)
      }
    }
  }

  private func rotate(
    _ row: UnsafeMutablePointer<Float>, heads: Int, stride: Int, token: Int
  ) {
    let shape = model.description
    let pairs = shape.rotaryDimension / 2
    let cosines = model.buffers.cosines + token * pairs
    let sines = model.buffers.sines + token * pairs
    for head in 0..<heads {
      let start = row + head * stride
      switch shape.rotaryPairs {
      case .halves:
        model.kernels.rope(
          start, cosines: cosines, sines: sines, dimension: shape.rotaryDimension)
      case .neighbours:
        model.kernels.ropeOfNeighbours(
          start, cosines: cosines, sines: sines, dimension: shape.rotaryDimension)
      }
    }
  }
}

internal import Checkpoints
internal import Tensors

/// Attention of a chunk of tokens at one layer, one (token, query head) pair per chunk of the loop.
///
/// Query heads share key and value heads in groups (arXiv 2305.13245).
struct AttentionLoop: ParallelWork {
  unowned let model: MoETransformer
  let layer: Int
  let position: Int

  static var body: WorkerPool.Body {
    { pointer, chunk, worker in
      pointer.assumingMemoryBound(to: AttentionLoop.self).pointee.perform(chunk, worker: worker)
    }
  }

  private func perform(_ chunk: Int, worker: Int) {
    let shape = model.description
    let token = chunk / shape.headCount
    let head = chunk % shape.headCount
    let shared = head / (shape.headCount / shape.kvHeadCount)
    let dimension = shape.headDimension
    model.kernels.attention(
      query: model.buffers.queryRows[token] + head * dimension,
      keys: model.cache.keys(layer: layer, head: shared),
      values: model.cache.values(layer: layer, head: shared),
      half: model.cache.type == .f16, positions: position + token + 1, dimension: dimension,
      scale: 1 / Float(dimension).squareRoot(),
      scores: model.buffers.scores + worker * model.cache.capacity,
      into: model.buffers.mixed.row(token) + head * dimension)
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
    let weights = model.layers[layer]
    let query = model.buffers.queryRows[token]
    let key = model.buffers.keyRows[token]
    let value = model.buffers.valueRows[token]
    normalize(query, heads: shape.headCount, weight: weights.queryNorm)
    normalize(key, heads: shape.kvHeadCount, weight: weights.keyNorm)
    if let limit = shape.qkvClamp {
      model.kernels.clamp(query, limit: limit, count: shape.headCount * shape.headDimension)
      model.kernels.clamp(key, limit: limit, count: shape.kvHeadCount * shape.headDimension)
      model.kernels.clamp(value, limit: limit, count: shape.kvHeadCount * shape.headDimension)
    }
    rotate(query, heads: shape.headCount, token: token)
    rotate(key, heads: shape.kvHeadCount, token: token)
    for head in 0..<shape.kvHeadCount {
      model.cache.store(
        key + head * shape.headDimension, at: position + token,
        of: model.cache.keys(layer: layer, head: head), kernels: model.kernels)
      model.cache.store(
        value + head * shape.headDimension, at: position + token,
        of: model.cache.values(layer: layer, head: head), kernels: model.kernels)
    }
  }

  private func normalize(
    _ row: UnsafeMutablePointer<Float>, heads: Int, weight: UnsafePointer<Float>
  ) {
    let shape = model.description
    let dimension = shape.headDimension
    switch shape.queryKeyNorm {
    case .projection:
      model.kernels.rmsNorm(
        row, weight: weight, into: row, count: heads * dimension, epsilon: shape.rmsEpsilon)
    case .head:
      for head in 0..<heads {
        let start = row + head * dimension
        model.kernels.rmsNorm(
          start, weight: weight, into: start, count: dimension, epsilon: shape.rmsEpsilon)
      }
    }
  }

  private func rotate(_ row: UnsafeMutablePointer<Float>, heads: Int, token: Int) {
    let dimension = model.description.headDimension
    for head in 0..<heads {
      model.kernels.rope(
        row + head * dimension, cosines: model.buffers.cosines + token * (dimension / 2),
        sines: model.buffers.sines + token * (dimension / 2), dimension: dimension)
    }
  }
}

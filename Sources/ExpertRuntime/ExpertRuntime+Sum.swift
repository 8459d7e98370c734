internal import Residency
internal import Routing
internal import Tensors

extension ExpertRuntime {
  /// output[t] = sum of weight * expert output, in routing order.
  func sum(_ routing: borrowing Routing, into output: UnsafeMutablePointer<Float>) {
    routing.weights.withUnsafeBufferPointer { weights in
      let loop = SumLoop(
        buffers: buffers, weights: weights.baseAddress!, output: output, hiddenSize: hiddenSize,
        kernels: kernels)
      if routing.tokenCount == 1 {
        loop.perform(token: 0)
      } else {
        pool.run(loop, chunkCount: routing.tokenCount)
      }
    }
  }

  private struct SumLoop: ParallelWork {
    let buffers: LayerBuffers
    /// [tokens, topK].
    let weights: UnsafePointer<Float>
    let output: UnsafeMutablePointer<Float>
    let hiddenSize: Int
    let kernels: Kernels

    static var body: WorkerPool.Body {
      { pointer, chunk, _ in
        pointer.assumingMemoryBound(to: SumLoop.self).pointee.perform(token: chunk)
      }
    }

    func perform(token: Int) {
      let row = output + token * hiddenSize
      row.update(repeating: 0, count: hiddenSize)
      for pair in token * buffers.topK..<(token + 1) * buffers.topK {
        kernels.add(
          buffers.outputRows[Int(buffers.position[pair])], scaledBy: weights[pair], to: row,
          count: hiddenSize)
      }
    }
  }
}

internal import Residency
internal import Routing
internal import Tensors

/// How the experts of a prompt pass through the slots.
///
/// A prompt touches most experts of a layer, so with few slots nearly all are read, each once for
/// all tokens of a chunk. They flow through a window of slots: while one half is multiplied the
/// other is read. What decoding has earned stays: those resident are used where they are, and the
/// window is at the old end of the eviction order.
extension ExpertRuntime {
  /// The bytes of a wave, half a window: enough reads to keep a disk busy.
  private static let waveByteCount = 16 << 20

  /// The most experts of a stream that are being read or multiplied at a time: two waves of at least
  /// four, but no more than an eighth of the slots where there are many.
  static func streamWindow(slotCount: Int, expertByteCount: Int) -> Int {
    let wanted = 2 * waveByteCount / max(1, expertByteCount)
    return min(slotCount, max(8, min(wanted, slotCount / 8)))
  }

  /// Orders the touched experts for a stream: those resident first, so that none of them is evicted
  /// before its turn, then the others in file order. While there are spare slots, the layer keeps
  /// its share of them for the experts with the most tokens: something to begin decoding with.
  func orderStream(layer: Int) {
    let residents = buffers.moveFirst { expert in
      cache.isResident(ExpertID(layer: layer, expert: expert))
    }
    for index in 0..<buffers.touchedCount { isKept[index] = false }
    let spare = cache.spareSlotCount(layer: layer) - streamWindow
    let share = min(max(1, slotPlan.slotCount / layerCount) - residents, spare)
    guard share > 0 else { return }
    let byTokens = (residents..<buffers.touchedCount).sorted {
      let (a, b) = (buffers.places(of: buffers.expert($0)), buffers.places(of: buffers.expert($1)))
      return (b.count, $0) < (a.count, $1)
    }
    for index in byTokens.prefix(share) { isKept[index] = true }
  }

  /// How the `index`-th touched expert is accessed.
  func admission(ofTask index: Int) -> ExpertCache.Admission {
    streaming && !isKept[index] ? .stream : .keep
  }

  /// Experts that are read, or multiplied, together: half a window.
  var wave: Int { (streamWindow + 1) / 2 }

  /// Whether the stream may read one more expert now: there is room in the wave and the window (more
  /// reads at a time would only make the first of them later), and a slot that is not taken from
  /// decoding, unless the window's slots are still to be taken.
  func mayStream(layer: Int) -> Bool {
    flightCount < wave && heldReadCount < streamWindow
      && (cache.hasIdleSpareSlot(layer: layer) || cache.spareSlotCount(layer: layer) < streamWindow)
  }

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

internal import Checkpoints
internal import Tensors

/// Writes checkpoints of a given shape with random weights.
///
/// Such a model says nothing sensible, but it has the sizes of the real one, and its routers choose
/// much as trained ones do (`RoutingDesign`): it serves to measure how a machine would run the
/// model. The bytes depend on shape, quantization and seed alone.
package struct Synthesizer: Sendable {
  package let shape: ModelShape
  package let quantization: SynthesisQuantization
  package let seed: UInt64

  package init(shape: ModelShape, quantization: SynthesisQuantization, seed: UInt64) {
    self.shape = shape
    self.quantization = quantization
    self.seed = seed
  }

  /// What was written.
  package struct Summary: Sendable, Hashable {
    /// The bytes of the file.
    package let byteCount: Int
    /// The bytes of one expert: gate, up and down.
    package let expertByteCount: Int
    /// The experts of all layers.
    package let expertCount: Int
  }

  /// Writes the checkpoint, in place of a file at `path`; memory in use is at most a few tens of
  /// megabytes whatever its size.
  ///
  /// - Parameters:
  ///   - threadCount: threads that generate, 1 to 256.
  ///   - progress: called with the bytes of tensors written so far and in all; the file is given up
  ///     when it returns false.
  /// - Throws: `SynthesisError`; nothing is left of the file then.
  @discardableResult
  package func write(
    to path: String, threadCount: Int,
    progress: (_ done: Int, _ total: Int) -> Bool = { _, _ in true }
  ) throws(SynthesisError) -> Summary {
    let streams = RandomStreams(seed: seed)
    let design = RoutingDesign(shape, streams: streams)
    let tensors = shape.tensors(quantization: quantization, design: design)
    let vocabulary = SyntheticVocabulary(
      tokenCount: shape.vocabularySize, preTokenizer: shape.preTokenizer)
    let pool: WorkerPool
    do { pool = try WorkerPool(threadCount: threadCount) } catch { throw .threads(error) }
    do {
      var writer = try GGUFWriter(
        path: path,
        metadata: shape.metadata(quantization: quantization, vocabulary: vocabulary),
        tensors: tensors.map { GGUFWriter.Tensor(name: $0.name, type: $0.type, shape: $0.shape) })
      let generation = RowGeneration(
        design: design, streams: streams, scratchCount: shape.hiddenSize, pool: pool)
      let total = tensors.reduce(0) { $0 + $1.rowCount * $1.rowByteCount }
      var done = 0
      for tensor in tensors {
        let rowsAtOnce = max(1, generation.buffer.count / tensor.rowByteCount)
        var row = 0
        while row < tensor.rowCount {
          let rows = row..<min(tensor.rowCount, row + rowsAtOnce)
          try writer.append(generation.bytes(of: tensor, rows: rows))
          row = rows.upperBound
          done += rows.count * tensor.rowByteCount
          guard progress(done, total) else { throw SynthesisError.cancelled(path: path) }
        }
      }
      let byteCount = Int(writer.byteCount)
      try writer.finish()
      return Summary(
        byteCount: byteCount, expertByteCount: expertByteCount,
        expertCount: shape.expertCount * shape.layerCount)
    } catch let error as CheckpointError {
      throw .checkpoint(error)
    } catch let error as SynthesisError {
      throw error
    } catch {
      preconditionFailure("only checkpoints and progress can fail, not \(error)")
    }
  }

  /// Gate, up and down have the same values, in whole blocks.
  private var expertByteCount: Int {
    let type = quantization.elementType
    return 3 * (shape.hiddenSize * shape.expertFeedForwardSize / type.blockSize)
      * type.blockByteCount
  }
}

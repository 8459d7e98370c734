internal import Checkpoints
internal import Tensors

/// One tensor of a synthesized model and what its rows are made of.
struct SyntheticTensor: Sendable {
  enum Content: Sendable {
    /// F32: the value with slight noise.
    case around(Float)
    /// F32 zeros: a bias that does nothing.
    case zeros
    case embedding(BlockRounding)
    /// F32 rows that lean along the shared direction, one lean per expert.
    case router(leans: [Float])
    /// The first span of a row comes from the row of the same head of another tensor.
    case matrix(RandomBlocks, shared: SharedRows?)
  }

  /// The rows of the key projection, as those of the query heads that share a key head see them.
  struct SharedRows: Sendable {
    let stream: RandomStreams.Purpose
    let headDimension: Int
    let headsPerKey: Int
    /// Rows from one query head to the next, which may come with gates.
    let stride: Int

    func row(of row: Int) -> Int {
      row / stride / headsPerKey * headDimension + row % stride % headDimension
    }
  }

  let name: String
  let type: ElementType
  /// In GGML's order.
  let shape: [Int]
  /// The tensor's index in the file.
  let stream: RandomStreams.Purpose
  let content: Content

  /// Values of a row.
  var columns: Int { shape[0] }

  /// Rows, over all experts.
  var rowCount: Int { shape.dropFirst().reduce(1, *) }

  /// The bytes of a row; shapes are whole blocks.
  var rowByteCount: Int { columns / type.blockSize * type.blockByteCount }

  /// Writes row `index`.
  /// - Parameter scratch: room for a row of floats.
  func writeRow(
    _ index: Int, into row: UnsafeMutableRawPointer, scratch: UnsafeMutableBufferPointer<Float>,
    design: RoutingDesign, streams: RandomStreams
  ) {
    var own = streams.generator(stream, row: index)
    switch content {
    case .around(let value):
      var noise = NormalNoise(own)
      for column in 0..<columns {
        row.storeBytes(
          of: (value + 0.02 * noise.next()).bitPattern.littleEndian, toByteOffset: column * 4,
          as: UInt32.self)
      }
    case .zeros:
      row.initializeMemory(as: UInt8.self, repeating: 0, count: rowByteCount)
    case .embedding(let rounding):
      let topic = streams.generator(.topic, row: index / RoutingDesign.topicTokenCount)
      let values = UnsafeMutableBufferPointer(rebasing: scratch[..<columns])
      design.embed(into: values, topic: topic, own: own)
      rounding.writeRow(values, into: row)
    case .router(let leans):
      design.writeRouterRow(lean: leans[index], into: row, random: &own)
    case .matrix(let blocks, let sharedRows):
      // Without another tensor both spans are the row's own, from two sequences.
      var shared =
        sharedRows.map { streams.generator($0.stream, row: $0.row(of: index)) } ?? own
      own = streams.generator(stream, row: -1 - index)
      blocks.writeRow(into: row, shared: &shared, other: &own)
    }
  }
}

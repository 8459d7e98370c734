package import Tensors

/// What a checkpoint says of a tensor and where its bytes lie.
package struct TensorInfo: Sendable, Hashable {
  /// Such as `blk.0.attn_q.weight`; unique in a checkpoint.
  package let name: String
  /// How the values are stored.
  package let type: ElementType
  /// The dimensions in GGML's order: the first is a row's length, and varies fastest.
  package let shape: [Int]
  /// The file, an index into `Checkpoint.files`.
  package let file: Int
  /// The offset of the first byte from the beginning of the file.
  package let offset: UInt64
  /// The bytes of all values.
  package let byteCount: Int
  /// Where the bytes lie if not in one piece: one after the other they are the tensor.
  package var parts: [ExpertSlice] = []
  /// Whether rows and columns of each part are to change places; the shape is that after it.
  package var isTransposed = false
}

extension TensorInfo {
  /// Writes a part of the tensor as it is to be: as it lies, or with rows and columns having changed places.
  package func copy(part source: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer) {
    guard isTransposed, let base = source.baseAddress else {
      return UnsafeMutableRawBufferPointer(start: target, count: source.count).copyMemory(
        from: source)
    }
    let (rows, columns, byteCount) = (shape[0], shape[1], type.blockByteCount)
    var next = target
    for column in 0..<columns {
      for row in 0..<rows {
        next.copyMemory(from: base + (row * columns + column) * byteCount, byteCount: byteCount)
        next += byteCount
      }
    }
  }
}

/// The bytes that a tensor of this type and shape takes.
/// - Throws: `.invalidDimensionCount`, `.invalidDimension`, `.partialBlock` or `.tensorTooLarge`.
func tensorByteCount(
  type: ElementType, shape: [Int], path: String, tensor: String
) throws(CheckpointError) -> Int {
  guard (1...GGUFLimits.maximumDimensionCount).contains(shape.count) else {
    throw .invalidDimensionCount(
      path: path, tensor: tensor, found: UInt32(clamping: shape.count))
  }
  var valueCount = 1
  for (axis, dimension) in shape.enumerated() {
    guard dimension > 0 else {
      throw .invalidDimension(
        path: path, tensor: tensor, axis: axis, found: UInt64(clamping: dimension))
    }
    let (product, overflow) = valueCount.multipliedReportingOverflow(by: dimension)
    guard !overflow else {
      throw .tensorTooLarge(path: path, tensor: tensor, shape: shape)
    }
    valueCount = product
  }
  // Blocks never cross rows, so rows must be whole blocks, not only the tensor.
  guard shape[0] % type.blockSize == 0 else {
    throw .partialBlock(path: path, tensor: tensor, type: type, rowLength: shape[0])
  }
  guard let byteCount = type.byteCount(valueCount: valueCount) else {
    throw .tensorTooLarge(path: path, tensor: tensor, shape: shape)
  }
  return byteCount
}

/// Checks that no two tensors of the file at `path` share bytes.
/// - Throws: `.overlappingTensors`.
func checkDisjoint(_ tensors: [TensorInfo], path: String) throws(CheckpointError) {
  let sorted = tensors.sorted { ($0.offset, $0.name) < ($1.offset, $1.name) }
  for (first, second) in zip(sorted, sorted.dropFirst())
  where first.offset + UInt64(first.byteCount) > second.offset {
    throw .overlappingTensors(path: path, first: first.name, second: second.name)
  }
}

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
  /// How the values of a part are to be ordered; the shape is that after it.
  package var order = ValueOrder.asStored
}

/// How values that are used differ in order from those that are stored.
package enum ValueOrder: Sendable, Hashable {
  case asStored
  /// Rows and columns change places.
  case transposed
  /// Every other value, from that one on, 0 or 1.
  case alternating(from: Int)
}

extension TensorInfo {
  /// Writes a part of the tensor as it is to be.
  /// - Returns: the bytes written.
  package func copy(
    part source: UnsafeRawBufferPointer, to target: UnsafeMutableRawPointer
  ) -> Int {
    guard let base = source.baseAddress else { return 0 }
    let byteCount = type.blockByteCount
    var next = target
    func take(_ place: Int) {
      next.copyMemory(from: base + place * byteCount, byteCount: byteCount)
      next += byteCount
    }
    switch order {
    case .asStored:
      UnsafeMutableRawBufferPointer(start: target, count: source.count).copyMemory(from: source)
      next += source.count
    case .transposed:
      let (rows, columns) = (shape[0], shape[1])
      for column in 0..<columns {
        for row in 0..<rows { take(row * columns + column) }
      }
    case .alternating(let first):
      for place in stride(from: first, to: source.count / byteCount, by: 2) { take(place) }
    }
    return next - target
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

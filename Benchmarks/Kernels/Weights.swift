import DirectIO
import Tensors
import TestSupport

/// The two shapes of an expert's matrices in OLMoE-1B-7B.
struct MatrixShape {
  let rows: Int
  let columns: Int

  /// Gate and up, then down.
  static let all = [
    MatrixShape(rows: 1024, columns: 2048), MatrixShape(rows: 2048, columns: 1024),
  ]
  /// Values of a matrix of either shape.
  static let valueCount = 1024 * 2048
}

/// Matrices of one type over more memory than a cache holds, handed out in turn.
///
/// Every matrix has as many values as the others, so the same bytes serve for both shapes.
final class Weights {
  let type: ElementType
  /// Bytes of one matrix.
  let matrixByteCount: Int
  private let memory: Arena
  private let count: Int
  private var next = 0
  private var turn = 0

  /// Fills `memory` with random matrices.
  init(_ type: ElementType, in memory: Arena) {
    self.type = type
    self.memory = memory
    matrixByteCount = type.byteCount(valueCount: MatrixShape.valueCount)!
    count = memory.byteCount / matrixByteCount
    var random = SeededGenerator(seed: UInt64(type.rawValue))
    let first = memory.region(offset: 0, count: matrixByteCount)
    for offset in stride(from: 0, to: matrixByteCount, by: 8) {
      // Whichever bytes are a number's high ones, its exponent is then neither of infinities and
      // NaNs nor of denormals, which some processors multiply slowly.
      let word = random.next() & 0x8f8f_8f8f_8f8f_8f8f | 0x3030_3030_3030_3030
      first.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
    }
    for index in 1..<count {
      (memory.base + index * matrixByteCount).copyMemory(
        from: memory.base, byteCount: matrixByteCount)
    }
  }

  /// The index of the first of the next `count` matrices in memory, which have not been touched
  /// for longest, and the shape to use them in, which alternates.
  func take(_ count: Int) -> (first: Int, shapeIndex: Int) {
    if next + count > self.count { next = 0 }
    defer {
      next += count
      turn += 1
    }
    return (next, turn % MatrixShape.all.count)
  }

  /// Where a matrix begins.
  func bytes(of index: Int) -> UnsafeRawPointer {
    UnsafeRawPointer(memory.base + index * matrixByteCount)
  }

  func matrix(_ index: Int, shape: MatrixShape) -> Matrix {
    Matrix(bytes: bytes(of: index), type: type, rows: shape.rows, columns: shape.columns)
  }
}

/// Vectors to multiply with and room for the products.
final class Operands {
  /// The vectors as floats, [tokens, columns].
  let floats: UnsafeMutablePointer<Float>
  /// The vectors as weights of the type want them, [tokens].
  let activations: UnsafeMutablePointer<UnsafeRawPointer>
  /// Vectors of products, [matrices, tokens]; those of a matrix are contiguous: [tokens, rows].
  let outputs: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
  private let memory: [Arena]

  init(
    _ type: ElementType, shape: MatrixShape, tokens: Int, matrices: Int, kernels: Kernels
  ) throws {
    let rowByteCount = kernels.activationByteCount(type: type, columns: shape.columns)
    let floatMemory = try Arena(byteCount: tokens * shape.columns * 4)
    let rowMemory = try Arena(byteCount: tokens * rowByteCount)
    let outputMemory = try Arena(byteCount: matrices * tokens * shape.rows * 4)
    memory = [floatMemory, rowMemory, outputMemory]
    floats = floatMemory.base.bindMemory(to: Float.self, capacity: tokens * shape.columns)
    var random = SeededGenerator(seed: 1)
    for index in 0..<tokens * shape.columns {
      floats[index] = Float.random(in: -1...1, using: &random)
    }
    activations = .allocate(capacity: tokens)
    for token in 0..<tokens {
      let row = rowMemory.base + token * rowByteCount
      kernels.prepareActivations(
        floats + token * shape.columns, columns: shape.columns, type: type, into: row)
      (activations + token).initialize(to: UnsafeRawPointer(row))
    }
    let values = outputMemory.base.bindMemory(
      to: Float.self, capacity: matrices * tokens * shape.rows)
    outputs = .allocate(capacity: matrices * tokens)
    for index in 0..<matrices * tokens {
      (outputs + index).initialize(to: values + index * shape.rows)
    }
  }

  deinit {
    activations.deallocate()
    outputs.deallocate()
  }
}

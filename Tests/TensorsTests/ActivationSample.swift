import TestSupport

@testable import Tensors

/// Vectors to multiply with, of many shapes.
enum ActivationSample: CaseIterable, Sendable {
  case random
  case largest
  case smallest
  case alternating
  case zero

  func values(columns: Int, seed: UInt64 = 7) -> [Float] {
    var generator = SeededGenerator(seed: seed)
    return (0..<columns).map { i in
      switch self {
      case .random: .random(in: -3...3, using: &generator)
      case .largest: 127
      case .smallest: -127
      case .alternating: i.isMultiple(of: 2) ? 127 : -127
      case .zero: 0
      }
    }
  }
}

extension Kernels {
  /// The activation row for weights of `type`, as bytes.
  func activationRow(_ values: [Float], type: ElementType) -> [UInt8] {
    let byteCount = activationByteCount(type: type, columns: values.count)
    return [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, initialized in
      buffer.initialize(repeating: 0)
      initialized = byteCount
      prepareActivations(
        values, columns: values.count, type: type, into: buffer.baseAddress!)
    }
  }

  /// outputs[t][r] of `rows`; the others stay at `untouched`.
  func product(
    _ weights: WeightSample, rows: Range<Int>, activations: [[UInt8]], byteOffset: Int = 0,
    method: ProductMethod? = nil
  ) -> [[Float]] {
    let untouched = Self.untouched
    let shifted = [UInt8](repeating: 0xa5, count: byteOffset) + weights.bytes
    let outputs = activations.map { _ in
      UnsafeMutablePointer<Float>.allocate(capacity: max(weights.rows, 1))
    }
    let rowPointers = activations.map { row in
      let copy = UnsafeMutableRawPointer.allocate(byteCount: max(row.count, 1), alignment: 64)
      row.withUnsafeBytes { copy.copyMemory(from: $0.baseAddress!, byteCount: row.count) }
      return UnsafeRawPointer(copy)
    }
    defer {
      for output in outputs { output.deallocate() }
      for pointer in rowPointers { pointer.deallocate() }
    }
    for output in outputs { output.initialize(repeating: untouched, count: weights.rows) }
    shifted.withUnsafeBytes {
      matmul(
        type: weights.type, weights: $0.baseAddress! + byteOffset, columns: weights.columns,
        rows: rows, activations: rowPointers, outputs: outputs, tokens: activations.count,
        method: method)
    }
    return outputs.map { Array(UnsafeBufferPointer(start: $0, count: weights.rows)) }
  }

  static var untouched: Float { -12345.5 }
}

/// A quantized activation row read back as the numbers it stands for.
struct QuantizedRow {
  let q: [Int8]
  let scales: [Float]
  let sums: [Int16]

  init(_ bytes: [UInt8], columns: Int) {
    q = bytes[..<columns].map { Int8(bitPattern: $0) }
    (scales, sums) = bytes.withUnsafeBytes { raw in
      (
        (0..<columns / 32).map {
          raw.loadUnaligned(fromByteOffset: columns + 4 * $0, as: Float.self)
        },
        (0..<columns / 16).map {
          raw.loadUnaligned(fromByteOffset: columns + columns / 8 + 2 * $0, as: Int16.self)
        }
      )
    }
  }

  var values: [Double] { q.indices.map { Double(scales[$0 / 32]) * Double(q[$0]) } }
}

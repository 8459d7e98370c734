import Checkpoints
import ExpertRuntime
import Routing
import Tensors
import TestSupport

/// A model that is nothing but experts: random weights in the formats of a GGUF file.
struct ToyMoE: Sendable {
  /// The types of a layer's gate, up and down matrices.
  typealias LayerTypes = [ElementType]

  let hidden: Int
  let feedForward: Int
  let expertCount: Int
  let topK: Int
  let types: [LayerTypes]
  /// The bytes of each tensor as they are in the file, [layers][3].
  let bytes: [[[UInt8]]]
  /// The values of each tensor by dequantization, [layers][3][experts * rows * columns].
  let values: [[[Float]]]

  /// Whole, half and 8-bit floats, and Q4_K with Q8_0: five sizes of experts, as in files that mix
  /// quantizations.
  static let mixed = ToyMoE(
    hidden: 256, feedForward: 64, expertCount: 8, topK: 3,
    types: [
      [.f32, .f32, .f32], [.q8_0, .q8_0, .q8_0], [.q4_K, .q4_K, .q8_0], [.f16, .bf16, .q4_0],
    ], seed: 1)

  /// Two sizes of experts, taking turns.
  static let twoSizes = ToyMoE(
    hidden: 64, feedForward: 32, expertCount: 6, topK: 2,
    types: [
      [.f32, .f32, .f32], [.q8_0, .q8_0, .q8_0], [.f32, .f32, .f32], [.q8_0, .q8_0, .q8_0],
    ], seed: 2)

  init(
    hidden: Int, feedForward: Int, expertCount: Int, topK: Int, types: [LayerTypes], seed: UInt64
  ) {
    self.hidden = hidden
    self.feedForward = feedForward
    self.expertCount = expertCount
    self.topK = topK
    self.types = types
    let valueCount = hidden * feedForward * expertCount
    var generator = SeededGenerator(seed: seed)
    bytes = types.map { layer in
      layer.map { randomWeights($0, valueCount: valueCount, using: &generator) }
    }
    values = zip(types, bytes).map { layer, tensors in
      zip(layer, tensors).map { dequantized($0, $1, valueCount: valueCount) }
    }
  }

  var layerCount: Int { types.count }

  /// The bytes of one expert of `layer`.
  func expertByteCount(layer: Int) -> Int { bytes[layer].reduce(0) { $0 + $1.count / expertCount } }

  /// The bytes of all experts.
  var byteCount: Int { bytes.joined().reduce(0) { $0 + $1.count } }

  /// Writes the experts to a GGUF file; layer `i` is block `i + firstBlock`.
  /// - Parameter extra: tensors besides, of zeros.
  func write(
    to path: String, firstBlock: Int = 0, extra: [GGUFWriter.Tensor] = [], statesTopK: Bool = true
  ) throws {
    var metadata: [(key: String, value: MetadataValue)] = [
      ("general.architecture", .string("toy"))
    ]
    if statesTopK { metadata.append(("toy.expert_used_count", .uint32(UInt32(topK)))) }
    let inner = [hidden, feedForward, expertCount]
    let outer = [feedForward, hidden, expertCount]
    var tensors = extra
    for (layer, types) in types.enumerated() {
      let names = zip(["gate", "up", "down"], [inner, inner, outer])
      for ((name, shape), type) in zip(names, types) {
        tensors.append(
          GGUFWriter.Tensor(
            name: "blk.\(layer + firstBlock).ffn_\(name)_exps.weight", type: type, shape: shape))
      }
    }
    var writer = try GGUFWriter(path: path, metadata: metadata, tensors: tensors)
    for tensor in extra {
      let count = tensor.shape.reduce(1, *) / tensor.type.blockSize * tensor.type.blockByteCount
      try writer.append([UInt8](repeating: 0, count: count))
    }
    for tensor in bytes.joined() { try writer.append(tensor) }
    try writer.finish()
  }
}

// MARK: - Weights

/// Where the half-precision scales of a block are, and how large they may be for values below 0.1.
private func scales(of type: ElementType) -> (offsets: [Int], limit: Float) {
  switch type {
  case .q8_0: ([0], 5e-4)
  case .q4_0: ([0], 1e-2)
  case .q4_K: ([0, 2], 1e-4)
  default: ([], 0)
  }
}

private func randomWeights(
  _ type: ElementType, valueCount: Int, using generator: inout SeededGenerator
) -> [UInt8] {
  var bytes: [UInt8] = []
  func append(_ word: UInt32, byteCount: Int) {
    for i in 0..<byteCount { bytes.append(UInt8(truncatingIfNeeded: word >> (8 * i))) }
  }
  guard type.blockSize > 1 else {
    for _ in 0..<valueCount {
      let value = Float.random(in: -0.1...0.1, using: &generator)
      switch type {
      case .f16: append(UInt32(Float16(value).bitPattern), byteCount: 2)
      case .bf16: append(value.bitPattern >> 16, byteCount: 2)
      default: append(value.bitPattern, byteCount: 4)
      }
    }
    return bytes
  }
  let (offsets, limit) = scales(of: type)
  bytes = (0..<(valueCount / type.blockSize * type.blockByteCount)).map { _ in
    UInt8(truncatingIfNeeded: generator.next())
  }
  for block in stride(from: 0, to: bytes.count, by: type.blockByteCount) {
    for offset in offsets {
      let half = Float16(Float.random(in: -limit...limit, using: &generator)).bitPattern
      bytes[block + offset] = UInt8(truncatingIfNeeded: half)
      bytes[block + offset + 1] = UInt8(half >> 8)
    }
  }
  return bytes
}

private func dequantized(_ type: ElementType, _ bytes: [UInt8], valueCount: Int) -> [Float] {
  [Float](unsafeUninitializedCapacity: valueCount) { buffer, initialized in
    buffer.initialize(repeating: 0)
    initialized = valueCount
    bytes.withUnsafeBytes {
      Kernels(set: .portable).dequantize(
        type: type, blocks: $0.baseAddress!, count: valueCount, into: buffer.baseAddress!)
    }
  }
}

internal import Tensors

/// Stores float rows in a quantized format with one scale for all blocks, which suits values whose
/// range is known beforehand: those of synthesized embeddings.
struct BlockRounding: Sendable {
  let quantization: SynthesisQuantization
  /// The distance between two levels of the quants.
  private let step: Float
  /// Bytes before the quants of each block.
  private let header: [UInt8]

  /// - Parameter limit: values beyond it, of either sign, are clamped.
  init(_ quantization: SynthesisQuantization, limit: Float) {
    self.quantization = quantization
    func bytes(_ value: Float) -> [UInt8] {
      withUnsafeBytes(of: Float16(value).bitPattern.littleEndian) { Array($0) }
    }
    switch quantization {
    case .q4_0:
      step = limit / 7
      header = bytes(step)
    case .q8_0:
      step = limit / 127
      header = bytes(step)
    case .q4_K:
      // Every 6-bit scale and minimum is 1: all bits of the other fields are zero.
      step = limit / 7
      header = bytes(step) + bytes(8 * step) + [1, 1, 1, 1, 1, 1, 1, 1] + [0x11, 0x11, 0x11, 0x11]
    }
  }

  /// Writes `values`, whole blocks, to `row`.
  func writeRow(_ values: UnsafeMutableBufferPointer<Float>, into row: UnsafeMutableRawPointer) {
    let type = quantization.elementType
    for block in 0..<values.count / type.blockSize {
      let start = row + block * type.blockByteCount
      header.withUnsafeBytes { start.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
      let first = block * type.blockSize
      let quants = start + header.count
      switch quantization {
      case .q8_0:
        for index in 0..<32 {
          quants.storeBytes(
            of: Int8(quant(values[first + index], -127...127)), toByteOffset: index, as: Int8.self)
        }
      case .q4_0: writeNibbles(values, first: first, distance: 16, into: quants)
      case .q4_K:
        for pair in 0..<4 {
          writeNibbles(values, first: first + 64 * pair, distance: 32, into: quants + 32 * pair)
        }
      }
    }
  }

  /// Writes `distance` bytes whose low nibbles are the values from `first` on and whose high
  /// nibbles those that follow.
  private func writeNibbles(
    _ values: UnsafeMutableBufferPointer<Float>, first: Int, distance: Int,
    into bytes: UnsafeMutableRawPointer
  ) {
    for index in 0..<distance {
      let low = quant(values[first + index], -8...7) + 8
      let high = quant(values[first + index + distance], -8...7) + 8
      bytes.storeBytes(of: UInt8(low | high << 4), toByteOffset: index, as: UInt8.self)
    }
  }

  private func quant(_ value: Float, _ range: ClosedRange<Float>) -> Int {
    Int(min(max((value / step).rounded(), range.lowerBound), range.upperBound))
  }
}

internal import Tensors

/// How weights are stored in a synthesized file.
package enum SynthesisQuantization: String, CaseIterable, Sendable {
  // swift-format-ignore: AlwaysUseLowerCamelCase
  case q4_0, q8_0, q4_K

  var elementType: ElementType {
    switch self {
    case .q4_0: .q4_0
    case .q8_0: .q8_0
    case .q4_K: .q4_K
    }
  }

  /// What rows of `columns` values are stored in: Q4_0 where they are not whole blocks of Q4_K.
  func fitting(_ columns: Int) -> SynthesisQuantization {
    columns.isMultiple(of: elementType.blockSize) ? self : .q4_0
  }

  /// llama.cpp's number of the mixture (`llama_ftype`), for `general.file_type`.
  var fileType: UInt32 {
    switch self {
    case .q4_0: 2
    case .q8_0: 7
    case .q4_K: 14
    }
  }
}

/// Writes rows of random weights straight in a quantized format: quants of even distribution and
/// scales that give the wanted standard deviation. Nothing is ever a float, so a row costs little
/// more than its random bytes.
///
/// A row has two spans, its first `sharedCount` columns and the rest, each with its own deviation
/// and source of randomness.
struct RandomBlocks: Sendable {
  private static let variantCount = 8

  let quantization: SynthesisQuantization
  let columns: Int
  /// A multiple of 32, the width of the blocks and groups that have one scale.
  let sharedCount: Int
  /// Scales a block may have, as F16 bits, for the first span and the rest.
  private let sharedScales: [UInt16]
  private let otherScales: [UInt16]
  /// Q4_K: the scale and the offset of a block, and the 6-bit scales its groups may have.
  private let blockScale: UInt16
  private let blockOffset: UInt16
  private let sharedGroupScales: [UInt8]
  private let otherGroupScales: [UInt8]

  /// - Parameters:
  ///   - sharedDeviation: the standard deviation of the first `sharedCount` columns.
  ///   - deviation: that of the other columns.
  init(
    _ quantization: SynthesisQuantization, columns: Int, sharedCount: Int = 0,
    sharedDeviation: Float = 0, deviation: Float
  ) {
    precondition(
      columns.isMultiple(of: quantization.elementType.blockSize) && sharedCount.isMultiple(of: 32)
        && sharedCount <= columns, "\(columns) columns are not whole blocks")
    self.quantization = quantization
    self.columns = columns
    self.sharedCount = sharedCount
    // The deviation of evenly spread quants: 16 levels of Q4_0 and Q4_K, 256 of Q8_0.
    let levels: Float = quantization == .q8_0 ? 256 : 16
    let quantDeviation = ((levels * levels - 1) / 12).squareRoot()
    // Scales vary by a factor of 0.85 to 1.15, as those of trained weights vary.
    let factors = (0..<Self.variantCount).map { 0.85 + 0.3 * Float($0) / 7 }
    // Half of the scales are negative: quants are one-sided by half a level, scales undo that.
    func scales(_ deviation: Float) -> [UInt16] {
      factors.enumerated().map { index, factor in
        Float16(deviation / quantDeviation * factor * (index % 2 == 0 ? 1 : -1)).bitPattern
      }
    }
    sharedScales = scales(sharedDeviation)
    otherScales = scales(deviation)
    // The largest group scale is 63, what 6 bits hold.
    let unit = max(sharedCount > 0 ? sharedDeviation : 0, deviation) * 1.15 / quantDeviation / 63
    func groupScales(_ deviation: Float) -> [UInt8] {
      factors.map { UInt8(min(63, max(1, ($0 * deviation / quantDeviation / unit).rounded()))) }
    }
    blockScale = Float16(unit).bitPattern
    // A group's minimum is its scale, so that this centers all of them.
    blockOffset = Float16(unit * 7.5).bitPattern
    sharedGroupScales = groupScales(sharedCount > 0 ? sharedDeviation : deviation)
    otherGroupScales = groupScales(deviation)
  }

  /// The bytes of a row.
  var rowByteCount: Int {
    columns / quantization.elementType.blockSize * quantization.elementType.blockByteCount
  }

  /// Writes a row: the blocks of the first span from `shared`, the others from `other`.
  func writeRow(
    into row: UnsafeMutableRawPointer, shared: inout Xoshiro256, other: inout Xoshiro256
  ) {
    let type = quantization.elementType
    for block in 0..<columns / type.blockSize {
      let start = row + block * type.blockByteCount
      let column = block * type.blockSize
      if column < sharedCount {
        writeBlock(into: start, column: column, scales: sharedScales, random: &shared)
      } else {
        writeBlock(into: start, column: column, scales: otherScales, random: &other)
      }
    }
  }

  private func writeBlock(
    into block: UnsafeMutableRawPointer, column: Int, scales: [UInt16], random: inout Xoshiro256
  ) {
    let header: Int
    switch quantization {
    case .q4_0, .q8_0:
      header = 2
      let variant = Int(random.next() >> 61)
      block.storeBytes(of: scales[variant].littleEndian, as: UInt16.self)
    case .q4_K:
      header = 16
      block.storeBytes(of: blockScale.littleEndian, as: UInt16.self)
      block.storeBytes(of: blockOffset.littleEndian, toByteOffset: 2, as: UInt16.self)
      writeGroupScales(into: block + 4, column: column, random: random.next())
    }
    for offset in stride(from: header, to: quantization.elementType.blockByteCount, by: 8) {
      block.storeBytes(of: random.next().littleEndian, toByteOffset: offset, as: UInt64.self)
    }
  }

  /// Packs the 6-bit scales and minima of 8 groups into 12 bytes, the way ggml's
  /// `get_scale_min_k4` unpacks them.
  private func writeGroupScales(
    into packed: UnsafeMutableRawPointer, column: Int, random: UInt64
  ) {
    func scale(_ group: Int) -> UInt8 {
      let variant = Int(random >> (8 * UInt64(group)) & 7)
      return column + 32 * group < sharedCount
        ? sharedGroupScales[variant] : otherGroupScales[variant]
    }
    for group in 0..<4 {
      let low = scale(group)
      let high = scale(group + 4)
      let byte = low | (high >> 4) << 6
      packed.storeBytes(of: byte, toByteOffset: group, as: UInt8.self)
      packed.storeBytes(of: byte, toByteOffset: group + 4, as: UInt8.self)
      let nibble = high & 15
      packed.storeBytes(of: nibble | nibble << 4, toByteOffset: group + 8, as: UInt8.self)
    }
  }
}

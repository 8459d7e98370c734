import TestSupport

@testable import Tensors

extension ElementType {
  static let computable = allCases.filter(\.isComputable)
  static let quantized = computable.filter { $0.blockSize > 1 }

  /// Where a block's half-precision scales and minimums lie.
  var halfOffsets: [Int] {
    switch self {
    case .q4_0, .q5_0, .q8_0: [0]
    case .q4_1, .q5_1, .q4_K, .q5_K: [0, 2]
    case .q6_K: [208]
    case .q2_K: [80, 82]
    case .q3_K: [108]
    case .iq4_NL, .iq4_XS, .iq2_XXS, .iq2_XS, .iq2_S, .iq3_XXS, .iq3_S, .iq1_S: [0]
    default: []
    }
  }

  /// A block's quants in formats with a minimum; nil in those without.
  var minimumQuants: Range<Int>? {
    switch self {
    case .q4_1, .q5_1: 4..<blockByteCount
    case .q4_K, .q5_K: 16..<blockByteCount
    case .q2_K: 16..<80
    default: nil
    }
  }

  /// A block's quants in formats with an offset, and the byte that makes them the smallest there
  /// are, -offset; nil in the other formats.
  var offsetQuants: (range: Range<Int>, smallest: UInt8)? {
    switch self {
    case .q4_0: (2..<18, 0)
    case .q5_0: (2..<22, 0)
    case .q8_0: (2..<34, 0x80)
    case .q6_K: (0..<192, 0)
    case .q3_K: (0..<96, 0)
    case .q8_K: (4..<260, 0x80)
    case .iq4_NL: (2..<18, 0)
    case .iq4_XS: (8..<136, 0)
    case .mxfp4: (1..<17, 0xff)
    default: nil
    }
  }

  /// The largest ratio of the offset to a quant, in the formats that have no quant of zero and whose
  /// quants are not apart from their scales.
  var offsetRatio: Float? {
    switch self {
    case .iq2_XXS, .iq2_XS, .iq2_S: 43.0 / 8
    case .iq3_XXS: 62.0 / 4
    case .iq3_S: 15
    case .iq1_S, .iq1_M: 9
    default: nil
    }
  }

  /// Row lengths to test: whole and partial superblocks; odd lengths for the float types.
  var testColumns: [Int] {
    switch blockSize {
    case 1: [1, 2, 3, 5, 7, 15, 16, 17, 31, 33, 64, 100, 255, 512]
    case 32: [32, 64, 96, 224, 256, 288, 512, 736, 768, 2048]
    default: [256, 512, 768, 2048]
    }
  }
}

/// What fills the quants (and the small integer scales) of a sample.
enum Payload: Hashable, Sendable {
  case random
  case bytes(UInt8)
  case zeroScales

  /// Random ones, and the largest, the smallest and the most lopsided there are.
  static let all: [Payload] =
    [.random, .zeroScales] + ([0x00, 0xff, 0x0f, 0xf0, 0x7f, 0x80] as [UInt8]).map(Payload.bytes)
}

/// A weight matrix [rows, columns] of a type, in its file format, with finite scales.
struct WeightSample {
  let type: ElementType
  let rows: Int
  let columns: Int
  private(set) var bytes: [UInt8]

  init(
    _ type: ElementType, rows: Int, columns: Int, payload: Payload = .random, seed: UInt64 = 1
  ) throws {
    var generator = SeededGenerator(seed: seed &+ UInt64(type.rawValue) << 32)
    self.type = type
    self.rows = rows
    self.columns = columns
    let byteCount = type.byteCount(valueCount: rows * columns)!
    bytes = (0..<byteCount).map { _ in
      if case .bytes(let byte) = payload { byte } else { .random(in: 0...255, using: &generator) }
    }
    guard type.blockSize > 1 else {
      fillFloats(payload, using: &generator)
      return
    }
    for block in stride(from: 0, to: byteCount, by: type.blockByteCount) {
      for offset in type.halfOffsets {
        let half = Float16(Float.random(in: -1...1, using: &generator))
        store(payload == .zeroScales ? 0 : half.bitPattern, at: block + offset)
      }
      fillOtherScales(block: block, payload, using: &generator)
    }
  }

  /// The values, [rows * columns], by dequantization.
  var values: [Float] { Self.dequantized(type, bytes, count: rows * columns) }

  /// |scale * q| + |minimum| of each value: what rounding errors are relative to.
  var magnitudes: [Float] {
    guard let quants = type.minimumQuants else { return values.map(abs) }
    var withoutQuants = bytes
    for i in bytes.indices where quants.contains(i % type.blockByteCount) { withoutQuants[i] = 0 }
    let minimums = Self.dequantized(type, withoutQuants, count: rows * columns)
    return zip(values, minimums).map { abs($0 - $1) + abs($1) }
  }

  /// What the rounding errors of `method` are relative to: the packed one counts quants from the
  /// smallest, so that formats with an offset have a minimum there.
  func magnitudes(of method: ProductMethod) -> [Float] {
    guard method == .packed else { return magnitudes }
    if let ratio = type.offsetRatio { return magnitudes.map { $0 * (1 + ratio) } }
    guard let quants = type.offsetQuants else { return magnitudes }
    var smallest = bytes
    for i in bytes.indices where quants.range.contains(i % type.blockByteCount) {
      smallest[i] = quants.smallest
    }
    let minimums = Self.dequantized(type, smallest, count: rows * columns)
    return zip(values, minimums).map { abs($0 - $1) + abs($1) }
  }

  private static func dequantized(_ type: ElementType, _ bytes: [UInt8], count: Int) -> [Float] {
    [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
      buffer.initialize(repeating: 0)
      initialized = count
      bytes.withUnsafeBytes {
        Kernels(set: .portable).dequantize(
          type: type, blocks: $0.baseAddress!, count: count, into: buffer.baseAddress!)
      }
    }
  }

  /// The scales that are not halves: MXFP4's exponent, Q8_K's float, IQ1_M's half in four parts.
  private mutating func fillOtherScales(
    block: Int, _ payload: Payload, using generator: inout SeededGenerator
  ) {
    let isZero = payload == .zeroScales
    let value = isZero ? 0 : Float.random(in: -1...1, using: &generator)
    switch type {
    // It has no zero, and the smallest would make sums subnormal.
    case .mxfp4: bytes[block] = isZero ? 32 : .random(in: 118...128, using: &generator)
    case .q8_K:
      store(UInt16(truncatingIfNeeded: value.bitPattern), at: block)
      store(UInt16(value.bitPattern >> 16), at: block + 2)
    case .iq1_M:
      let half = Float16(value).bitPattern
      for part in 0..<4 {
        let at = block + 49 + 2 * part
        bytes[at] = bytes[at] & 0x0f | UInt8(truncatingIfNeeded: half >> (4 * part)) << 4
      }
    default: break
    }
  }

  private mutating func fillFloats(_ payload: Payload, using generator: inout SeededGenerator) {
    for i in 0..<rows * columns {
      let value: Float = payload == .random ? .random(in: -1...1, using: &generator) : 0
      switch type {
      case .f16: store(Float16(value).bitPattern, at: 2 * i)
      case .bf16: store(UInt16(value.bitPattern >> 16), at: 2 * i)
      default:
        store(UInt16(truncatingIfNeeded: value.bitPattern), at: 4 * i)
        store(UInt16(value.bitPattern >> 16), at: 4 * i + 2)
      }
    }
  }

  private mutating func store(_ value: UInt16, at offset: Int) {
    bytes[offset] = UInt8(truncatingIfNeeded: value)
    bytes[offset + 1] = UInt8(value >> 8)
  }
}

import Testing

@testable import Tensors

/// Golden blocks and values written by Fixtures/make_dequantize_fixture.py.
private struct GoldenBlocks {
  let type: ElementType
  let blocks: [UInt8]
  let valueBits: [UInt32]

  static func readAll() throws -> [GoldenBlocks] {
    let bytes = try fixtureBytes("dequantize.bin")
    var offset = 0
    func word(_ at: Int) -> UInt32 {
      bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: at, as: UInt32.self) }
    }
    var all: [GoldenBlocks] = []
    while offset < bytes.count {
      let type = try #require(ElementType(rawValue: word(offset)))
      let valueCount = Int(word(offset + 4))
      let byteCount = Int(word(offset + 8))
      let blocks = Array(bytes[(offset + 12)..<(offset + 12 + byteCount)])
      offset += 12 + byteCount
      let values = (0..<valueCount).map { word(offset + 4 * $0) }
      offset += 4 * valueCount
      all.append(GoldenBlocks(type: type, blocks: blocks, valueBits: values))
    }
    return all
  }
}

@Suite struct DequantizeTests {
  private func dequantized(
    _ type: ElementType, _ blocks: [UInt8], count: Int, byteOffset: Int = 0
  ) -> [UInt32] {
    let shifted = [UInt8](repeating: 0, count: byteOffset) + blocks
    var values = [Float](repeating: 0, count: count)
    shifted.withUnsafeBytes {
      Kernels(set: .portable).dequantize(
        type: type, blocks: $0.baseAddress! + byteOffset, count: count, into: &values)
    }
    return values.map(\.bitPattern)
  }

  @Test func hasTheBitsOfTheReference() throws {
    let all = try GoldenBlocks.readAll()
    #expect(Set(all.map(\.type)) == Set(ElementType.computable))
    for golden in all {
      let count = golden.valueBits.count
      #expect(golden.blocks.count == golden.type.byteCount(valueCount: count))
      #expect(dequantized(golden.type, golden.blocks, count: count) == golden.valueBits)
      #expect(
        dequantized(golden.type, golden.blocks, count: count, byteOffset: 1) == golden.valueBits)
    }
  }

  @Test func convertsEveryHalf() {
    let halves = (0...UInt16.max).flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
    let values = dequantized(.f16, halves, count: 65536).map(Float.init(bitPattern:))
    for (bits, value) in values.enumerated() {
      let expected = Float(Float16(bitPattern: UInt16(bits)))
      #expect(expected.isNaN ? value.isNaN : value.bitPattern == expected.bitPattern)
    }
  }
}

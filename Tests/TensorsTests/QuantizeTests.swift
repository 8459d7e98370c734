import Glibc
import Testing

@testable import Tensors

/// Weights, and what llama.cpp's quantisers leave of them, written by Fixtures/make_quantize_fixture.py.
private struct QuantizationReference {
  /// Values that half precision holds, [distributions].
  let samples: [[Float]]
  /// The sum of squared errors, [types][distributions].
  let errors: [UInt32: [Double]]

  init() throws {
    let bytes = try fixtureBytes("quantize.bin")
    var offset = 0
    func take<Value: BitwiseCopyable>(_ type: Value.Type) -> Value {
      defer { offset += MemoryLayout<Value>.size }
      return bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }
    samples = (0..<5).map { _ in
      let count = Int(take(UInt32.self))
      return (0..<count).map { _ in Float(Float16(bitPattern: take(UInt16.self))) }
    }
    var errors: [UInt32: [Double]] = [:]
    while offset < bytes.count {
      errors[take(UInt32.self)] = samples.map { _ in take(Double.self) }
    }
    self.errors = errors
  }
}

@Suite struct QuantizeTests {
  static let sets = KernelSet.allCases.filter { $0 <= .best }

  private func quantized(
    _ values: [Float], _ quantization: WeightQuantization, _ set: KernelSet = .best
  ) -> [UInt8]? {
    let byteCount = quantization.elementType.byteCount(valueCount: values.count)!
    var blocks = [UInt8](repeating: 0, count: byteCount)
    let isWhole = blocks.withUnsafeMutableBytes {
      Kernels(set: set).quantize(
        values, count: values.count, to: quantization, into: $0.baseAddress!)
    }
    return isWhole ? blocks : nil
  }

  private func squaredError(
    _ values: [Float], _ blocks: [UInt8], _ quantization: WeightQuantization
  ) -> Double {
    var found = [Float](repeating: 0, count: values.count)
    blocks.withUnsafeBytes {
      Kernels(set: .portable).dequantize(
        type: quantization.elementType, blocks: $0.baseAddress!, count: values.count, into: &found)
    }
    return zip(values, found).reduce(0) {
      $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1))
    }
  }

  @Test(arguments: WeightQuantization.allCases)
  func isAtLeastAsCloseAsTheReference(_ quantization: WeightQuantization) throws {
    let reference = try QuantizationReference()
    let errors = try #require(reference.errors[quantization.elementType.rawValue])
    for (index, values) in reference.samples.enumerated() {
      let blocks = try #require(quantized(values, quantization))
      let error = squaredError(values, blocks, quantization)
      #expect(error <= errors[index], "distribution \(index): \(error / errors[index])")
      // Not by a miracle: four bits cannot be much better than that.
      #expect(error > errors[index] / 4)
    }
  }

  @Test(arguments: WeightQuantization.allCases)
  func everySetWritesTheSameBits(_ quantization: WeightQuantization) throws {
    for values in try QuantizationReference().samples {
      let portable = try #require(quantized(values, quantization, .portable))
      for set in Self.sets { #expect(quantized(values, quantization, set) == portable) }
    }
  }

  @Test(arguments: WeightQuantization.allCases)
  func awkwardBlocksSurvive(_ quantization: WeightQuantization) throws {
    let count = 256
    let blocks: [[Float]] = [
      .init(repeating: 0, count: count), .init(repeating: -0.0, count: count),
      .init(repeating: 1, count: count), .init(repeating: -3e-5, count: count),
      (0..<count).map { $0 == 17 ? 1e-30 : 0 }, (0..<count).map { $0 % 2 == 0 ? 6e4 : -6e4 },
      .init(repeating: .leastNonzeroMagnitude, count: count),
      (0..<count).map { 1e-7 * Float($0) },
    ]
    for (index, values) in blocks.enumerated() {
      let found = try #require(quantized(values, quantization), "block \(index)")
      let energy = values.reduce(0) { $0 + Double($1) * Double($1) }
      // Never farther than zeros would be, what a scale of half precision cannot hold included.
      #expect(squaredError(values, found, quantization) <= energy * 1.0001, "block \(index)")
      for set in Self.sets { #expect(quantized(values, quantization, set) == found) }
    }
    for bad in [Float.nan, .infinity, -.infinity, 1e38] {
      for place in [0, 31, 255] {
        var values = [Float](repeating: 0.5, count: count)
        values[place] = bad
        #expect(quantized(values, quantization) == nil)
      }
    }
  }

  @Test func conversionIsThatOfItsPieces() throws {
    let reference = try QuantizationReference()
    let values = reference.samples[0] + reference.samples[1] + reference.samples[2]
    let halves = values.map { Float16($0).bitPattern }
    let pool = try WorkerPool(threadCount: 3)
    let conversion = WeightConversion(
      capacity: values.count, kernels: Kernels(set: .best), pool: pool)
    for quantization in WeightQuantization.allCases {
      let found = halves.withUnsafeBytes { conversion.convert($0, of: .f16, to: quantization) }
      #expect(try Array(#require(found)) == quantized(values, quantization))
    }
    var bad = halves
    bad[40_000] = 0x7c00
    #expect(bad.withUnsafeBytes { conversion.convert($0, of: .f16, to: .q8_0) } == nil)
    #expect(halves.withUnsafeBytes { conversion.convert($0, of: .f16, to: .q8_0) } != nil)
  }

  @Test func checksumsAreThoseOfTheStandard() {
    // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    let known: [([UInt8], UInt32)] = [
      (Array("123456789".utf8), 0xe306_9283), (.init(repeating: 0, count: 32), 0x8a91_36aa),
      (.init(repeating: 0xff, count: 32), 0x62a8_ab43), (Array(0..<32), 0x46dd_794e), ([], 0),
    ]
    var long = [UInt8](repeating: 0, count: 20_011)
    for index in long.indices { long[index] = UInt8(truncatingIfNeeded: index &* index >> 3) }
    let expected = Kernels(set: .portable).checksum(long[...])
    for set in Self.sets {
      let kernels = Kernels(set: set)
      for (bytes, sum) in known { #expect(kernels.checksum(bytes[...]) == sum) }
      #expect(kernels.checksum(long[...]) == expected)
      for cut in [1, 3071, 3072, 9999] {
        let first = kernels.checksum(long[..<cut])
        #expect(kernels.checksum(long[cut...], after: first) == expected)
      }
      var damaged = long
      damaged[12_345] ^= 4
      #expect(kernels.checksum(damaged[...]) != expected)
    }
  }
}

extension Kernels {
  fileprivate func checksum(_ bytes: ArraySlice<UInt8>, after previous: UInt32 = 0) -> UInt32 {
    bytes.withUnsafeBytes { checksum($0, after: previous) }
  }
}

/// The bytes of a file of Fixtures.
func fixtureBytes(_ name: String) throws -> [UInt8] {
  let folder = String(#filePath[..<(#filePath.lastIndex(of: "/") ?? #filePath.startIndex)])
  let descriptor = open("\(folder)/Fixtures/\(name)", O_RDONLY)
  try #require(descriptor >= 0)
  defer { close(descriptor) }
  let byteCount = lseek(descriptor, 0, SEEK_END)
  var bytes = [UInt8](repeating: 0, count: byteCount)
  try #require(pread(descriptor, &bytes, byteCount, 0) == byteCount)
  return bytes
}

import Testing

@testable import Tensors

@Suite struct ElementTypeTests {
  @Test func computableTypesAreThoseWithKernels() {
    #expect(
      ElementType.computable == [
        .f32, .f16, .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .q8_K,
        .iq2_XXS, .iq2_XS, .iq3_XXS, .iq1_S, .iq4_NL, .iq3_S, .iq2_S, .iq4_XS, .iq1_M, .bf16,
        .mxfp4,
      ])
  }

  @Test(
    arguments: [
      (ElementType.q4_K, "Q4_K", 12, 256, 144), (.f32, "F32", 0, 1, 4),
      (.mxfp4, "MXFP4", 39, 32, 17),
      (.iq2_XXS, "IQ2_XXS", 16, 256, 66), (.bf16, "BF16", 30, 1, 2), (.i8, "I8", 24, 1, 1),
      (.tq1_0, "TQ1_0", 34, 256, 54), (.iq4_NL, "IQ4_NL", 20, 32, 18),
    ] as [(ElementType, String, UInt32, Int, Int)])
  func hasTheLayoutOfGGML(
    _ type: ElementType, _ name: String, _ id: UInt32, _ size: Int, _ byteCount: Int
  ) {
    #expect(type.name == name && "\(type)" == name)
    #expect(ElementType(rawValue: id) == type)
    #expect(type.blockSize == size && type.blockByteCount == byteCount)
  }

  @Test func idsThatGGMLRetiredAreNoTypes() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 1000] as [UInt32] {
      #expect(ElementType(rawValue: id) == nil)
    }
  }

  @Test func countsBytesOfWholeBlocksOnly() {
    #expect(ElementType.q6_K.byteCount(valueCount: 512) == 420)
    #expect(ElementType.q4_0.byteCount(valueCount: 0) == 0)
    #expect(ElementType.q4_0.byteCount(valueCount: 33) == nil)
    #expect(ElementType.q4_0.byteCount(valueCount: -32) == nil)
    #expect(ElementType.f64.byteCount(valueCount: .max) == nil)
    #expect(ElementType.q4_0.byteCount(valueCount: .max - 31) != nil)
  }
}

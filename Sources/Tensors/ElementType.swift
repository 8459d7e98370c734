/// The element type of a tensor in a GGUF file; raw values are GGML's type ids.
///
/// Block sizes are those of ggml's type traits (`GGML_QUANT_SIZES` in the Python package gguf).
/// The cases keep ggml's spelling, underscores included.
// swift-format-ignore: AlwaysUseLowerCamelCase
public enum ElementType: UInt32, CaseIterable, Hashable, Sendable {
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q8_1 = 9
  case q2_K = 10
  case q3_K = 11
  case q4_K = 12
  case q5_K = 13
  case q6_K = 14
  case q8_K = 15
  case iq2_XXS = 16
  case iq2_XS = 17
  case iq3_XXS = 18
  case iq1_S = 19
  case iq4_NL = 20
  case iq3_S = 21
  case iq2_S = 22
  case iq4_XS = 23
  case i8 = 24
  case i16 = 25
  case i32 = 26
  case i64 = 27
  case f64 = 28
  case iq1_M = 29
  case bf16 = 30
  case tq1_0 = 34
  case tq2_0 = 35
  case mxfp4 = 39
  case nvfp4 = 40
  case q1_0 = 41
  /// 8-bit floats with scales in a tensor of their own, as safetensors have them. The number is ours, so no
  /// GGUF file has it.
  case f8_E4M3 = 63

  /// The name as ggml writes it, "Q4_K".
  public var name: String {
    switch self {
    case .f32: "F32"
    case .f16: "F16"
    case .q4_0: "Q4_0"
    case .q4_1: "Q4_1"
    case .q5_0: "Q5_0"
    case .q5_1: "Q5_1"
    case .q8_0: "Q8_0"
    case .q8_1: "Q8_1"
    case .q2_K: "Q2_K"
    case .q3_K: "Q3_K"
    case .q4_K: "Q4_K"
    case .q5_K: "Q5_K"
    case .q6_K: "Q6_K"
    case .q8_K: "Q8_K"
    case .iq2_XXS: "IQ2_XXS"
    case .iq2_XS: "IQ2_XS"
    case .iq3_XXS: "IQ3_XXS"
    case .iq1_S: "IQ1_S"
    case .iq4_NL: "IQ4_NL"
    case .iq3_S: "IQ3_S"
    case .iq2_S: "IQ2_S"
    case .iq4_XS: "IQ4_XS"
    case .i8: "I8"
    case .i16: "I16"
    case .i32: "I32"
    case .i64: "I64"
    case .f64: "F64"
    case .iq1_M: "IQ1_M"
    case .bf16: "BF16"
    case .tq1_0: "TQ1_0"
    case .tq2_0: "TQ2_0"
    case .mxfp4: "MXFP4"
    case .nvfp4: "NVFP4"
    case .q1_0: "Q1_0"
    case .f8_E4M3: "F8_E4M3"
    }
  }

  /// The number of values in a block; 1 for types that are not quantized.
  public var blockSize: Int { layout.size }

  /// The number of bytes of a block.
  public var blockByteCount: Int { layout.byteCount }

  /// Whether the kernels multiply and dequantize this type, from its bytes alone.
  public var isComputable: Bool { Kernels.supports(self) && !hasScalesApart }

  /// Whether the kernels multiply it with scales that lie apart (`BlockScales`).
  package var hasScalesApart: Bool { self == .f8_E4M3 }

  /// Whether rows of this type want quantized activations, and columns a multiple of 32.
  package var wantsQuantizedActivations: Bool { isComputable && blockSize > 1 }

  /// The number of bytes of `valueCount` values.
  ///
  /// - Returns: nil if they are not whole blocks, or the count is negative or overflows.
  public func byteCount(valueCount: Int) -> Int? {
    guard valueCount >= 0, valueCount.isMultiple(of: blockSize) else { return nil }
    let (bytes, overflow) = (valueCount / blockSize).multipliedReportingOverflow(
      by: blockByteCount)
    return overflow ? nil : bytes
  }

  private var layout: (size: Int, byteCount: Int) {
    switch self {
    case .f32, .i32: (1, 4)
    case .f16, .bf16, .i16: (1, 2)
    case .i8, .f8_E4M3: (1, 1)
    case .f64, .i64: (1, 8)
    case .q4_0, .iq4_NL: (32, 18)
    case .q4_1: (32, 20)
    case .q5_0: (32, 22)
    case .q5_1: (32, 24)
    case .q8_0: (32, 34)
    // As the gguf package and its readers count it; ggml has stored 36 bytes since the two
    // scales became half precision. No file holds tensors of this type.
    case .q8_1: (32, 40)
    case .mxfp4: (32, 17)
    case .nvfp4: (64, 36)
    case .q1_0: (128, 18)
    case .q2_K: (256, 84)
    case .q3_K, .iq3_S: (256, 110)
    case .q4_K: (256, 144)
    case .q5_K: (256, 176)
    case .q6_K: (256, 210)
    case .q8_K: (256, 292)
    case .iq2_XXS, .tq2_0: (256, 66)
    case .iq2_XS: (256, 74)
    case .iq2_S: (256, 82)
    case .iq3_XXS: (256, 98)
    case .iq1_S: (256, 50)
    case .iq1_M: (256, 56)
    case .iq4_XS: (256, 136)
    case .tq1_0: (256, 54)
    }
  }
}

extension ElementType: CustomStringConvertible {
  public var description: String { name }
}

internal import Foundation

/// Router scores as traces hold them: the probability p of an expert, after the softmax over all of its
/// layer, as the byte nearest to -16 log2 p. Probabilities come back within 2.2 % down to 2^-15.8; 255
/// stands for all below, and comes back as 0.
public enum TraceScore {
  /// The byte for `probability`.
  public static func code(of probability: Float) -> UInt8 {
    guard probability > 0 else { return 255 }
    return UInt8(min(255, max(0, (-16 * log2(probability)).rounded())))
  }

  /// What `code` stands for.
  public static func probability(of code: UInt8) -> Float { probabilities[Int(code)] }

  private static let probabilities: [Float] =
    (0..<255).map { exp2(-Float($0) / 16) } + [0]
}

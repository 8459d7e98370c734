/// Gate weights as traces hold them: half-precision numbers without sign and without the lowest three
/// bits of the fraction, rounded to nearest: within 0.5 %.
package enum TraceWeight {
  static let bitCount = 12

  static func code(of weight: Float) -> UInt16 {
    let bits = Float16(min(max(0, weight), 65504)).bitPattern
    return min(bits &+ 4, Float16.greatestFiniteMagnitude.bitPattern) >> 3
  }

  static func weight(of code: UInt16) -> Float { Float(Float16(bitPattern: code << 3)) }

  /// What comes back of `weight` from a trace.
  package static func rounded(_ weight: Float) -> Float { Self.weight(of: code(of: weight)) }
}

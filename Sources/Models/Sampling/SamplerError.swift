/// A reason why no token can be chosen.
public enum SamplerError: Error, Hashable, Sendable {
  /// A sampling option is out of its range.
  case invalidOption(name: String, value: String, expected: String)
  /// There are no logits.
  case noLogits
  /// The logit of `token` is NaN or positive infinity.
  case invalidLogit(token: Int, value: String)
  /// Every logit is negative infinity: no token is allowed.
  case noPossibleToken(logitCount: Int)
  /// An accepted token has no logit.
  case tokenOutOfRange(token: Int32, logitCount: Int)
}

extension SamplerError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .invalidOption(let name, let value, let expected):
      return "sampling option '\(name)' is \(value); expected \(expected)"
    case .noLogits:
      return "there are no logits to sample from; expected one for each token"
    case .invalidLogit(let token, let value):
      return "the logit of token \(token) is \(value); expected a number below infinity"
    case .noPossibleToken(let logitCount):
      return "all \(logitCount) logits are -inf; expected at least one possible token"
    case .tokenOutOfRange(let token, let logitCount):
      return "accepted token \(token) has no logit; expected 0 to \(logitCount - 1)"
    }
  }
}

/// How the next token is chosen from logits.
public struct SamplingParameters: Hashable, Sendable {
  /// Divides the logits of the tokens left by the filters; 0 takes the best token always.
  public var temperature: Float
  /// The number of best tokens that stay; 0 keeps all.
  public var topK: Int
  /// The probability that the best tokens that stay must reach together; 1 keeps all.
  public var topP: Float
  /// The share of the best token's probability that a token needs to stay; 0 keeps all.
  public var minP: Float
  /// Divides the positive logits and multiplies the negative ones of recent tokens; 1 changes
  /// nothing (Keskar et al. 2019, "CTRL", with the sign rule that Hugging Face added).
  public var repetitionPenalty: Float
  /// The number of last accepted tokens that count as recent; 0 means none.
  public var repetitionWindow: Int
  /// The start of the random sequence.
  public var seed: UInt64

  /// Creates parameters; they are checked by `validate`, which `Sampler.init` calls.
  public init(
    temperature: Float = 0.8, topK: Int = 40, topP: Float = 0.95, minP: Float = 0.05,
    repetitionPenalty: Float = 1, repetitionWindow: Int = 64, seed: UInt64 = 0
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.repetitionWindow = repetitionWindow
    self.seed = seed
  }

  /// The largest `repetitionWindow`, as its memory is set aside at once.
  public static let largestRepetitionWindow = 1 << 20

  /// Checks that every option is in its range.
  /// - Throws: `SamplerError.invalidOption` for the first that is not.
  public func validate() throws(SamplerError) {
    func check(
      _ isValid: Bool, _ option: String, _ value: some CustomStringConvertible,
      _ expected: String
    ) throws(SamplerError) {
      guard isValid else {
        throw .invalidOption(name: option, value: value.description, expected: expected)
      }
    }
    try check(
      temperature >= 0 && temperature.isFinite, "temperature", temperature,
      "a finite number of at least 0")
    try check(topK >= 0, "top-k", topK, "0 (off) or more")
    try check(topP > 0 && topP <= 1, "top-p", topP, "a number above 0 and up to 1 (off)")
    try check(minP >= 0 && minP <= 1, "min-p", minP, "a number from 0 (off) to 1")
    try check(
      repetitionPenalty > 0 && repetitionPenalty.isFinite, "repetition penalty",
      repetitionPenalty, "a finite number above 0 (1 is off)")
    try check(
      (0...Self.largestRepetitionWindow).contains(repetitionWindow), "repetition window",
      repetitionWindow, "0 (off) to \(Self.largestRepetitionWindow)")
  }
}

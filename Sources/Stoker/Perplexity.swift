internal import Checkpoints
internal import Glibc
internal import Models
internal import Tensors

/// How well a model predicts a text.
public struct PerplexityResult: Sendable, Codable {
  /// exp of the mean negative log-likelihood of the scored tokens.
  public let perplexity: Double
  /// Tokens scored, and run through the model.
  public let scoredTokens: Int
  public let evaluatedTokens: Int
  public let windows: Int
  public let seconds: Double
}

extension MoEModel {
  /// The perplexity of `tokens` by llama.cpp's convention: windows of the context's length, each
  /// from an empty cache, of which the second half is scored. A text shorter than one window is one
  /// window.
  ///
  /// - Parameters:
  ///   - window: tokens per window; at most the context.
  ///   - onLogits: if given, called with the logits of every token in order; the tokens after the
  ///     last whole window are then run too, but not scored.
  ///   - progress: called with the tokens run so far and in all, and the perplexity so far.
  /// - Throws: `StokerError.tooShort` below three tokens.
  public func perplexity(
    of tokens: [Int32], window: Int, isCancelled: () -> Bool = { false },
    onLogits: ((UnsafeBufferPointer<Float>) throws -> Void)? = nil,
    progress: (_ done: Int, _ total: Int, _ perplexity: Double?) -> Void = { _, _, _ in }
  ) throws -> PerplexityResult {
    guard tokens.count >= 3 else { throw StokerError.tooShort(tokens: tokens.count, needed: 3) }
    guard window >= 4, window <= transformer.cache.capacity else {
      throw StokerError.option(
        name: "--context", found: "\(window)", expected: "4 to \(transformer.cache.capacity)")
    }
    try checkVocabulary(of: tokens)
    let start = monotonicNanoseconds()
    let length = min(window, tokens.count)
    let windows = tokens.count / length
    let total = onLogits == nil ? windows * length : tokens.count
    var sum = 0.0
    var scored = 0
    var done = 0
    while done < total, !isCancelled() {
      var part = Array(tokens[done..<min(done + length, total)])
      let isScored = part.count == length
      let targets = part
      if let begin = file.tokenizer.bosID, file.tokenizer.addsBOS { part[0] = begin }
      let completed = try prefill(part[...], at: 0, logits: .all, isCancelled: isCancelled) {
        index, logits in
        try onLogits?(UnsafeBufferPointer(logits))
        guard isScored, index >= length / 2, index + 1 < length else { return }
        sum += negativeLogLikelihood(of: targets[index + 1], logits: logits)
        scored += 1
      }
      guard completed else { break }
      done += part.count
      progress(done, total, scored > 0 ? exp(sum / Double(scored)) : nil)
    }
    return PerplexityResult(
      perplexity: exp(sum / Double(scored)), scoredTokens: scored, evaluatedTokens: done,
      windows: windows, seconds: Double(monotonicNanoseconds() - start) / 1e9)
  }

  private func negativeLogLikelihood(
    of token: Int32, logits: UnsafeMutableBufferPointer<Float>
  ) -> Double {
    var maximum = -Float.infinity
    for value in logits { maximum = max(maximum, value) }
    var sum = 0.0
    for value in logits { sum += Double(exp(value - maximum)) }
    return log(sum) - Double(logits[Int(token)] - maximum)
  }
}

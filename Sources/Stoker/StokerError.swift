/// What a caller asked that a model cannot do.
public enum StokerError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The prompt has no token.
  case emptyPrompt
  /// A token id is not in the vocabulary.
  case unknownToken(id: Int, vocabulary: Int)
  /// Prompt and continuation do not fit the context.
  case contextExceeded(needed: Int, context: Int, maximum: Int)
  /// An option's value makes no sense.
  case option(name: String, found: String, expected: String)
  /// A trace is not of a model of this shape, or cannot be run on it.
  case trace(reason: String)
  /// Fitted heads are asked for and there are none.
  case noPredictor(path: String, model: String)
  /// The history of a model's routing cannot be written.
  case history(path: String, reason: String)
  /// The machine cannot be measured with this folder.
  case calibration(folder: String, reason: String)
  /// Work was ended on request.
  case cancelled
  /// Too few tokens to score.
  case tooShort(tokens: Int, needed: Int)

  public var description: String {
    switch self {
    case .emptyPrompt:
      "the prompt is empty; give at least one token"
    case .unknownToken(let id, let vocabulary):
      "token id \(id) is not in the vocabulary, which has \(vocabulary) tokens"
    case .contextExceeded(let needed, let context, let maximum):
      "\(needed) tokens of prompt and continuation do not fit a context of \(context); shorten them"
        + (context < maximum ? " or raise --context (the model's is \(maximum))" : "")
    case .option(let name, let found, let expected):
      "\(name) is \(found), expected \(expected)"
    case .trace(let reason):
      "the trace cannot be replayed on this model: \(reason)"
    case .noPredictor(let path, let model):
      "there are no fitted heads at '\(path)'; make them with 'stoker fit-predictor \(model) --text FILE'"
    case .history(let path, let reason):
      "the history of this run cannot be written to '\(path)': \(reason); --no-history does without"
    case .calibration(let folder, let reason):
      "the drive of '\(folder)' cannot be measured: \(reason)"
    case .cancelled: "ended on request"
    case .tooShort(let tokens, let needed):
      "the text has \(tokens) tokens; scoring needs at least \(needed)"
    }
  }
}

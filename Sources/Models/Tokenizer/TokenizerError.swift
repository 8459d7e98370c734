/// A reason why a vocabulary cannot be used or a token id cannot be rendered.
public enum TokenizerError: Error, Hashable, Sendable {
  /// The vocabulary is of a kind other than byte-level BPE and SentencePiece's.
  case unsupportedModel(String)
  /// The splitting rule is none of those implemented.
  case unsupportedPreTokenizer(String)
  /// The vocabulary holds no token at all, or more than an `Int32` can number.
  case unusableTokenCount(Int)
  /// The list of token types is not as long as the list of tokens.
  case tokenTypeCountMismatch(types: Int, tokens: Int)
  /// No token stands for one of the 256 bytes, so some text could not be encoded.
  case missingByteToken(UInt8)
  /// The merge at `index` is not two non-empty strings around one space.
  case malformedMerge(index: Int, text: String)
  /// The merge at `index` reads or makes a string that is no token.
  case unknownMergeToken(index: Int, token: String)
  /// A special token's id (`role` is "bos" or "eos") is not in the vocabulary.
  case specialTokenOutOfRange(role: String, id: Int32, tokenCount: Int)
  /// The list of scores is not as long as the list of tokens.
  case scoreCountMismatch(scores: Int, tokens: Int)
  /// A token is longer than any that merges make.
  case overlongToken(id: Int32, byteCount: Int, maximum: Int)
  /// The vocabulary asks for a beginning-of-sequence token but names none.
  case missingBeginningOfSequence
  /// A token id to decode is not in the vocabulary.
  case tokenOutOfRange(id: Int32, tokenCount: Int)
}

extension TokenizerError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unsupportedModel(let found):
      return "tokenizer model '\(found)' is not supported; expected 'gpt2' (byte-level BPE) or "
        + "'llama' (SentencePiece BPE)"
    case .unsupportedPreTokenizer(let found):
      let names = PreTokenizer.allCases.map { "'\($0.rawValue)'" }.joined(separator: ", ")
      return "pre-tokenizer '\(found)' is not supported; expected one of \(names)"
    case .unusableTokenCount(let found):
      return "the tokenizer vocabulary has \(found) tokens; expected 1 to \(Int32.max)"
    case .tokenTypeCountMismatch(let types, let tokens):
      return "the tokenizer vocabulary has \(types) token types; expected \(tokens), one per token"
    case .missingByteToken(let byte):
      return "the tokenizer vocabulary has no token for byte \(byte); expected one for each of "
        + "the 256 bytes"
    case .malformedMerge(let index, let text):
      return "tokenizer merge \(index) is '\(text)'; expected two tokens separated by one space"
    case .unknownMergeToken(let index, let token):
      return "tokenizer merge \(index) needs the token '\(token)', which is not in the vocabulary"
    case .specialTokenOutOfRange(let role, let id, let tokenCount):
      return "the \(role) token has id \(id); expected 0 to \(tokenCount - 1)"
    case .scoreCountMismatch(let scores, let tokens):
      return "the tokenizer vocabulary has \(scores) scores; expected \(tokens), one per token"
    case .overlongToken(let id, let byteCount, let maximum):
      return "token \(id) has \(byteCount) bytes; expected at most \(maximum)"
    case .missingBeginningOfSequence:
      return "the tokenizer adds a bos token to prompts but its vocabulary names none"
    case .tokenOutOfRange(let id, let tokenCount):
      return "token id \(id) is not in the vocabulary; expected 0 to \(tokenCount - 1)"
    }
  }
}

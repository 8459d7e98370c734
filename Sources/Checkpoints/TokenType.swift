/// What a token is for; the values are those of GGUF's `tokenizer.ggml.token_type`.
package enum TokenType: Int32, Sendable {
  case normal = 1
  case unknown = 2
  case control = 3
  case userDefined = 4
  case unused = 5
  case byte = 6
}

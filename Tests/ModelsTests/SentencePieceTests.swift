import Checkpoints
import Routing
import Testing

@testable import Models

/// Vocabularies whose merges follow from scores: Mixtral's and ERNIE's.
@Suite struct SentencePieceTests {
  private let fixture: TokenizerFixture
  private let tokenizer: Tokenizer

  init() throws {
    fixture = try TokenizerFixture.load("spm")
    tokenizer = try fixture.tokenizer()
  }

  @Test func encodesAsHuggingFaceDoes() throws {
    #expect(fixture.cases.count >= 800)
    for `case` in fixture.cases {
      let ids = tokenizer.encode(bytes: `case`.bytes)
      #expect(
        ids == `case`.ids, "\(String(decoding: `case`.bytes, as: UTF8.self).debugDescription)")
    }
  }

  /// A prompt begins with the token after which the space before the text goes again.
  @Test func anyBytesSurviveARoundTrip() throws {
    var random = SplitMix64(state: 9)
    for _ in 0..<3000 {
      let byteCount = Int.random(in: 0...60, using: &random)
      var bytes = (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &random) }
      // The mark that stands for a space is one.
      for index in bytes.indices where bytes[index] == 0xe2 { bytes[index] = 0x20 }
      let ids = tokenizer.encodePrompt(bytes: bytes, parseSpecial: false)
      #expect(ids.first == 1)
      #expect(try tokenizer.decode(ids, skipsControl: true) == bytes)
    }
    #expect(tokenizer.encodePrompt("") == [1])
  }

  /// What is generated after a prompt keeps its spaces.
  @Test func aWordInTheMiddleKeepsItsSpace() throws {
    let ids = tokenizer.encode("a the")
    let decoder = try tokenizer.decode(ids)
    #expect(decoder == Array(" a the".utf8))
    #expect(try tokenizer.decode([1] + ids) == Array("<s>a the".utf8))
    #expect(try tokenizer.decode(ids.dropFirst()) == Array(" the".utf8))
  }

  /// The same tokens whether text is cut into words or merged whole.
  @Test func wordsAreMergedAsTheWholeTextIs() throws {
    var vocabulary = fixture.vocabulary
    // A token that goes on into a space: no cut is allowed then.
    vocabulary.tokens.append("e\u{2581}\u{2581}q".utf8)
    vocabulary.tokenTypes?.append(1)
    vocabulary.scores.append(-1e9)
    let whole = try Tokenizer(vocabulary)
    for `case` in fixture.cases {
      #expect(whole.encode(bytes: `case`.bytes) == `case`.ids)
    }
  }

  @Test(.timeLimit(.minutes(5))) func aMegabyteWithoutSpacesIsEncoded() throws {
    let bytes = [UInt8](repeating: UInt8(ascii: "e"), count: 1 << 20)
    let ids = tokenizer.encodePrompt(bytes: bytes)
    #expect(try tokenizer.decode(ids, skipsControl: true) == bytes)
  }

  @Test func whatIsWrongIsNamed() throws {
    var vocabulary = fixture.vocabulary
    vocabulary.scores.removeLast()
    let count = vocabulary.tokens.count
    #expect(throws: TokenizerError.scoreCountMismatch(scores: count - 1, tokens: count)) {
      _ = try Tokenizer(vocabulary)
    }
    vocabulary = fixture.vocabulary
    vocabulary.tokens.append(Array(repeating: UInt8(ascii: "e"), count: 513))
    vocabulary.tokenTypes?.append(1)
    vocabulary.scores.append(.nan)
    #expect(
      throws: TokenizerError.overlongToken(id: Int32(count), byteCount: 513, maximum: 512)
    ) { _ = try Tokenizer(vocabulary) }
    vocabulary = fixture.vocabulary
    vocabulary.tokenTypes = vocabulary.tokenTypes!.map { $0 == 6 ? 5 : $0 }
    #expect(throws: TokenizerError.self) { _ = try Tokenizer(vocabulary) }
    for error in [
      TokenizerError.scoreCountMismatch(scores: 1, tokens: 2),
      .overlongToken(id: 1, byteCount: 513, maximum: 512),
    ] { #expect("\(error)".contains("expected")) }
  }
}

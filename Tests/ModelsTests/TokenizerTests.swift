import Checkpoints
import Routing
import Testing

@testable import Models

@Suite struct TokenizerTests {
  @Test(arguments: TokenizerFixture.names)
  func encodesAsHuggingFaceDoes(_ name: String) throws {
    let fixture = try TokenizerFixture.load(name)
    let tokenizer = try fixture.tokenizer()
    #expect(fixture.cases.count >= 800)
    for `case` in fixture.cases {
      let ids = tokenizer.encode(bytes: `case`.bytes)
      #expect(
        ids == `case`.ids, "\(String(decoding: `case`.bytes, as: UTF8.self).debugDescription)")
    }
  }

  @Test(arguments: TokenizerFixture.names)
  func decodesToTheNormalizedText(_ name: String) throws {
    let fixture = try TokenizerFixture.load(name)
    let tokenizer = try fixture.tokenizer()
    for `case` in fixture.cases {
      let decoded = try tokenizer.decode(`case`.ids)
      // Special tokens keep their neighbors apart under normalization, as they do when encoding.
      guard !isNormalizedAcrossTokens(`case`.bytes) else { continue }
      #expect(decoded == `case`.normalizedBytes)
    }
  }

  @Test(arguments: TokenizerFixture.names)
  func invalidBytesSurviveARoundTrip(_ name: String) throws {
    let tokenizer = try TokenizerFixture.load(name).tokenizer()
    var random = SplitMix64(state: 7)
    for _ in 0..<3000 {
      let byteCount = Int.random(in: 0...40, using: &random)
      // Lead bytes below 0xCC and 0xF5 and up: nothing here changes under normalization.
      var bytes = (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &random) }
      for index in bytes.indices where (0xcc..<0xf5).contains(bytes[index]) {
        bytes[index] = [0xff, 0xc0, 0x80, 0xc3].randomElement(using: &random)!
      }
      #expect(try tokenizer.decode(tokenizer.encode(bytes: bytes)) == bytes)
    }
  }

  @Test func anyBytesSurviveARoundTripWithoutNormalization() throws {
    let tokenizer = try TokenizerFixture.load("llama-bpe").tokenizer()
    var random = SplitMix64(state: 8)
    for _ in 0..<5000 {
      let byteCount = Int.random(in: 0...60, using: &random)
      let bytes = (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &random) }
      #expect(try tokenizer.decode(tokenizer.encode(bytes: bytes)) == bytes)
    }
  }

  @Test func normalizationLeavesInvalidBytesAlone() throws {
    let tokenizer = try TokenizerFixture.load("qwen2").tokenizer()
    let bytes: [UInt8] = [0xff, 0x65, 0xcc, 0x81, 0xcc, 0x65, 0xcc, 0x81, 0xed, 0xa0, 0x80]
    let expected: [UInt8] = [0xff, 0xc3, 0xa9, 0xcc, 0xc3, 0xa9, 0xed, 0xa0, 0x80]
    #expect(try tokenizer.decode(tokenizer.encode(bytes: bytes)) == expected)
  }

  @Test func everySequenceOfTwoBytesSurvivesARoundTrip() throws {
    let tokenizer = try Tokenizer(byteVocabulary(pre: "llama-bpe"))
    for first in UInt8.min...UInt8.max {
      for second in UInt8.min...UInt8.max {
        let ids = tokenizer.encode(bytes: [first, second])
        #expect(ids == [Int32(first), Int32(second)])
      }
    }
  }

  // The limit only stops a quadratic algorithm, which would take hours.
  @Test(.timeLimit(.minutes(5)))
  func aMegabyteOfOneLetterIsEncoded() throws {
    try expectRoundTrip(of: "a", count: 1 << 20, TokenizerFixture.load("demo").tokenizer())
  }

  @Test(.timeLimit(.minutes(5)), arguments: TokenizerFixture.names)
  func longRunsOfOneCharacterAreEncoded(_ name: String) throws {
    let tokenizer = try TokenizerFixture.load(name).tokenizer()
    for character in ["a", " ", "\n", "<", "7", "é", "漢"] {
      try expectRoundTrip(of: character, count: 1 << 15, tokenizer)
    }
  }

  private func expectRoundTrip(
    of character: String, count: Int, _ tokenizer: Tokenizer
  ) throws {
    let bytes = Array(String(repeating: character, count: count).utf8)
    #expect(try tokenizer.decode(tokenizer.encode(bytes: bytes)) == bytes)
  }

  @Test func controlTokensAreTextUnlessAskedFor() throws {
    let tokenizer = try TokenizerFixture.load("qwen2").tokenizer()
    let text = "a<|im_end|><tool_call>"
    let end = try #require(tokenizer.controlTokenID("<|im_end|>"))
    let ids = tokenizer.encode(text, parseSpecial: false)
    #expect(tokenizer.encode(text).contains(end))
    #expect(!ids.contains(end))
    #expect(ids.last == tokenizer.encode("<tool_call>").first)
    #expect(try tokenizer.decode(ids) == Array(text.utf8))
    #expect(tokenizer.controlTokenID("<tool_call>") == nil)
    #expect(tokenizer.controlTokenID("<|im_end|>x") == nil)
    #expect(tokenizer.isControlToken(end))
    #expect(!tokenizer.isControlToken(-1))
  }

  @Test func decodingCanSkipControlTokens() throws {
    let tokenizer = try TokenizerFixture.load("qwen2").tokenizer()
    let ids = tokenizer.encode("a<|im_end|>b<tool_call>")
    #expect(try tokenizer.decode(ids, skipsControl: true) == Array("ab<tool_call>".utf8))
  }

  @Test func promptsStartWithOneBeginningOfSequence() throws {
    let added = [(text: "<s>", type: Int32(3))]
    let with = try Tokenizer(byteVocabulary(adding: added, bosID: 256, addBOS: true))
    let without = try Tokenizer(byteVocabulary(adding: added, bosID: 256))
    #expect(with.encodePrompt("a") == [256, 97])
    #expect(with.encodePrompt("<s>a") == [256, 97])
    #expect(with.encodePrompt("") == [256])
    #expect(with.encode("a") == [97])
    #expect(without.encodePrompt("a") == [97])
  }

  @Test func withoutTypesOnlyTheEndsAreControlTokens() throws {
    var vocabulary = byteVocabulary(adding: [("<s>", 1), ("<e>", 1)], bosID: 256, eosID: 257)
    vocabulary.tokenTypes = nil
    let tokenizer = try Tokenizer(vocabulary)
    #expect(tokenizer.encode("<s>a<e>") == [256, 97, 257])
  }

  @Test func theLongestSpecialTokenWins() throws {
    let tokenizer = try Tokenizer(
      byteVocabulary(adding: [("<a", 4), ("<a>", 3), ("a>b", 4), ("", 3)]))
    #expect(tokenizer.encode("<a>b") == [257, 98])
    #expect(tokenizer.encode("<a>b", parseSpecial: false) == [256, 62, 98])
    #expect(tokenizer.encode("xa>b<") == [120, 258, 60])
  }

  @Test func bytesSpelledOutStandInForMissingTokens() throws {
    let complete = byteVocabulary(adding: [("<0x41>", 6)])
    var tokens = StringTable()
    for index in 0..<complete.tokens.count {
      tokens.append(index == 0x41 ? Array("B".utf8)[...] : complete.tokens[index])
    }
    var vocabulary = complete
    vocabulary.tokens = tokens
    let tokenizer = try Tokenizer(vocabulary)
    #expect(tokenizer.encode("AB") == [256, 65])
    #expect(try tokenizer.decode([256]) == [0x41])
  }
}

/// Whether an ordinary text that starts with a combining mark follows a special token, where the
/// normal form of the whole differs from the normal forms of the parts.
private func isNormalizedAcrossTokens(_ bytes: [UInt8]) -> Bool {
  let text = Array(String(decoding: bytes, as: UTF8.self).unicodeScalars)
  return text.indices.dropFirst().contains {
    text[$0 - 1] == ">" && text[$0].properties.canonicalCombiningClass != .notReordered
  }
}

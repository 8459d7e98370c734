import Checkpoints
import Routing
import Testing

@testable import Models

/// The steps of the tokenizer by themselves.
@Suite struct TokenizerStepTests {
  @Test func scalarsAreClassifiedAsByTheReference() throws {
    let ranges = try UnicodeFacts.load().ranges
    #expect(ranges.count > 1000)
    for range in ranges {
      for value in range.first...range.last {
        let bytes = Array(String(try #require(Unicode.Scalar(value))).utf8)
        let symbol = TextSymbol(in: bytes.span, at: 0)
        let kind =
          switch symbol.kind {
          case .letter: "L"
          case .number: "N"
          case .space, .lineBreak: "S"
          case .other: "O"
          }
        if kind != range.kind || symbol.byteCount != bytes.count {
          Issue.record("U+\(String(value, radix: 16)) is \(kind); expected \(range.kind)")
        }
      }
    }
  }

  @Test func scalarsAreNormalizedAsByTheReference() throws {
    let facts = try UnicodeFacts.load().normalized
    #expect(facts.count > 2000)
    for fact in facts {
      let bytes = bytesOfHex(fact.text)
      #expect(normalizedToFormC(bytes.span) == bytesOfHex(fact.normalized), "\(fact.text)")
    }
  }

  @Test(.timeLimit(.minutes(5)), arguments: [1, 31, 32, 33, 100, 50_000])
  func marksOfAnyNumberAreNormalized(_ count: Int) {
    // Marks of class 220 come before those of class 230, of which the first joins the letter.
    let text = "e" + String(repeating: "\u{301}\u{316}", count: count)
    let expected =
      "\u{e9}" + String(repeating: "\u{316}", count: count)
      + String(repeating: "\u{301}", count: count - 1)
    #expect(normalizedToFormC(Array(text.utf8).span) == Array(expected.utf8))
  }

  @Test(arguments: [
    ("gpt-2", "I'm  12 x\t\n!?", ["I", "'m", " ", " 12", " x", "\t", "\n", "!?"]),
    ("gpt-2", "'LL a\n\n b", ["'", "LL", " a", "\n\n", " b"]),
    ("gpt-2", "1234 ¼²", ["1234", " ¼²"]),
    (
      "dbrx", "I'M 1234 x!!\n\ny \n z",
      ["I", "'M", " ", "123", "4", " x", "!!\n\n", "y", " \n", " z"]
    ),
    ("dbrx", "(a)\r\n\t b  ", ["(a", ")\r\n", "\t", " b", "  "]),
    ("qwen2", "a12 34", ["a", "1", "2", " ", "3", "4"]),
    ("llama-bpe", "\u{a0}x \u{a0}1", ["\u{a0}x", " ", "\u{a0}", "1"]),
  ])
  func textIsSplitByTheRule(_ rule: String, _ text: String, _ expected: [String]) throws {
    #expect(
      pieces(of: Array(text.utf8), try #require(PreTokenizer(rawValue: rule)))
        == expected.map { Array($0.utf8) })
  }

  @Test func invalidBytesAreNeitherLettersNorSpaces() {
    let bytes: [UInt8] = [0x61, 0xff, 0xc3, 0x20, 0x80, 0x62, 0x20, 0x20, 0xfe]
    #expect(
      pieces(of: bytes, .gpt2)
        == [[0x61], [0xff, 0xc3], [0x20, 0x80], [0x62], [0x20], [0x20, 0xfe]])
  }

  @Test func illFormedSequencesAreReadByteByByte() {
    let illFormed: [[UInt8]] = [
      [0xc0, 0x80], [0xc1, 0xbf], [0xe0, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xf0, 0x80, 0x80, 0x80],
      [0xf4, 0x90, 0x80, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82], [0xc3, 0x28], [0x80],
    ]
    for bytes in illFormed {
      let symbol = TextSymbol(in: bytes.span, at: 0)
      #expect(symbol.scalar == nil && symbol.byteCount == 1, "\(bytes)")
    }
  }

  @Test func scanAndHeapMergeAlike() throws {
    let fixture = try TokenizerFixture.load("demo")
    let types = try tokenTypes(of: fixture.vocabulary)
    let byteAlphabet = ByteAlphabet()
    let index = TokenIndex(fixture.vocabulary.tokens, types: types) { byteAlphabet.bytes(of: $0) }
    let merges = try mergeTable(fixture.vocabulary.merges, table: index.table)
    var scan = PieceMerger(byteTokenIDs: try index.byteTokenIDs(), merges: merges)
    var heap = scan
    scan.scanLimit = .max
    heap.scanLimit = 0
    var random = SplitMix64(state: 3)
    let alphabet = Array("eeetttaaonisrh  .\n".utf8)
    for _ in 0..<2000 {
      let byteCount = Int.random(in: 1...80, using: &random)
      let piece = (0..<byteCount).map { _ in alphabet.randomElement(using: &random)! }
      var scanned: [Int32] = []
      var heaped: [Int32] = []
      scan.encode(piece.span, into: &scanned)
      heap.encode(piece.span, into: &heaped)
      #expect(scanned == heaped)
    }
  }

  private func pieces(of text: [UInt8], _ rule: PreTokenizer) -> [[UInt8]] {
    var pieces: [[UInt8]] = []
    var start = 0
    while start < text.count {
      let end = rule.pieceEnd(in: text.span, from: start)
      pieces.append(Array(text[start..<end]))
      start = end
    }
    return pieces
  }
}

@Suite struct StreamingDecoderTests {
  @Test func charactersComeOutWhole() throws {
    var decoder = StreamingDecoder(try Tokenizer(byteVocabulary()))
    var texts: [String] = []
    for byte in "aé€😀".utf8 { texts.append(try decoder.append(Int32(byte))) }
    #expect(texts == ["a", "", "é", "", "", "€", "", "", "", "😀"])
    #expect(decoder.flush() == "")
  }

  @Test func anUnfinishedCharacterIsReplacedAtTheEnd() throws {
    var decoder = StreamingDecoder(try Tokenizer(byteVocabulary()))
    #expect(try decoder.append(0xf0) == "")
    #expect(try decoder.append(0x9f) == "")
    #expect(decoder.flush() == "\u{fffd}")
    #expect(decoder.flush() == "")
  }

  @Test func piecesJoinToTheLenientlyDecodedWhole() throws {
    let tokenizer = try Tokenizer(byteVocabulary())
    var random = SplitMix64(state: 5)
    let likely: [UInt8] = [0x61, 0xe0, 0xa0, 0x80, 0xbf, 0xf0, 0x90, 0xed, 0x9f, 0xf4, 0x8f, 0xc3]
    for _ in 0..<5000 {
      let bytes = (0..<12).map { _ in
        Bool.random(using: &random)
          ? likely.randomElement(using: &random)! : UInt8.random(in: 0...255, using: &random)
      }
      var decoder = StreamingDecoder(tokenizer)
      var text = ""
      for byte in bytes { text += try decoder.append(Int32(byte)) }
      text += decoder.flush()
      #expect(Array(text.utf8) == Array(String(decoding: bytes, as: UTF8.self).utf8))
    }
  }

  @Test func controlTokensGiveNoTextUnlessAskedFor() throws {
    let tokenizer = try Tokenizer(byteVocabulary(adding: [("<e>", 3)]))
    var silent = StreamingDecoder(tokenizer)
    var plain = StreamingDecoder(tokenizer, skipsControl: false)
    #expect(try silent.append(256) == "")
    #expect(try plain.append(256) == "<e>")
  }

  @Test func anUnknownTokenChangesNothing() throws {
    var decoder = StreamingDecoder(try Tokenizer(byteVocabulary()))
    #expect(try decoder.append(0xc3) == "")
    #expect(throws: TokenizerError.tokenOutOfRange(id: 256, tokenCount: 256)) {
      try decoder.append(256)
    }
    #expect(try decoder.append(0xa9) == "é")
  }
}

@Suite struct TokenizerErrorTests {
  @Test func unsupportedKindsAreNamed() {
    var vocabulary = byteVocabulary(pre: "default")
    #expect(throws: TokenizerError.unsupportedPreTokenizer("default")) {
      try Tokenizer(vocabulary)
    }
    vocabulary.model = "bert"
    #expect(throws: TokenizerError.unsupportedModel("bert")) { try Tokenizer(vocabulary) }
    #expect(
      "\(TokenizerError.unsupportedPreTokenizer("x"))"
        == "pre-tokenizer 'x' is not supported; expected one of 'gpt-2', 'olmo', 'dbrx', "
        + "'refact', 'glm4', 'llama-bpe', 'gpt-4o', 'kimi-k2', 'deepseek-v3', 'deepseek-llm', 'qwen2', 'qwen35'"
    )
  }

  @Test func partsThatDisagreeAreRefused() {
    var vocabulary = byteVocabulary()
    vocabulary.tokenTypes?.removeLast()
    #expect(throws: TokenizerError.tokenTypeCountMismatch(types: 255, tokens: 256)) {
      try Tokenizer(vocabulary)
    }
    vocabulary = byteVocabulary(bosID: 256)
    #expect(throws: TokenizerError.specialTokenOutOfRange(role: "bos", id: 256, tokenCount: 256)) {
      try Tokenizer(vocabulary)
    }
    vocabulary = byteVocabulary(eosID: -1)
    #expect(throws: TokenizerError.specialTokenOutOfRange(role: "eos", id: -1, tokenCount: 256)) {
      try Tokenizer(vocabulary)
    }
    vocabulary = byteVocabulary(addBOS: true)
    #expect(throws: TokenizerError.missingBeginningOfSequence) { try Tokenizer(vocabulary) }
    vocabulary.tokens = StringTable()
    #expect(throws: TokenizerError.unusableTokenCount(0)) { try Tokenizer(vocabulary) }
    vocabulary = byteVocabulary()
    vocabulary.tokenTypes?[0x41] = 5
    #expect(throws: TokenizerError.missingByteToken(0x41)) { try Tokenizer(vocabulary) }
  }

  @Test(arguments: ["", "a", "a ", " b", "a b c", "a  b"])
  func malformedMergesAreRefused(_ merge: String) {
    #expect(throws: TokenizerError.malformedMerge(index: 0, text: merge)) {
      try Tokenizer(byteVocabulary(merges: [merge]))
    }
  }

  @Test func mergesOfUnknownTokensAreRefused() {
    #expect(throws: TokenizerError.unknownMergeToken(index: 1, token: "bc")) {
      try Tokenizer(byteVocabulary(adding: [("ab", 1)], merges: ["a b", "b c"]))
    }
    #expect(throws: TokenizerError.unknownMergeToken(index: 0, token: "\u{4e00}")) {
      try Tokenizer(byteVocabulary(merges: ["\u{4e00} a"]))
    }
  }

  @Test(arguments: [Int32(-1), 256, .max, .min])
  func idsOutOfRangeAreNotDecoded(_ id: Int32) throws {
    let tokenizer = try Tokenizer(byteVocabulary())
    #expect(throws: TokenizerError.tokenOutOfRange(id: id, tokenCount: 256)) {
      try tokenizer.decode([97, id])
    }
  }
}

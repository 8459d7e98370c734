import Foundation
import Testing

@testable import Checkpoints
@testable import Models

/// A `tiktoken.model`, against the tiktoken package (Tests/Fixtures/make_tokenizer_fixtures.py).
@Suite struct TiktokenTests {
  private struct Fixture: Decodable {
    let tokens: Int
    let cases: [TokenizerFixture.Case]
  }

  private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().appending(path: "Fixtures/tiktoken")

  private struct Metadata: MetadataSource {
    let path = "tiktoken.model"
    let metadata: [String: MetadataValue]
  }

  private func vocabulary(_ model: String, size: Int) throws -> TiktokenVocabulary {
    try TiktokenVocabulary(
      path: model, configPath: Self.folder.appending(path: "tokenizer_config.json").path,
      vocabularySize: size)
  }

  @Test func idsAreThoseOfTiktoken() throws {
    let fixture = try JSONDecoder().decode(
      Fixture.self, from: Data(contentsOf: Self.folder.appending(path: "cases.json")))
    let found = try vocabulary(
      Self.folder.appending(path: "tiktoken.model").path, size: fixture.tokens + 5)
    let tokenizer = try Tokenizer(TokenizerVocabulary(Metadata(metadata: found.metadata)))
    #expect(tokenizer.tokenCount == fixture.tokens + 5 && fixture.cases.count > 800)
    for `case` in fixture.cases {
      let ids = tokenizer.encode(bytes: `case`.bytes)
      #expect(
        ids == `case`.ids, "\(String(decoding: `case`.bytes, as: UTF8.self).debugDescription)")
      #expect(try tokenizer.decode(ids) == `case`.bytes)
    }
  }

  @Test(arguments: [
    ("YQ== 0\nYg== 2\n", "line 2"), ("YQ== 0\nYg==\n", "line 2"), ("!!!! 0\n", "line 1"),
    (" 0\n", "line 1"), ("YQ== 0 0\n", "line 1"), ("YQ== 0\nYg== 1\nYw== 2\n", "at most 2"),
  ])
  func whatIsNoVocabularyIsNamed(_ content: String, _ reason: String) throws {
    let path = NSTemporaryDirectory() + "tiktoken-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: path) }
    try Data(content.utf8).write(to: URL(filePath: path))
    let error = #expect(throws: CheckpointError.self) { try vocabulary(path, size: 2) }
    #expect(error.map { "\($0)" }?.contains(reason) == true)
    #expect(error.map { "\($0)" }?.contains(path) == true)
  }
}

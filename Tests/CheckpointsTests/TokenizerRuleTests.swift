import Foundation
import Testing

@testable import Checkpoints

/// The rules that split text, known by what a `tokenizer.json` says of them: normalizers and pre-tokenizers as the
/// tokenizers package writes them (Tests/Fixtures/make_tokenizer_fixtures.py).
@Suite struct TokenizerRuleTests {
  /// The rule that is read of a file with these parts.
  private func rule(_ parts: [String: Any]) throws -> String {
    let folder = URL(filePath: NSTemporaryDirectory()).appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let model: [String: Any] = ["type": "BPE", "vocab": ["a": 0, "b": 1], "merges": [String]()]
    let path = folder.appending(path: "tokenizer.json")
    try JSONSerialization.data(withJSONObject: parts.merging(["model": model]) { own, _ in own })
      .write(to: path)
    let config = folder.appending(path: "config.json")
    try Data("{}".utf8).write(to: config)
    let metadata = try HuggingFaceTokenizer(
      path: path.path, vocabularySize: 2, config: JSONFile(config.path), generation: nil
    ).metadata
    guard case .string(let rule) = metadata["tokenizer.ggml.pre"] else { return "none" }
    return rule
  }

  private func rules() throws -> [String: [String: Any]] {
    let path = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "Fixtures/tokenizer-rules.json")
    let object = try JSONSerialization.jsonObject(with: Data(contentsOf: path))
    return try #require(object as? [String: [String: Any]])
  }

  @Test func everyRuleIsKnown() throws {
    let rules = try rules()
    #expect(rules.count >= 8)
    for (name, parts) in rules { #expect(try rule(parts) == name) }
  }

  /// Line breaks may stand in a pattern as themselves or as escapes.
  @Test func escapesDoNotMatter() throws {
    for (name, parts) in try rules() {
      let data = try JSONSerialization.data(withJSONObject: parts)
      var text = String(decoding: data, as: UTF8.self)
      text = text.replacing(#"\\r"#, with: #"\r"#).replacing(#"\\n"#, with: #"\n"#)
      let changed = try #require(
        JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
      #expect(try rule(changed) == name)
    }
  }

  /// One symbol more among DeepSeek-V2's letters is another rule.
  @Test func anotherRuleIsRefused() throws {
    var parts = try #require(try rules()["deepseek-llm"])
    let text = String(
      decoding: try JSONSerialization.data(withJSONObject: parts), as: UTF8.self
    ).replacing("A-Za-z", with: "A-Za-z#")
    parts = try #require(
      JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    let error = #expect(throws: CheckpointError.self) { try rule(parts) }
    #expect(error.map { "\($0)" }?.contains("pre_tokenizer") == true)
  }
}

import Foundation
import Testing

@testable import Checkpoints
@testable import ExpertRuntime
@testable import Models
@testable import Stoker

/// What layers with a recurrent state keep between calls.
@Suite struct RecurrentStateTests {
  /// Tokens and their logits, one call for each, from `position` on.
  private func decode(_ model: MoEModel, _ ids: [Int32], at position: Int) throws -> [[Float]] {
    try ids.enumerated().flatMap { try Fixtures.logits(model, [$1], at: position + $0) }
  }

  @Test(arguments: ["tiny-qwen3next", "tiny-qwen35moe"])
  func aPassThatFailsCanBeMadeAgain(_ name: String) throws {
    let ids = (0..<24).map { Int32($0 * 11 % 300) }
    let expected = try decode(Fixtures.model(Fixtures.tiny(name)), ids, at: 0)

    let path = NSTemporaryDirectory() + "recurrent-\(UUID().uuidString).gguf"
    defer { try? FileManager.default.removeItem(atPath: path) }
    let bytes = try Data(contentsOf: URL(fileURLWithPath: Fixtures.tiny(name)))
    try bytes.write(to: URL(fileURLWithPath: path))
    let model = try Fixtures.smallestModel(path)
    #expect(!model.transformer.runtime.holdsEveryExpert)
    let handle = try #require(FileHandle(forUpdatingAtPath: path))
    defer { try? handle.close() }
    for (position, id) in ids.enumerated() {
      // Whatever is not resident cannot be read.
      try handle.truncate(atOffset: 4096)
      let failed: [[Float]]?
      do { failed = try Fixtures.logits(model, [id], at: position) } catch is RuntimeError {
        failed = nil
      }
      try handle.seek(toOffset: 0)
      try handle.write(contentsOf: bytes)
      // The first token needs experts that nothing has read.
      if position == 0 { #expect(failed == nil) }
      let found = try failed ?? Fixtures.logits(model, [id], at: position)
      #expect(found == [expected[position]], "token \(position)")
    }
  }

  @Test(arguments: ["tiny-qwen3next", "tiny-qwen35moe"])
  func aNewSequenceBeginsWithNothing(_ name: String) throws {
    let model = try Fixtures.model(Fixtures.tiny(name))
    let ids = (0..<16).map { Int32($0 * 7 % 300) }
    let first = try decode(model, ids, at: 0)
    _ = try decode(model, [3, 1, 4, 1, 5], at: 0)
    #expect(try decode(model, ids, at: 0) == first)
  }

  /// A head goes through its tokens one by one, and all that is kept is as if it had been so.
  @Test func theStateIsNoLongerForLongerSequences() throws {
    let file = try ModelFile(path: Fixtures.tiny("tiny-qwen3next"))
    let sizes = try #require(file.description.linear)
    #expect(sizes.layers == [0, 1] && file.description.attentionLayerCount == 1)
    #expect(
      RecurrentState.byteCount(file.description)
        == 2 * 2 * 4 * (sizes.valueHeadCount * 16 * 16 + 3 * sizes.channelCount))
    #expect(
      try file.summary().keyValueBytesPerToken == 2 * 2 * 16 * 4,
      "one layer's keys and values of two heads in single precision")
  }
}

import FoundationEssentials
import Logging
import Testing

@testable import Stoker

/// Models that begin with what earlier runs have used.
@Suite struct HistoryTests {
  private static let context = 96
  private static let process = 32 << 20

  /// A budget with slots for half of the demo model's experts.
  private static func options(_ file: ModelFile, folder: String?) throws -> ModelOptions {
    var options = ModelOptions(processMemory: process, context: context, historyFolder: folder)
    let needs = try file.requirements(options)
    options.memory = needs.fullBudget - needs.allSlots / 2
    return options
  }

  private static func model(_ file: ModelFile, folder: String?) throws -> MoEModel {
    try MoEModel(file, options: options(file, folder: folder), logger: Logger(label: "test"))
  }

  private static let request = GenerationRequest(
    prompt: [5], maxTokens: 48, sampling: SamplingParameters(temperature: 0))

  @Test func aHistoryBringsHitsAndChangesNoToken() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = try ModelFile(path: Fixtures.demo)
    let cold = try Self.model(file, folder: nil)
    let expected = try cold.generate(Self.request)
    try cold.saveHistory()
    #expect(!FileManager.default.fileExists(atPath: folder.path))

    let first = try Self.model(file, folder: folder.path)
    #expect(first.configuration.historyTokens == 0)
    #expect(try first.generate(Self.request).tokens == expected.tokens)
    try first.saveHistory()
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    #expect(names.count == 1 && names[0].hasSuffix(".history.json"))

    let second = try Self.model(file, folder: folder.path)
    let tokens = try #require(second.configuration.historyTokens)
    #expect(tokens == 48)
    second.fillFreeSlots()
    let warm = try second.generate(Self.request)
    #expect(warm.tokens == expected.tokens)
    let rates = [expected, warm].map { $0.statistics.experts.decode.hitRate ?? 0 }
    #expect(rates[1] > rates[0] + 0.03, "\(rates)")
    // Saving again replaces what this model has saved.
    try second.saveHistory()
    try second.saveHistory()
    let third = try Self.model(file, folder: folder.path)
    #expect(abs(third.configuration.historyTokens! - 96) < 2)
  }

  @Test func aDamagedHistoryIsToldAndReplaced() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = try ModelFile(path: Fixtures.demo)
    let first = try Self.model(file, folder: folder.path)
    _ = try first.generate(Self.request)
    try first.saveHistory()
    let name = try #require(
      FileManager.default.contentsOfDirectory(atPath: folder.path).first)
    let path = folder.appendingPathComponent(name)
    for damage in ["", "{", "{\"version\":2}", "[]"] {
      try Data(damage.utf8).write(to: path)
      let model = try Self.model(file, folder: folder.path)
      #expect(model.configuration.fallbacks.contains { $0.contains(path.path) }, "\(damage)")
      _ = try model.generate(Self.request)
      try model.saveHistory()
      let next = try Self.model(file, folder: folder.path)
      #expect(next.configuration.historyTokens == 48 && next.configuration.fallbacks.isEmpty)
    }
    // A folder that cannot be is told by name.
    let nowhere = try Self.model(file, folder: path.path + "/below")
    _ = try nowhere.generate(Self.request)
    #expect(throws: StokerError.self) { try nowhere.saveHistory() }
  }
}

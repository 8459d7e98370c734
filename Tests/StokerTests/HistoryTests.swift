import FoundationEssentials
import Logging
import Placement
import Residency
import Routing
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

  /// A folder for histories, not made yet.
  private static func scratch() -> URL {
    FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
  }

  /// A run of the model whose history is kept.
  private static func save(_ file: ModelFile, folder: String) throws {
    let model = try model(file, folder: folder)
    _ = try model.generate(request)
    try model.saveHistory()
  }

  private static let request = GenerationRequest(
    prompt: [5], maxTokens: 48, sampling: SamplingParameters(temperature: 0))

  @Test func aHistoryBringsHitsAndChangesNoToken() throws {
    let folder = Self.scratch()
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
    #expect(names.count == 2 && names.contains { $0.hasSuffix(".history.json") })
    #expect(names.contains { $0.hasSuffix(".moetrace") })

    let second = try Self.model(file, folder: folder.path)
    let tokens = try #require(second.configuration.historyTokens)
    #expect(tokens == 48)
    let residents = try #require(second.history?.history.residents)
    #expect(Set(residents) == Set(first.transformer.runtime.residentExperts!))
    second.fillFreeSlots()
    #expect(Set(residents).isSubset(of: second.transformer.runtime.residentExperts!))
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
    let folder = Self.scratch()
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = try ModelFile(path: Fixtures.demo)
    try Self.save(file, folder: folder.path)
    let name = try #require(
      FileManager.default.contentsOfDirectory(atPath: folder.path)
        .first { $0.hasSuffix(".json") })
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

  @Test func aPlanGoesByTheTokensThatWereDecodedLast() throws {
    let folder = Self.scratch()
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = try ModelFile(path: Fixtures.demo)
    try Self.save(file, folder: folder.path)
    // 47 tokens say too little; the one of the prompt was not decoded.
    #expect(file.recentRouting(in: folder.path) == nil)
    let second = try Self.model(file, folder: folder.path)
    _ = try second.generate(Self.request)
    try second.saveHistory()
    let recent = try #require(file.recentRouting(in: folder.path))
    #expect(recent.tokenCount == 94)

    let options = try Self.options(file, folder: nil)
    let subject = try PlanSubject(file, options: options)
    let machine = MachineProfile.preset("laptop")!
    var request = Planner.Request(memory: options.memory!, promptTokens: 1, tokens: 48)
    request.prefetch = false
    let planned = try Planner(subject, profile: machine, trace: nil, recent: recent).plan(request)
    #expect(planned.basis.contains("94 tokens"))
    // As if it had been given that as a trace.
    let trace = recent.trace(
      TraceHeader(model: "", geometry: recent.geometry, hasWeights: false), promptTokens: 1,
      tokens: 48)
    let given = try Planner(subject, profile: machine, trace: TraceSource(trace)).plan(request)
    #expect(planned.prediction.hitRate == given.prediction.hitRate)
    let supposed = try Planner(subject, profile: machine, trace: nil).plan(request)
    #expect(
      supposed.basis != planned.basis
        && planned.prediction.uncertainty > given.prediction.uncertainty)
  }

  @Test func damagedRoutingIsToldAndReplaced() throws {
    let folder = Self.scratch()
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = try ModelFile(path: Fixtures.demo)
    let path = RoutingFile(folder: folder.path, model: file).path
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let other = RecentRouting(
      geometry: RoutingGeometry(expertCount: 4, topK: 2, expertByteCounts: [7]))
    for damage in [Data(), Data("no trace".utf8), nil] {
      if let damage {
        try damage.write(to: URL(fileURLWithPath: path))
      } else {
        try RoutingFile(folder: folder.path, model: file).write(other, model: "other")
      }
      var refusal: String?
      #expect(file.recentRouting(in: folder.path, onRefusal: { refusal = $0 }) == nil)
      #expect(refusal?.contains(path) == true)
      let model = try Self.model(file, folder: folder.path)
      #expect(model.configuration.fallbacks.contains { $0.contains(path) }, "\(damage as Any)")
      _ = try model.generate(Self.request)
      try model.saveHistory()
      let next = try Self.model(file, folder: folder.path)
      #expect(next.configuration.fallbacks.isEmpty)
      #expect(next.transformer.runtime.recentRouting?.tokenCount == 47)
      try FileManager.default.removeItem(atPath: path)
    }
  }
}

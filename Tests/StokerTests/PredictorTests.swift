import Checkpoints
import Foundation
import Logging
import Models
import Residency
import Routing
import Testing

@testable import Stoker

/// Predicted routing: how well, and that it changes nothing but the time.
@Suite struct PredictorTests {
  /// A copy of a model in a folder of its own, for heads to be put beside it.
  private final class Copy {
    let folder: URL
    var path: String { folder.appendingPathComponent("model.gguf").path }
    var heads: String { path + ".predictor" }

    init(_ model: String) throws {
      folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      try FileManager.default.createSymbolicLink(
        atPath: path, withDestinationPath: model)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }
  }

  private static let ids: [Int32] = (0..<2100).map { (place: Int) -> Int32 in
    Int32((place * place * 31 + place * 7) % 1900)
  }

  @discardableResult
  private static func fit(
    _ copy: Copy, _ ids: [Int32], distances: [Int] = [0, 1, 2]
  ) throws -> PredictorFit {
    let file = try ModelFile(path: copy.path)
    let model = try MoEModel(
      file, options: ModelOptions(context: 512, threads: 2, prefetch: .off),
      logger: Logger(label: "test"))
    let fit = try #require(try model.fitPredictor(to: ids, distances: distances))
    #expect(fit.path == copy.heads && fit.tokens == ids.count)
    let heads = try PredictorFile(path: copy.heads)
    for distance in fit.heldOut {
      #expect(distance.fittedError < distance.gateReuseError, "distance \(distance.distance)")
      #expect(distance.fittedRecall > distance.gateReuseRecall)
      let kept = try #require(heads.recall[distance.distance])
      #expect(abs(kept.ofChoices - distance.fittedRecall) < 1e-6)
      #expect(kept.ofExperts > 0 && kept.ofExperts < 1)
    }
    return fit
  }

  private static func recall(_ results: [PredictorResult], _ name: String, _ distance: Int)
    throws -> Double
  {
    let result = results.first { $0.predictor == name && $0.distance == distance }
    return try #require(result?.total.recall)
  }

  @Test func whatGateReuseNamesOfWindowsHeldOutIsWhatItNamesWhenTheyAreDecoded() throws {
    let copy = try Copy(Fixtures.demo)
    let fit = try Self.fit(copy, Self.ids)
    let model = try MoEModel(
      ModelFile(path: Fixtures.demo), options: ModelOptions(context: 512, threads: 2),
      logger: Logger(label: "test"))
    // Of four windows of 512 tokens the last is held out.
    let results = try model.evaluatePredictors(
      on: Array(Self.ids[1536..<2048]), trial: PredictorTrial(farthest: 2))
    for distance in fit.heldOut {
      let decoded = try Self.recall(results, "gate-reuse", distance.distance)
      #expect(abs(decoded - distance.gateReuseRecall) < 0.005, "distance \(distance.distance)")
    }
  }

  @Test func recallOfMissesIsBetweenThatOfChoicesAndThatOfExperts() {
    let recall = PredictionRecall(ofChoices: 0.9, ofExperts: 0.6)
    let shares = [0, 0.1, 0.3, 0.6, 1].map(recall.ofMisses)
    #expect(shares.first == 0.9 && shares.last == 0.6 && shares == shares.sorted(by: >))
    let impossible = PredictionRecall(ofChoices: .nan, ofExperts: 7)
    #expect(impossible.ofChoices == 0 && impossible.ofExperts == 1)
  }

  @Test func theControlFindsEverything() throws {
    for path in Fixtures.tinyModels.map(Fixtures.tiny) + [Fixtures.demo] {
      let file = try ModelFile(path: path)
      let model = try MoEModel(
        file, options: ModelOptions(context: 96, threads: 2), logger: Logger(label: "test"))
      let vocabulary = Int32(model.transformer.description.vocabularySize)
      let results = try model.evaluatePredictors(
        on: (0..<60).map { ($0 * 37 + 5) % vocabulary }, trial: PredictorTrial(farthest: 2))
      let control = try #require(results.first { $0.predictor == "control" })
      #expect(control.total.recall == 1 && control.total.missRecall ?? 1 == 1)
      let topK = model.transformer.runtime.topK
      #expect(control.layers.map(\.foundInK) == control.layers.map { _ in 60 * topK })
      // And chance is not what gate reuse is.
      let reuse = try Self.recall(results, "gate-reuse", 1)
      #expect(reuse > 0 && reuse < 1)
    }
  }

  @Test(.enabled(if: Fixtures.hasSharedDemo, "needs the demo model's texts"))
  func fittedHeadsBeatGateReuse() throws {
    let copy = try Copy(Fixtures.demo)
    let file = try ModelFile(path: copy.path)
    func ids(_ name: String) throws -> [Int32] {
      let text = try Data(contentsOf: Fixtures.sharedDemo.appendingPathComponent(name))
      return file.tokenizer.encodePrompt(bytes: Array(text))
    }
    // Both kinds of text are in it, one after the other.
    let text = try ids("fit.txt")
    try Self.fit(copy, Array(text.prefix(20_480) + text.suffix(20_480)))
    let model = try MoEModel(
      file, options: ModelOptions(context: 512, threads: 2), logger: Logger(label: "test"))
    for (name, floors) in [("prose.txt", [0.9, 0.85, 0.79]), ("code.txt", [0.88, 0.83, 0.77])] {
      let results = try model.evaluatePredictors(
        on: Array(try ids(name).prefix(1536)), trial: PredictorTrial(farthest: 2))
      for (distance, floor) in floors.enumerated() {
        let fitted = try Self.recall(results, "fitted", distance)
        #expect(fitted > floor, "\(name), distance \(distance)")
        #expect(fitted > (try Self.recall(results, "gate-reuse", distance)) + 0.05)
        #expect(fitted > (try Self.recall(results, "corrected", distance)) + 0.02)
      }
    }
  }

  @Test func theOutputIsTheSameWithEveryPredictor() throws {
    let copy = try Copy(Fixtures.demo)
    try Self.fit(copy, Self.ids)
    let file = try ModelFile(path: copy.path)
    func tokens(_ options: ModelOptions) throws -> (logits: [UInt32], ahead: Int) {
      let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
      var bits: [UInt32] = []
      try model.transformer.forward([9, 30, 700].span, at: 0, phase: .prefill, logits: .none) {
        _, _ in
      }
      for step in 0..<50 {
        try model.transformer.forward(
          [Int32(step * 31 % 1900)].span, at: 3 + step, phase: .decode, logits: .last
        ) { bits += $1.map(\.bitPattern) }
      }
      return (bits, model.transformer.runtime.statistics.totalPrefetch.issued.count)
    }
    var options = ModelOptions(processMemory: 32 << 20, context: 64, threads: 2, prefetch: .off)
    let needs = try file.requirements(options)
    let expected = try tokens(options)
    #expect(expected.ahead == 0)
    for share in [0.3, 0.6] {
      options.memory = needs.minimumBudget + (2 << 20) + Int(share * Double(needs.allSlots))
      for kind in PredictorKind.allCases {
        for mode in [PrefetchMode.auto, .depth(3)] {
          for io in [ReadEngineKind.auto, .pread] {
            options.predictor = kind
            options.prefetch = mode
            options.io = io
            let found = try tokens(options)
            #expect(found.logits == expected.logits, "\(kind), \(mode), \(io), \(share)")
            // Insisted on, something is read ahead.
            #expect(found.ahead > 0 || mode == .auto, "\(kind), \(mode), \(io), \(share)")
          }
        }
      }
    }
  }

  @Test func whoInsistsIsToldThatThereIsNoRoom() throws {
    let file = try ModelFile(path: Fixtures.demo)
    var options = ModelOptions(processMemory: 0, context: 64, threads: 1, prefetch: .depth(3))
    options.memory = try file.requirements(options).minimumBudget
    for (mode, isTold) in [(PrefetchMode.depth(3), true), (.auto, false), (.off, false)] {
      options.prefetch = mode
      let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
      #expect(!model.transformer.runtime.canPrefetch)
      let told = model.configuration.fallbacks.contains {
        $0.contains("--prefetch 3 reads nothing")
      }
      #expect(told == isTold)
    }
  }

  @Test func foreignHeadsAreRefused() throws {
    let (own, other) = (try Copy(Fixtures.demo), try Copy(Fixtures.tiny("tiny-olmoe")))
    try Self.fit(own, Self.ids, distances: [1])
    try FileManager.default.copyItem(atPath: own.heads, toPath: other.heads)
    func open(_ copy: Copy) throws {
      let file = try ModelFile(path: copy.path)
      _ = try file.requirements(ModelOptions(context: 64))
      let model = try MoEModel(
        file, options: ModelOptions(context: 64, prefetch: .off), logger: Logger(label: "test"))
      _ = try model.evaluatePredictors(on: [1, 2, 3])
    }
    try open(own)
    #expect {
      try open(other)
    } throws: {
      "\($0)".contains(other.heads) && "\($0)".contains("fit-predictor")
    }
    // Damaged in whatever way, it is told and nothing is read beyond it.
    let bytes = try Data(contentsOf: URL(fileURLWithPath: own.heads))
    for count in [0, 10, 100, bytes.count / 2, bytes.count - 1] {
      try bytes.prefix(count).write(to: URL(fileURLWithPath: own.heads))
      #expect(throws: (any Error).self) { try open(own) }
    }
    // Asked for in vain.
    try FileManager.default.removeItem(atPath: own.heads)
    #expect {
      _ = try ModelFile(path: own.path).requirements(ModelOptions(predictor: .fitted))
    } throws: { "\($0)".contains("stoker fit-predictor") }
  }

  @Test func aTraceIsJudgedByItsHistory() throws {
    let trace = try RoutingTrace(
      path: Fixtures.repository.appendingPathComponent("traces/demo.moetrace").path)
    let results = trace.evaluatePredictors()
    let names = Set(results.map(\.predictor))
    #expect(names == Set(HistoryPredictorName.allCases.map(\.rawValue)))
    // Better than chance, which is k of the experts.
    for result in results {
      let chance = Double(trace.header.geometry.topK) / Double(trace.header.geometry.expertCount)
      #expect(try #require(result.total.recall) > 1.5 * chance, "\(result.predictor)")
    }
  }
}

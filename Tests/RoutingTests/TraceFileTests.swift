import Foundation
import TestSupport
import Testing

@testable import Routing

/// A folder that goes with its owner.
final class ScratchFolder {
  let url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)

  init() throws {
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  func path(_ name: String) -> String { url.appendingPathComponent(name).path }

  func write(_ text: String, to name: String) throws -> String {
    try Data(text.utf8).write(to: url.appendingPathComponent(name))
    return path(name)
  }
}

@Suite struct TraceFileTests {
  private static func header(
    experts: Int = 60, topK: Int = 3, hasWeights: Bool, hasScores: Bool = false
  )
    -> TraceHeader
  {
    TraceHeader(
      model: "a \"model\"",
      geometry: RoutingGeometry(
        expertCount: experts, topK: topK, expertByteCounts: [100, 200, 100, 100]),
      elementTypes: ["Q4_0", "Q4_K", "Q4_0", "Q4_0"],
      slotByteCounts: [8192, 12288, 8192, 8192], workload: "prose", provenance: "a test",
      hasWeights: hasWeights, hasScores: hasScores)
  }

  private static func events(_ header: TraceHeader, count: Int, seed: UInt64) -> [TraceEvent] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { index in
      var event = TraceEvent()
      event.sequence = Int32(index / 97)
      event.phase = index % 97 < 4 ? .prefill : .decode
      event.step = Int32(index % 97 / 4) * (index % 13 == 0 ? 100_000 : 1)
      event.layer = index % header.geometry.layerCount
      for _ in 0..<(event.phase == .prefill ? Int.random(in: 2...200, using: &generator) : 1) {
        let ids = Array(0..<UInt16(header.geometry.expertCount)).shuffled(using: &generator)
        event.experts += ids.prefix(header.geometry.topK)
      }
      if header.hasWeights {
        event.weights = event.experts.map { _ in
          TraceWeight.weight(of: UInt16.random(in: 0...0xf7f, using: &generator))
        }
      }
      if header.hasScores {
        let tokens = event.experts.count / header.geometry.topK
        event.scores = (0..<tokens * header.geometry.expertCount).map { _ in
          .random(in: 0...255, using: &generator)
        }
      }
      if index % 5 == 0 {
        let small = [3, 500_000, 1, -200_000, -1, 0, 0, 7, 1 << 29, 12]
        event.prefetch = PrefetchLedger(figures: small)!
      }
      return event
    }
  }

  /// Writes `events` in so many recordings, each a block; returns the file.
  private static func write(
    _ events: [TraceEvent], _ header: TraceHeader, blocks: Int, to path: String
  ) throws -> Data {
    let count = events.count / blocks
    for block in 0..<blocks {
      let writer = try TraceWriter(appendingTo: path, header: header)
      for event in events[block * count..<(block + 1) * count] { try writer.append(event) }
      try writer.finish()
    }
    return try Data(contentsOf: URL(fileURLWithPath: path))
  }

  private static func read(_ path: String) throws -> (events: [TraceEvent], torn: Int) {
    var reader = try TraceReader(path: path)
    var events: [TraceEvent] = []
    var event = TraceEvent()
    while try reader.next(into: &event) { events.append(event) }
    return (events, reader.tornByteCount)
  }

  @Test(arguments: [1, 2, 8, 60, 128, 4096], [true, false])
  func eventsComeBackAsTheyWere(experts: Int, hasWeights: Bool) throws {
    let folder = try ScratchFolder()
    let header = Self.header(
      experts: experts, topK: min(3, experts), hasWeights: hasWeights,
      hasScores: hasWeights && experts < 100)
    let events = Self.events(header, count: 1500, seed: UInt64(experts))
    let writer = try TraceWriter(creating: folder.path("t"), header: header)
    for event in events { try writer.append(event) }
    #expect(!FileManager.default.fileExists(atPath: folder.path("t")))
    try writer.finish()
    let (found, torn) = try Self.read(folder.path("t"))
    #expect(found == events)
    #expect(torn == 0)
    #expect(try TraceReader(path: folder.path("t")).header == header)
    let trace = try RoutingTrace(path: folder.path("t"))
    #expect(trace.eventCount == events.count)
  }

  @Test func weightsComeBackWithinTheirPrecision() {
    for weight in stride(from: Float(0.0001), to: 1, by: 0.00037) {
      let found = TraceWeight.weight(of: TraceWeight.code(of: weight))
      #expect(abs(found - weight) <= 0.005 * weight)
    }
    #expect(TraceWeight.weight(of: TraceWeight.code(of: 0)) == 0)
    #expect(TraceWeight.weight(of: TraceWeight.code(of: 65503)).isFinite)
  }

  @Test func scoresComeBackWithinTheirPrecision() {
    for step in 0...250 {
      let probability = exp2(-Float(step) / 16.4)
      let found = TraceScore.probability(of: TraceScore.code(of: probability))
      #expect(abs(found - probability) <= 0.022 * probability)
    }
    for nothing in [0, 1e-6, -1, .nan] as [Float] {
      #expect(TraceScore.probability(of: TraceScore.code(of: nothing)) == 0)
    }
    #expect(TraceScore.code(of: 1) == 0 && TraceScore.code(of: 2) == 0)
  }

  /// Wherever a recording is cut off, what is whole is read, and the next recording goes on there.
  @Test func tornEndsAreRecovered() throws {
    let folder = try ScratchFolder()
    let header = Self.header(hasWeights: true)
    let events = Self.events(header, count: 400, seed: 1)
    let whole = try Self.write(events, header, blocks: 4, to: folder.path("t"))
    #expect(try Self.read(folder.path("t")).events == events)
    var counts: Set<Int> = []
    for length in stride(from: whole.count - 1, to: TraceFrame.encode(header).count, by: -41) {
      let path = folder.path("cut")
      try whole.prefix(length).write(to: URL(fileURLWithPath: path))
      let (found, torn) = try Self.read(path)
      #expect(found == Array(events.prefix(found.count)))
      #expect(found.count % 100 == 0)
      counts.insert(found.count)
      #expect(try RoutingTrace(path: path).tornByteCount == torn)
      let writer = try TraceWriter(appendingTo: path, header: header)
      #expect(writer.cutByteCount == torn)
      try writer.append(events[7])
      try writer.finish()
      let again = try Self.read(path)
      #expect(again.events == found + [events[7]])
      #expect(again.torn == 0 && torn < length)
    }
    #expect(counts == [0, 100, 200, 300])
  }

  @Test func whatARecorderDropsIsOnDisk() throws {
    let folder = try ScratchFolder()
    let header = Self.header(hasWeights: false)
    let events = Self.events(header, count: 10, seed: 3)
    do {
      let writer = try TraceWriter(appendingTo: folder.path("t"), header: header)
      for event in events { try writer.append(event) }
    }
    #expect(try Self.read(folder.path("t")).events == events)
    do {
      let writer = try TraceWriter(creating: folder.path("u"), header: header)
      for event in events { try writer.append(event) }
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.url.path) == ["t"])
  }

  /// No damage is taken for a trace: every changed byte is an error or, in the last block, a torn end.
  @Test func damageIsFound() throws {
    let folder = try ScratchFolder()
    let header = Self.header(hasWeights: true)
    let events = Self.events(header, count: 60, seed: 2)
    let whole = try Self.write(events, header, blocks: 2, to: folder.path("t"))
    var generator = SeededGenerator(seed: 9)
    var errors = 0
    for place in stride(from: 0, to: whole.count, by: 7) {
      var damaged = whole
      damaged[place] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &generator)
      try damaged.write(to: URL(fileURLWithPath: folder.path("d")))
      do {
        let (found, torn) = try Self.read(folder.path("d"))
        #expect(found == Array(events.prefix(30)) && torn > 0, "byte \(place)")
      } catch {
        #expect(error is TraceError)
        errors += 1
      }
    }
    #expect(errors > 10)
  }

  /// Bytes that carry a right checksum but no events are refused, and nothing crashes.
  @Test func randomPayloadsAreRefused() throws {
    let header = Self.header(hasWeights: true)
    var generator = SeededGenerator(seed: 4)
    for _ in 0..<20_000 {
      let bytes = (0..<Int.random(in: 0...60, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      var codec = TraceCodec(header: header)
      var event = TraceEvent()
      var position = 0
      while position < bytes.count, codec.decode(bytes, at: &position, into: &event) {
        #expect(event.experts.allSatisfy { Int($0) < header.geometry.expertCount })
      }
      #expect(position <= bytes.count)
    }
  }

  @Test func tracesOfOtherModelsAreNotAppendedTo() throws {
    let folder = try ScratchFolder()
    try TraceWriter(appendingTo: folder.path("t"), header: Self.header(hasWeights: true)).finish()
    #expect(throws: TraceError.self) {
      try TraceWriter(
        appendingTo: folder.path("t"), header: Self.header(experts: 61, hasWeights: true))
    }
    let other = try folder.write("something else", to: "other")
    #expect(throws: TraceError.notATrace(path: other)) {
      try TraceWriter(appendingTo: other, header: Self.header(hasWeights: true))
    }
    #expect(try String(contentsOfFile: other, encoding: .utf8) == "something else")
  }
}

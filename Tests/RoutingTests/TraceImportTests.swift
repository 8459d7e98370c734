import Foundation
import Testing

@testable import Routing

@Suite struct TraceImportTests {
  private static let routeTrace = """
    # route_trace v1
    # model=/data/some-model.gguf arch=x n_layer=3 n_expert=8 n_expert_used=2
    # layer=1 expert_bytes=100 dense_bytes=7
    # layer=2 expert_bytes=200 dense_bytes=7
    turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
    0,0,0,1,0,3,0.5,0,100
    0,0,0,1,1,4,0.25,0,100
    0,0,1,1,0,4,0.75,0,100
    0,0,1,1,1,7,0.125,0,100
    0,0,1,2,0,1,0.5,0,200
    0,0,1,2,1,2,0.5,0,200
    0,1,2,1,0,3,0.5,1,100
    0,1,2,1,1,5,0.5,0,100
    0,1,2,2,0,0,1.0,0,200
    0,1,2,2,1,6,0.0,0,200
    """

  @Test func routeTraces() throws {
    let folder = try ScratchFolder()
    let trace = try TraceImport.read([folder.write(Self.routeTrace, to: "t.txt")])
    #expect(trace.header.model == "some-model.gguf")
    #expect(
      trace.header.geometry
        == RoutingGeometry(expertCount: 8, topK: 2, expertByteCounts: [100, 200]))
    var event = TraceEvent()
    trace.read(0, into: &event)
    #expect(event.phase == .prefill && event.layer == 0 && event.experts == [3, 4, 4, 7])
    #expect(event.weights == [0.5, 0.25, 0.75, 0.125])
    #expect((0..<4).map { trace.layer(of: $0) } == [0, 1, 0, 1])
    #expect((0..<4).map { trace.phase(of: $0) } == [.prefill, .prefill, .decode, .decode])
    #expect(Array(trace.experts(of: 3)) == [0, 6])
  }

  /// What a file says is not overruled.
  @Test func optionsAreForWhatAFileLeavesOut() throws {
    let folder = try ScratchFolder()
    let trace = try TraceImport.read(
      [folder.write(Self.routeTrace, to: "t")],
      options: TraceImportOptions(expertCount: 1, expertByteCount: 7))
    #expect(trace.header.geometry.expertCount == 8)
    #expect(trace.header.geometry.expertByteCounts == [100, 200])
    let ids = try folder.write(#"{"tok": 1, "layers": [[0, 3], [1, 2]]}"#, to: "u")
    #expect(throws: TraceError.self) {
      try TraceImport.read([ids], options: TraceImportOptions(expertCount: 3))
    }
  }

  @Test func jsonLinesOfTokens() throws {
    let folder = try ScratchFolder()
    let ids = try TraceImport.read([
      folder.write(
        """
        {"tok": 1, "layers": [[0, 3], [1, 2]]}
        {"tok": 2, "layers": [[4, 3], [1, 0]]}

        """, to: "a")
    ])
    #expect(ids.header.geometry.expertCount == 5)
    #expect(ids.header.geometry.expertByteCounts == [1 << 20, 1 << 20])
    #expect(ids.eventCount == 4 && !ids.header.hasWeights)
    let line = #"""
      {"seq":7,"pos":3,"phase":"decode","experts":[[0,3]],"weights":[[0.5,0.25]]}
      """#
    let weighted = try TraceImport.read(
      [folder.write(line, to: "b")],
      options: TraceImportOptions(expertCount: 16, expertByteCount: 10))
    #expect(
      weighted.header.geometry == RoutingGeometry(expertCount: 16, topK: 2, expertByteCounts: [10]))
    #expect(weighted.sequence(of: 0) == 7 && Array(weighted.weights(of: 0)) == [0.5, 0.25])
  }

  @Test func fingerprints() throws {
    let folder = try ScratchFolder()
    let trace = try TraceImport.read([
      folder.write(
        #"""
        {"full_text": ["ignored"], "router_data": [
          {"token_9": {"layer_1": {"selected_experts": [2, 1], "selected_probs": [0.75, 0.25]},
                       "layer_0": {"selected_experts": [5, 4], "selected_probs": [0.5, 0.5]}}}]}
        """#, to: "t")
    ])
    #expect(trace.eventCount == 2)
    #expect(Array(trace.experts(of: 0)) == [5, 4] && Array(trace.experts(of: 1)) == [2, 1])
    #expect(trace.step(of: 0) == 9)
  }

  @Test func filesOfLayers() throws {
    let folder = try ScratchFolder()
    func line(_ ids: [Int]) -> String {
      ids.map { "\($0)" }.joined(separator: "\t") + "\t\t"
        + ids.map { "0.\($0)" }.joined(separator: "\t") + "\n"
    }
    let second = try folder.write(line(Array(10..<22)) + line(Array(30..<36)), to: "w_10.txt")
    let first = try folder.write(line(Array(0..<12)) + line(Array(20..<26)), to: "w_2.txt")
    let trace = try TraceImport.read([second, first])
    #expect(trace.eventCount == 6)
    #expect((0..<6).map { trace.layer(of: $0) } == [0, 1, 0, 1, 0, 1])
    #expect((0..<6).map { Int(trace.sequence(of: $0)) } == [0, 0, 0, 0, 1, 1])
    #expect(Array(trace.experts(of: 3)) == [16, 17, 18, 19, 20, 21])
    #expect(abs(trace.weights(of: 0).first! - 0) < 1e-6)
  }

  /// Each edit of a good trace with the line and the field that the error is to name.
  @Test(arguments: [
    ("0,0,1,1,1,7,0.125", "0,0,1,1,1,8,0.125", 9, "expert"),
    ("0,0,1,1,1,7,0.125", "0,0,1,1,1,x,0.125", 9, "expert"),
    ("0,0,1,1,1,7,0.125", "0,0,1,1,1,4,0.125", 8, "layer 0 of position 1"),
    ("0,0,1,1,1,7,0.125", "0,0,1,1,1,7,nan", 8, "layer 0 of position 1"),
    ("0,0,1,1,1,7,0.125", "0,0,1,1,1,7,half", 9, "weight"),
    ("0,0,1,1,1,7,0.125", "0,0,1,1,0,7,0.125", 9, "slot"),
    ("0,0,1,1,1,7,0.125", "0,2,1,1,1,7,0.125", 9, "phase"),
    ("0,0,1,1,1,7,0.125,0,100", "0,0,1,1,1,7", 9, "the row"),
    ("0,1,2,2,0,0,1.0,0,200\n0,1,2,2,1", "0,1,2,0,0,0,1.0,0,200\n0,1,2,0,1", 14, "layer"),
    ("n_expert=8", "n_expert=many", 15, "n_expert"),
    ("n_expert=8", "n_expert=1", 15, "n_expert_used"),
    ("expert_bytes=200", "expert_bytes=9223372036854775807", 4, "expert_bytes"),
    ("expert_bytes=200", "expert_bytes=0", 4, "expert_bytes"),
    ("turn,phase", "phase,turn", 5, "the column names"),
  ])
  func malformedRowsAreNamed(_ good: String, _ bad: String, _ line: Int, _ field: String) throws {
    let folder = try ScratchFolder()
    let text = Self.routeTrace.replacingOccurrences(of: good, with: bad)
    try #require(text != Self.routeTrace)
    let path = try folder.write(text, to: "t")
    do {
      _ = try TraceImport.read([path])
      Issue.record("imported")
    } catch {
      guard case .malformed(path, let foundLine, let foundField, _, _) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(foundLine == line && foundField == field, "\(error)")
    }
  }

  @Test(arguments: [
    (#"{"tok": 1, "layers": [[0, 3], [1, 2]]}"# + "\n" + #"{"tok": 2, "layers": [[4, 3]]}"#, 2),
    (
      #"{"tok": 1, "layers": [[0, 3], [1, 2]]}"# + "\n"
        + #"{"tok": 2, "layers": [[4, 3], [1, 1]]}"#, 2
    ),
    (
      #"{"tok": 1, "layers": [[0, 3], [1, 2]]}"# + "\n"
        + #"{"tok": 2, "layers": [[4, 3], [1, -1]]}"#, 2
    ),
    (#"{"tok": 1, "layers": [[0, 3], [1, 2]]}"# + "\n" + #"{"tok": 2, "layers": [[4, 3], [1, "#, 2),
    (#"{"tok": 1, "layers": [[0, 3], [1, "2"]]}"#, 1),
    (#"{"tok": 1, "layers": []}"#, 1),
  ])
  func malformedLinesAreNamed(_ text: String, _ line: Int) throws {
    let folder = try ScratchFolder()
    let path = try folder.write(text, to: "t")
    do {
      _ = try TraceImport.read([path])
      Issue.record("imported")
    } catch {
      guard case .malformed(path, line, _, _, _) = error else {
        Issue.record("\(error)")
        return
      }
    }
  }

  @Test func otherFilesAreRefused() throws {
    let folder = try ScratchFolder()
    for text in ["", "hello", "<html>", "\u{0}\u{1}"] {
      let path = try folder.write(text, to: "t")
      #expect(throws: TraceError.unknownFormat(path: path)) { try TraceImport.read([path]) }
    }
    #expect(throws: TraceError.self) { try TraceImport.read([folder.path("absent")]) }
  }

  @Test func jsonLinesComeBack() throws {
    let folder = try ScratchFolder()
    let trace = try TraceImport.read([folder.write(Self.routeTrace, to: "t")])
    var text = TraceLines.header(trace.header)
    var event = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      text += TraceLines.line(event, topK: 2, experts: trace.header.geometry.expertCount)
    }
    event.prefetch = PrefetchLedger(figures: [2, 4096, 1, 2048, 0, 0, -1, -2048, 100, 9])!
    let last = TraceLines.line(event, topK: 2, experts: trace.header.geometry.expertCount)
    let withLedger = try TraceImport.read([
      folder.write(
        String(decoding: TraceLines.header(trace.header) + last, as: UTF8.self), to: "ledger")
    ])
    #expect(withLedger.prefetch(of: 0) == event.prefetch && !event.prefetch.isEmpty)
    for wrong in ["[1]", "[0,0,0,0,0,0,0,0,0,-1]", "[9999999999,0,0,0,0,0,0,0,0,0]"] {
      let text = String(decoding: TraceLines.header(trace.header) + last, as: UTF8.self)
        .replacingOccurrences(of: "[2,4096,1,2048,0,0,-1,-2048,100,9]", with: wrong)
      let path = try folder.write(text, to: "wrong")
      #expect(throws: TraceError.self, "\(wrong)") { try TraceImport.read([path]) }
    }
    let again = try TraceImport.read([
      folder.write(String(decoding: text, as: UTF8.self), to: "lines")
    ])
    #expect(again.header == trace.header)
    var other = TraceEvent()
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      again.read(index, into: &other)
      #expect(event == other)
    }
  }
}

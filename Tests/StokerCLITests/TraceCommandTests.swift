import Foundation
import Testing

/// `stoker trace` and `stoker replay` on a small trace.
@Suite struct TraceCommandTests {
  /// Two sequences of 20 tokens, 2 layers of 8 experts, top-2.
  private static func sample(in scratch: borrowing ScratchDirectory) throws -> String {
    var text = ""
    for token in 0..<40 {
      let layers = (0..<2).map { layer in "[\((token / 3 + layer) % 8),\((token * 5 + 1) % 8)]" }
        .map { $0 == "[1,1]" ? "[1,2]" : $0 }
      let distinct = layers.map { layer -> String in
        let ids = layer.dropFirst().dropLast().split(separator: ",")
        return ids[0] == ids[1] ? "[\(ids[0]),\((Int(ids[0])! + 1) % 8)]" : layer
      }
      text += #"{"seq":\#(token / 20),"pos":\#(token % 20),"phase":"decode","experts":["#
      text += distinct.joined(separator: ",") + #"],"weights":[[0.5,0.25],[0.75,0.125]]}"# + "\n"
    }
    let path = scratch.path(of: "sample.jsonl")
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    return path
  }

  private static func json(_ arguments: [String]) throws -> Any {
    let outcome = try StokerProcess.run(arguments)
    try #require(outcome.exit == .code(0), "\(outcome.errors)")
    return try JSONSerialization.jsonObject(with: Data(outcome.output.utf8))
  }

  @Test func tracesAreImportedEditedAndExported() throws {
    let scratch = try ScratchDirectory()
    let sample = try Self.sample(in: scratch)
    let trace = scratch.path(of: "a.moetrace")
    func run(_ arguments: [String]) throws {
      let outcome = try StokerProcess.run(["trace"] + arguments)
      #expect(outcome.exit == .code(0), "\(outcome.errors)")
    }
    try run(["import", sample, "-o", trace, "--model", "tiny", "--expert-bytes", "1000"])
    let info = try #require(
      Self.json(["trace", "info", trace, "--json"]) as? [String: Any])
    #expect(info["model"] as? String == "tiny")
    #expect(info["experts"] as? Int == 8 && info["expert_bytes"] as? [Int] == [1000, 1000])
    // The same hit rates, from one pass and from replays.
    let curve = try #require(info["lru_curve"] as? [[String: Any]])
    #expect(curve.count == 64)
    let rows = try #require(
      Self.json(["replay", trace, "--policy", "lru", "--memory", "25%,50%", "--json"])
        as? [[String: Any]])
    for (point, row) in [(curve[15], rows[0]), (curve[31], rows[1])] {
      #expect(point["capacity_bytes"] as? Int == row["capacity_bytes"] as? Int)
      #expect(point["hit_rate"] as? Double == row["hit_rate"] as? Double)
    }
    let plain = try #require(
      Self.json(["replay", trace, "--policy", "lru", "--memory", "25%", "--no-gap", "--json"])
        as? [[String: Any]])
    #expect(plain[0]["hits"] as? Int == rows[0]["hits"] as? Int)
    #expect(plain[0]["gap_to_min"] == nil && rows[0]["gap_to_min"] != nil)
    let (merged, slice, permuted) = (
      scratch.path(of: "m"), scratch.path(of: "s"), scratch.path(of: "p")
    )
    try run(["merge", trace, trace, "-o", merged])
    try run(["slice", merged, "--sequences", "1-2", "--positions", "0-9", "-o", slice])
    try run(["permute", trace, "--seed", "3", "-o", permuted])
    for (path, events) in [(merged, 160), (slice, 40), (permuted, 80)] {
      let export = try StokerProcess.run(["trace", "export", path])
      #expect(export.output.split(separator: "\n").count == events + 1)
      let lines = scratch.path(of: "lines")
      try export.output.write(toFile: lines, atomically: true, encoding: .utf8)
      try run(["import", lines, "-o", scratch.path(of: "again")])
      #expect(
        try Data(contentsOf: URL(fileURLWithPath: scratch.path(of: "again")))
          == Data(contentsOf: URL(fileURLWithPath: path)))
    }
  }

  @Test func replaysAreRowsInEveryForm() throws {
    let scratch = try ScratchDirectory()
    let sample = try Self.sample(in: scratch)
    let csv = scratch.path(of: "rows.csv")
    let arguments = [
      "replay", sample, "--policy", "lru,next-use,min", "--memory", "4MiB,50%", "--csv", csv,
      "--window", "10",
    ]
    let rows = try #require(Self.json(arguments + ["--json"]) as? [[String: Any]])
    #expect(rows.count == 6)
    #expect(rows.map { $0["capacity_bytes"] as? Int } == [4, 4, 4, 8, 8, 8].map { $0 << 20 })
    for row in rows {
      let (accesses, hits) = (
        try #require(row["accesses"] as? Int), try #require(row["hits"] as? Int)
      )
      #expect(accesses == 160)
      #expect(row["phase"] as? String == "decode")
      #expect(abs(try #require(row["hit_rate"] as? Double) - Double(hits) / 160) < 1e-12)
      #expect(row["bytes_read"] as? Int == (accesses - hits) << 20)
      // As many accesses in each window.
      let windows = try #require(row["window_hit_rates"] as? [Double])
      #expect(windows.count == 4)
      #expect(abs(windows.reduce(0, +) / 4 - Double(hits) / 160) < 1e-12)
    }
    #expect(rows.map { $0["gap_to_min"] as? Double }[2] == 0)
    let lines = try String(contentsOfFile: csv, encoding: .utf8).split(separator: "\n")
    #expect(lines.count == 7)
    let table = try StokerProcess.run(arguments)
    #expect(table.output.split(separator: "\n").count == 7)
    #expect(table.output.contains("next-use"))
  }

  @Test(arguments: [
    (["replay", "/dev/null"], "is no trace that Stoker knows"),
    (["replay", "/no/such/trace"], "'/no/such/trace': cannot open it: No such file or directory"),
    (["replay", "x", "--policy", "best"], "'best' is invalid"),
    (["replay", "x", "--policy", "min", "--scope", "layer"], "--scope global"),
    (["replay", "x", "--policy", "static", "--fit", "0%"], "--fit above 0%"),
    (["replay", "x", "--memory", "120%"], "'120%' is invalid"),
    (["trace", "merge", "x", "-o", "y"], "two traces or more"),
    (["trace", "slice", "x", "-o", "y", "--sequences", "9-0"], "'9-0' is invalid"),
  ])
  func mistakesAreExplained(_ arguments: [String], _ message: String) throws {
    let outcome = try StokerProcess.run(arguments)
    #expect(outcome.exit != .code(0))
    #expect(outcome.errors.contains(message), "\(outcome.errors)")
  }
}

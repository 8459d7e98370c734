import Foundation
import Testing

/// `stoker replay --hardware` and `--live`.
@Suite struct LiveReplayCommandTests {
  private static let demoTrace = Samples.repository + "/traces/demo.moetrace"

  private static func rows(_ arguments: [String]) throws -> [[String: Any]] {
    let outcome = try StokerProcess.run(["replay"] + arguments + ["--json"])
    try #require(outcome.exit == .code(0), "\(outcome.errors)")
    let json = try JSONSerialization.jsonObject(with: Data(outcome.output.utf8))
    return try #require(json as? [[String: Any]])
  }

  @Test func aProfileTimesTheReplayAndTheModelIsRunBesideIt() throws {
    let scratch = try ScratchDirectory()
    let (slice, profile) = (scratch.path(of: "slice.moetrace"), scratch.path(of: "profile.json"))
    let sliced = try StokerProcess.run([
      "trace", "slice", Self.demoTrace, "--positions", "0-40", "-o", slice,
    ])
    try #require(sliced.exit == .code(0), "\(sliced.errors)")
    let live = try Self.rows([
      slice, "--live", Samples.demo, "--memory", "30%", "--policy", "next-use,lru",
      "--save-hardware", profile,
    ])
    #expect(live.map { $0["policy"] as? String } == ["next-use", "lru"])
    for row in live {
      #expect(row["measured_hit_rate"] as? Double == row["simulated_hit_rate"] as? Double)
      let measured = try #require(row["measured"] as? [String: Any])
      let simulated = try #require(row["simulated"] as? [String: Any])
      #expect(measured["tokens"] as? Int == simulated["tokens"] as? Int)
      #expect((simulated["tokens_per_second"] as? Double ?? 0) > 0)
    }
    // The machine that was saved times a replay without the model.
    let timed = try Self.rows([
      slice, "--hardware", profile, "--policy", "next-use,min", "--memory", "30%,60%",
    ])
    #expect(timed.count == 4)
    for row in timed {
      let times = try #require(row["times"] as? [String: Any])
      let p50 = try #require(times["tpot_p50_seconds"] as? Double)
      let p99 = try #require(times["tpot_p99_seconds"] as? Double)
      #expect(p50 > 0 && p99 >= p50)
      #expect((row["stall_share"] as? Double).map { (0...1).contains($0) } == true)
    }
    let page = scratch.path(of: "page.html")
    let table = try StokerProcess.run([
      "replay", slice, "--hardware", profile, "--html", page,
    ])
    #expect(table.output.contains("TPOT p50"))
    let html = try String(contentsOfFile: page, encoding: .utf8)
    #expect(html.hasPrefix("<!DOCTYPE html>") && html.contains("Predicted tokens per second"))
  }

  @Test func whatIsNoProfileIsRefusedByName() throws {
    let scratch = try ScratchDirectory()
    let path = scratch.path(of: "bad.json")
    for (text, reason) in [
      ("{}", "is missing"), ("[", "no hardware profile"),
      (
        #"{"version":1,"name":"","read_bytes_per_second":0,"read_latency_seconds":0,"#
          + #""compute_bytes_per_second":1,"layer_seconds":0,"token_seconds":0}"#,
        "read_bytes_per_second is 0.0"
      ),
    ] {
      try text.write(toFile: path, atomically: true, encoding: .utf8)
      let outcome = try StokerProcess.run(["replay", Self.demoTrace, "--hardware", path])
      #expect(outcome.exit == .code(1))
      #expect(outcome.errors.contains(path) && outcome.errors.contains(reason), "\(outcome.errors)")
    }
  }

  @Test func aTraceOfAnotherShapeIsRefused() throws {
    let outcome = try StokerProcess.run([
      "replay", Self.demoTrace, "--live", Samples.tinyOLMoE, "--memory", "50%",
    ])
    #expect(outcome.exit == .code(1))
    #expect(outcome.errors.contains("8 layers of 32 experts"), "\(outcome.errors)")
  }

  @Test func sequencesAreDecodedTogetherAndExpertsReadAhead() throws {
    let scratch = try ScratchDirectory()
    let slice = scratch.path(of: "slice.moetrace")
    let sliced = try StokerProcess.run([
      "trace", "slice", Self.demoTrace, "--positions", "0-40", "-o", slice,
    ])
    try #require(sliced.exit == .code(0), "\(sliced.errors)")
    let live = [slice, "--live", Samples.demo, "--memory", "40%"]
    let four = try #require(try Self.rows(live + ["--batch", "4"]).first)
    #expect(four["batch"] as? Int == 4 && four["simulated"] == nil)
    #expect(four["measured_hit_rate"] as? Double == four["simulated_hit_rate"] as? Double)
    let measured = try #require(four["measured"] as? [String: Any])
    let steps = try #require(measured["tokens_per_second"] as? Double)
    let tokens = try #require(four["tokens_per_second"] as? Double)
    // When the shorter sequences have ended, fewer are left.
    #expect(tokens > 2 * steps && tokens < 4.01 * steps)

    let control = try #require(try Self.rows(live + ["--predictor", "control"]).first)
    let ahead = try #require(control["prefetch"] as? [String: Any])
    #expect(((ahead["issued"] as? [String: Any])?["count"] as? Int ?? 0) > 0, "\(control)")
    #expect(control["measured_hit_rate"] as? Double == control["simulated_hit_rate"] as? Double)
    for refused in [["--batch", "2", "--predictor", "control"], ["--predictor", "recorded"]] {
      let outcome = try StokerProcess.run(["replay"] + live + refused)
      #expect(outcome.exit != .code(0), "\(refused)")
    }
  }
}

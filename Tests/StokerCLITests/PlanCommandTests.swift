import Foundation
import FoundationXML
import Glibc
import Testing

/// `stoker calibrate`, `stoker plan` and `stoker run --plan`.
@Suite struct PlanCommandTests {
  /// The part of a plan that the tests look at.
  private struct Plan: Decodable {
    struct Prediction: Decodable {
      let tokensPerSecond: Double
      let hitRate: Double
      let peakMemory: Int
    }
    let slots: Int
    let memory: Int
    let batch: Int?
    let prediction: Prediction
  }

  private struct SweepRow: Decodable {
    let value: Double
    let plan: Plan
  }

  private struct VerificationRow: Decodable {
    struct Figures: Decodable {
      let tokensPerSecond: Double
      let hitRate: Double
    }
    let memory: Int
    let slots: Int
    let blind: Figures
    let probed: Figures
    let measured: Figures
  }

  @Test func aMeasuredMachinePlansRunsAndScoresItself() throws {
    let scratch = try ScratchDirectory()
    let cache = ["XDG_CACHE_HOME": scratch.path(of: "cache")]
    func stoker(_ arguments: [String]) throws -> StokerProcess.Outcome {
      try StokerProcess.run(arguments, environment: cache)
    }
    let measured = try stoker(["calibrate", "--trial", "--directory", scratch.path(of: "")])
    try #require(measured.exit == .code(0), "\(measured.errors)")
    #expect(measured.output.contains("products: bytes of weights/s"))
    #expect(measured.errors.contains("cache/stoker/machine.json"))

    let trace = scratch.path(of: "routing.moetrace")
    let run = ["run", Samples.demo, "--prompt", "The sea", "--ignore-end"]
    let recorded = try stoker(run + ["--memory", "66MiB", "--max-tokens", "48", "--record", trace])
    try #require(recorded.exit == .code(0), "\(recorded.errors)")
    #expect(recorded.errors.contains("tokens/s predicted"), "\(recorded.errors)")
    #expect(recorded.errors.contains("measured"))

    let (plan, page) = (scratch.path(of: "plan.json"), scratch.path(of: "plan.html"))
    let planned = try stoker([
      "plan", Samples.demo, "--memory", "60MiB", "--trace", trace, "--max-tokens", "48",
      "--context",
      "200", "--output", plan, "--prefetch", "off",
    ])
    try #require(planned.exit == .code(0), "\(planned.errors)")
    for word in ["what binds", "1 GiB more memory", "a drive twice as fast", "first token after"] {
      #expect(planned.output.contains(word), "\(word): \(planned.output)")
    }
    let obeyed = try stoker(run + ["--plan", plan, "--max-tokens", "32", "--json"])
    let report: RunReport = try obeyed.json()
    let content = try JSONSerialization.jsonObject(
      with: Data(contentsOf: URL(fileURLWithPath: plan)))
    #expect((content as? [String: Any])?["slots"] as? Int == report.account.configuration.slots)
    #expect(report.account.memoryBudget == 60 << 20)

    let sweep: [SweepRow] = try stoker([
      "plan", Samples.demo, "--sweep", "memory", "--html", page, "--json",
    ]).json()
    #expect(sweep.count == 13)
    #expect(sweep.map(\.value) == sweep.map(\.value).sorted())
    #expect(sweep.last?.plan.prediction.hitRate == 1)
    let html = try String(contentsOfFile: page, encoding: .utf8)
    #expect(html.hasPrefix("<!DOCTYPE html>") && html.contains("Tokens per second"))
    #expect(XMLParser(data: Data(html.dropFirst("<!DOCTYPE html>".count).utf8)).parse())
    for kind in ["disk", "context"] {
      let table = try stoker(["plan", Samples.demo, "--sweep", kind, "--memory", "64MiB"])
      #expect(table.exit == .code(0), "\(table.errors)")
    }

    let rows: [VerificationRow] = try stoker([
      "plan", Samples.demo, "--memory", "60MiB,90MiB", "--verify", "--max-tokens", "32",
      "--prompt-tokens", "16", "--json",
    ]).json()
    #expect(rows.map(\.memory) == [60 << 20, 90 << 20])
    for row in rows {
      for figures in [row.blind, row.probed, row.measured] { #expect(figures.tokensPerSecond > 0) }
    }
    #expect(rows[1].measured.hitRate == 1 && rows[1].blind.hitRate == 1)

    let waiting = planned.output.contains("  waiting  ")
    #expect(waiting, "\(planned.output)")
    // A damaged profile costs a run its prediction, and nothing else.
    let profile = scratch.path(of: "cache/stoker/machine.json")
    try Data("{\"version\": 2".utf8).write(to: URL(fileURLWithPath: profile))
    let unplanned = try stoker(run + ["--max-tokens", "2"])
    #expect(unplanned.exit == .code(0), "\(unplanned.errors)")
    #expect(
      unplanned.errors.contains("no speed is predicted: could not read '\(profile)'"),
      "\(unplanned.errors)")

    let compared = try stoker(["plan", "--compare", plan, plan])
    #expect(compared.exit == .code(0) && compared.output.contains("experts that fit"))
    let other = try stoker(["run", Samples.tinyOLMoE, "--plan", plan, "--token-ids", "1"])
    #expect(other.exit != .code(0) && other.errors.contains("cannot be obeyed"), "\(other.errors)")
  }

  /// A plan that is written anew while a run obeys it, and SIGHUP.
  @Test func aRunObeysItsPlanReadAgain() throws {
    let scratch = try ScratchDirectory()
    let plan = scratch.path(of: "plan.json")
    func write(memory: String) throws {
      let outcome = try StokerProcess.run([
        "plan", Samples.demo, "--hardware", "laptop", "--memory", memory, "--context", "600",
        "--prefetch", "off", "--output", plan,
      ])
      try #require(outcome.exit == .code(0), "\(outcome.errors)")
      // It is planned for the machine at hand, so that it is not planned anew.
      var content = try #require(
        JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: plan)))
          as? [String: Any])
      let own = try #require(
        JSONSerialization.jsonObject(
          with: Data(contentsOf: URL(fileURLWithPath: machine))) as? [String: Any])
      var identity = try #require(own["machine"] as? [String: Any])
      identity["kernels"] = "portable"
      content["machine"] = identity
      content["threads"] = 1
      try JSONSerialization.data(withJSONObject: content)
        .write(to: URL(fileURLWithPath: plan), options: .atomic)
    }
    let machine = scratch.path(of: "machine.json")
    let measured = try StokerProcess.run([
      "calibrate", "--trial", "--threads", "1", "--directory", scratch.path, "--output", machine,
    ])
    try #require(measured.exit == .code(0), "\(measured.errors)")
    let run = ["run", Samples.demo, "--prompt", "The", "--max-tokens", "500", "--ignore-end"]
    try write(memory: "72MiB")
    let process = try StokerProcess(
      run + ["--plan", plan, "--threads", "1"], environment: slow)
    try process.waitForOutput()
    try write(memory: "66MiB")
    process.send(SIGHUP)
    let outcome = try process.wait()
    try #require(outcome.exit == .code(0), "\(outcome.errors)")
    #expect(outcome.errors.contains("plan: read again: 66.0 MiB"), "\(outcome.errors)")
    let plain = try StokerProcess.run(run + ["--threads", "1"], environment: slow)
    #expect(outcome.output == plain.output)
  }

  private var slow: [String: String] { ["STOKER_KERNELS": "portable"] }

  @Test func aMachineByItsDatasheetAndAModelByItsNumbers() throws {
    let outcome = try StokerProcess.run([
      "plan", "--shape", "qwen3-30b-a3b", "--memory", "8GiB", "--hardware", "desktop-rtx4060",
      "--device-memory", "6GiB", "--json",
    ])
    let plan: Plan = try outcome.json()
    #expect(plan.prediction.peakMemory <= 8 << 30 && plan.prediction.tokensPerSecond > 1)
    let scratch = try ScratchDirectory()
    let shape = scratch.path(of: "shape.json")
    try """
    {"name": "mine", "layers": 4, "hidden_size": 512, "heads": 8, "key_value_heads": 2,
     "head_dimension": 64, "experts": 16, "experts_per_token": 2,
     "expert_feed_forward_size": 256, "vocabulary": 1000, "type": "Q8_0"}
    """.write(toFile: shape, atomically: true, encoding: .utf8)
    let mine: Plan = try StokerProcess.run([
      "plan", "--shape", shape, "--hardware", "laptop", "--json",
    ]).json()
    #expect(mine.slots == 64)
  }

  @Test(
    arguments: [
      (["plan"], "Give one of a model"),
      (["plan", "--shape", "nothing", "--hardware", "laptop"], "There is no --shape 'nothing'"),
      (["plan", "--shape", "tiny", "--hardware", "abacus"], "There is no --hardware 'abacus'"),
      (["plan", Samples.demo, "--hardware", "laptop", "--memory", "1MiB"], "the minimum is"),
      (["plan", "--shape", "tiny", "--memory", "1GiB,2GiB"], "need --verify"),
      (["plan", "--shape", "tiny", "--profile", "/nothing.json"], "/nothing.json"),
      (["plan", "--compare", Samples.demo], "no plan"),
      (["calibrate", "--directory", "/nothing"], "there is no such folder"),
      (["run", Samples.demo, "--prompt", "x", "--plan", "/nothing.json"], "/nothing.json"),
      (
        ["run", Samples.demo, "--prompt", "x", "--plan", "a.json", "--memory", "1GiB"],
        "--plan says what"
      ),
    ])
  func whatIsWrongIsNamed(arguments: [String], reason: String) throws {
    let outcome = try StokerProcess.run(arguments)
    #expect(outcome.exit != .code(0))
    #expect(outcome.errors.contains(reason), "\(outcome.errors)")
  }

  @Test func aBatchIsPlannedForAndNotRun() throws {
    let scratch = try ScratchDirectory()
    let path = scratch.path(of: "plan.json")
    let shape = ["plan", "--shape", "qwen3-30b-a3b", "--hardware", "laptop", "--memory", "8GiB"]
    let one: Plan = try StokerProcess.run(shape + ["--json"]).json()
    let four: Plan = try StokerProcess.run(shape + ["--batch", "4", "--json"]).json()
    #expect(one.batch == nil && four.batch == 4)
    #expect(four.prediction.tokensPerSecond > one.prediction.tokensPerSecond)
    #expect(four.slots < one.slots)

    let planned = try StokerProcess.run([
      "plan", Samples.demo, "--hardware", "laptop", "--memory", "80MiB", "--batch", "2",
      "--max-tokens", "16", "--output", path,
    ])
    try #require(planned.exit == .code(0), "\(planned.errors)")
    #expect(planned.output.contains("of 2 sequences together"), "\(planned.output)")
    let run = try StokerProcess.run(["run", Samples.demo, "--prompt", "The sea", "--plan", path])
    #expect(run.exit == .code(1) && run.errors.contains("plan without --batch"), "\(run.errors)")
    for refused in [
      ["--batch", "0"], ["--batch", "2", "--prefetch", "on"],
      ["--batch", "2", "--hardware", "workstation", "--device-memory", "8GiB"],
    ] {
      let outcome = try StokerProcess.run(["plan", "--shape", "qwen3-30b-a3b"] + refused)
      #expect(outcome.exit == .code(64) && outcome.errors.contains("--batch"), "\(outcome.errors)")
    }
  }
}

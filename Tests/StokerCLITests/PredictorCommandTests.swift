import Foundation
import FoundationXML
import Testing

/// `stoker fit-predictor`, `predict-eval`, and what they are for.
@Suite struct PredictorCommandTests {
  /// A text that the demo model has not seen, some 1,500 tokens long.
  private static let text = Samples.repository + "/README.md"

  private static func run(_ arguments: [String]) throws -> String {
    let outcome = try StokerProcess.run(arguments)
    try #require(outcome.exit == .code(0), "\(outcome.errors)")
    return outcome.output
  }

  @Test func headsAreFittedJudgedUsedAndReplayed() throws {
    let scratch = try ScratchDirectory()
    let model = scratch.path(of: "model.gguf")
    try FileManager.default.createSymbolicLink(
      atPath: model, withDestinationPath: Samples.demo)
    let fitted = try Self.run(["fit-predictor", model, "--text", Self.text])
    #expect(fitted.contains("\(model).predictor") && fitted.contains("of gate reuse"))
    let judged = try Self.run(
      [
        "predict-eval", model, "--text", Self.text, "--tokens", "300", "--json", "--html",
        scratch.path(of: "recall.html"),
      ])
    let rows = try #require(
      JSONSerialization.jsonObject(with: Data(judged.utf8)) as? [[String: Any]])
    let control = try #require(rows.first { $0["predictor"] as? String == "control" })
    #expect(control["recall"] as? Double == 1)
    for name in ["gate-reuse", "corrected", "fitted", "popularity", "previous-token"] {
      let row = try #require(rows.first { $0["predictor"] as? String == name }, "\(name)")
      #expect((row["layer_recall"] as? [Any])?.count == 8)
    }
    let page = try String(contentsOfFile: scratch.path(of: "recall.html"), encoding: .utf8)
    #expect(page.contains("<td>control</td>"))
    #expect(XMLParser(data: Data(page.dropFirst("<!DOCTYPE html>".count).utf8)).parse())

    // The heads are found and used, and the text is the same.
    let trace = scratch.path(of: "run.moetrace")
    let arguments = ["run", model, "--prompt", "The sea", "--max-tokens", "60", "--ignore-end"]
    let with = try StokerProcess.run(
      arguments + ["--memory", "56MiB", "--stats", "--record", trace, "--record-candidates"])
    #expect(with.exit == .code(0), "\(with.errors)")
    #expect(with.errors.contains("fitted, ") && with.errors.contains("read ahead"))
    let without = try StokerProcess.run(arguments + ["--prefetch", "off", "--stats"])
    #expect(without.output == with.output)
    #expect(without.errors.contains("\nprefetch          off"))

    let machine = scratch.path(of: "machine.json")
    let profile = """
      {"version":1,"name":"test","read_bytes_per_second":1e9,"read_latency_seconds":1e-4,
      "compute_bytes_per_second":8e9,"layer_seconds":1e-4,"token_seconds":1e-4}
      """
    try profile.write(toFile: machine, atomically: true, encoding: .utf8)
    for predictor in ["recorded", "coactivation"] {
      let replayed = try Self.run(
        ["replay", trace, "--hardware", machine, "--predictor", predictor, "--memory", "64MiB,25%"])
      #expect(replayed.contains("read ahead"))
    }
    #expect(try Self.run(["trace", "info", trace]).contains("at distance 0, 1, 2"))
    #expect(try Self.run(["predict-eval", trace]).contains("activation-matrix"))
  }

  @Test(arguments: [
    (["fit-predictor", Samples.demo], "Give --text or --token-ids"),
    (["fit-predictor", Samples.demo, "--token-ids", "1,2,3"], "has 3 tokens"),
    (["predict-eval", Samples.demo], "is a model; give the text"),
    (["predict-eval", "/dev/null"], "is no trace that Stoker knows"),
    (["run", Samples.demo, "--prompt", "a", "--prefetch", "0"], "'0' is invalid"),
    (["run", Samples.demo, "--prompt", "a", "--predictor", "fitted"], "stoker fit-predictor"),
    (["run", Samples.demo, "--prompt", "a", "--record-candidates"], "need --record"),
    (["replay", "x", "--predictor", "recorded"], "--predictor needs --hardware"),
  ])
  func mistakesAreExplained(_ arguments: [String], _ message: String) throws {
    let outcome = try StokerProcess.run(arguments)
    #expect(outcome.exit != .code(0))
    #expect(outcome.errors.contains(message), "\(outcome.errors)")
  }
}

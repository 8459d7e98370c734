import ArgumentParser
import Foundation
import Replay
import Residency
import Routing
import Stoker

/// `stoker predict-eval`: how well routing can be predicted.
struct PredictEval: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "predict-eval",
    abstract: "Judges predictors of the routing, of a model on a text or of a trace.",
    discussion: """
      Recall is the share of the chosen experts among the k likeliest predicted, and among the k + \
      --more likeliest; 'of misses' counts only experts that were not resident, and 'precision' is the \
      share of the predicted non-residents that were chosen. Distance 0 is before the attention of the \
      layer itself; 'control' is the router on its true input and must find everything. A trace has no \
      hidden states: there, only predictors over history are judged.

      Example: stoker predict-eval model.gguf --text notes.txt
      """)

  @Argument(help: "A GGUF file, a folder of safetensors files, or a trace.")
  var subject: String

  @Option(help: ArgumentHelp("The text, for a model.", valueName: "file"))
  var text: String?

  @Option(help: ArgumentHelp("The text as token ids.", valueName: "1,2,3"))
  var tokenIds: TokenList?

  @Option(help: ArgumentHelp("The most tokens that are judged.", valueName: "count"))
  var tokens: Int = 4096

  @Option(help: "Candidates beyond k that recall is also given for.")
  var more: Int = 2

  @Option(help: "The share of the experts that is resident, in percent: who is missed.")
  var resident: Double = 50

  @Option(help: "The farthest distance, in layers: 0 to 4.")
  var distance: Int = 4

  @Flag(help: "Print recall by layer.")
  var layers = false

  @Option(help: ArgumentHelp("Write a heat map of recall by layer here.", valueName: "file"))
  var html: String?

  @Flag(help: "Print JSON.")
  var json = false

  @OptionGroup var arguments: ModelArguments
  @OptionGroup var traceArguments: TraceInputArguments

  func validate() throws {
    guard more >= 0, (0...4).contains(distance), tokens > 0, (0...100).contains(resident) else {
      throw ValidationError(
        "--more must be 0 or more, --distance 0 to 4, --tokens above 0, --resident 0 to 100.")
    }
    guard text == nil || tokenIds == nil else {
      throw ValidationError("Give --text or --token-ids.")
    }
  }

  func run() throws {
    Interrupt.listen()
    let trial = PredictorTrial(more: more, residentShare: resident / 100, farthest: distance)
    let results = try text == nil && tokenIds == nil ? judgeTrace(trial) : judgeModel(trial)
    if let html { try writePage(results, to: html) }
    if json { return try Terminal.printJSON(results.map(PredictorRow.init)) }
    try Terminal.print(table(results))
    if layers { try Terminal.print("\n" + layerTable(results)) }
    if Interrupt.isRequested { throw ExitCode(130) }
  }

  private func judgeTrace(_ trial: PredictorTrial) throws -> [PredictorResult] {
    if let file = FileHandle(forReadingAtPath: subject),
      try file.read(upToCount: 4) == Data("GGUF".utf8)
    {
      throw ValidationError(
        "'\(subject)' is a model; give the text that it is judged on with --text.")
    }
    let trace = try traceArguments.open([subject]).loaded()
    var progress = ProgressLine("predicting")
    defer { progress.clear() }
    return trace.evaluatePredictors(trial: trial) { done, total in
      progress.draw(done: done, of: total, detail: "\(done) of \(total) events")
    }
  }

  private func judgeModel(_ trial: PredictorTrial) throws -> [PredictorResult] {
    let file = try arguments.open(subject)
    let ids = try tokenIds?.ids ?? file.tokenizer.encodePrompt(bytes: try readFile(text ?? ""))
    let loaded = try loadModel(file, arguments.options(context: min(512, file.contextLength)))
    var progress = ProgressLine("predicting")
    defer { progress.clear() }
    return try loaded.evaluatePredictors(
      on: Array(ids.prefix(tokens)), trial: trial, isCancelled: { Interrupt.isRequested },
      progress: { done, total in
        progress.draw(done: done, of: total, detail: "\(done) of \(total) tokens")
      })
  }

  private func writePage(_ results: [PredictorResult], to path: String) throws {
    let rows = results.map { result in
      PredictionPage.Row(
        name: result.predictor, distance: result.distance, recall: result.total.recall,
        layers: result.layers.map(\.recall))
    }
    try writeFile(PredictionPage(subject: subject, rows: rows).html, to: path)
  }

  private func table(_ results: [PredictorResult]) -> String {
    formatTable(
      ["predictor", "distance", "recall", "recall +\(more)", "of misses", "precision"],
      results.map { result in
        let total = result.total
        return [
          result.predictor, "\(result.distance)", share(total.recall), share(total.recallWithMore),
          share(total.missRecall), share(total.missPrecision),
        ]
      })
  }

  private func layerTable(_ results: [PredictorResult]) -> String {
    let count = results.first?.layers.count ?? 0
    return formatTable(
      ["recall, by layer", "distance"] + (0..<count).map(String.init),
      results.map { result in
        [result.predictor, "\(result.distance)"]
          + result.layers.map { $0.chosen > 0 ? share($0.recall) : "" }
      })
  }
}

func share(_ value: Double?) -> String { value.map { formatFixed($0, digits: 3) } ?? "-" }

/// A result as JSON: the counts and what follows from them.
struct PredictorRow: Encodable {
  let predictor: String
  let distance: Int
  let recall: Double?
  let recallWithMore: Double?
  let missRecall: Double?
  let missPrecision: Double?
  let layerRecall: [Double?]
  let layers: [PredictionTally]

  init(_ result: PredictorResult) {
    predictor = result.predictor
    distance = result.distance
    recall = result.total.recall
    recallWithMore = result.total.recallWithMore
    missRecall = result.total.missRecall
    missPrecision = result.total.missPrecision
    layerRecall = result.layers.map(\.recall)
    layers = result.layers
  }
}

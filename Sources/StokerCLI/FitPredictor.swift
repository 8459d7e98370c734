import ArgumentParser
import Stoker

/// `stoker fit-predictor`: fits the heads that predict a model's routing.
struct FitPredictor: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fit-predictor",
    abstract: "Fits linear heads that predict a model's routing from its hidden states.",
    discussion: """
      The text passes through the model; the heads are written beside it, as MODEL.predictor, and are \
      used from then on by every command that runs the model. Some 20,000 tokens of the kind of text \
      that the model is used for are enough for most of the gain.

      Example: stoker fit-predictor model.gguf --text notes.txt
      """)

  @Argument(help: "A GGUF file (any of its files, if split), or a folder of safetensors files.")
  var model: String

  @Option(help: ArgumentHelp("A text to fit to; may be given several times.", valueName: "file"))
  var text: [String] = []

  @Option(
    help: ArgumentHelp("Tokens to fit to, as ids; may be given several times.", valueName: "1,2,3"))
  var tokenIds: [TokenList] = []

  @Option(help: ArgumentHelp("The most tokens that are used.", valueName: "count"))
  var tokens: Int = 100_000

  @Option(
    help: ArgumentHelp(
      "Layers from the state to the scores predicted.",
      discussion: "0 is from before the layer's own attention. Prefetch makes use of 0 to 2.",
      valueName: "0,1,2"))
  var distances: TokenList = .init(argument: "0,1,2")!

  @Flag(help: "Print JSON.")
  var json = false

  @OptionGroup var arguments: ModelArguments

  func validate() throws {
    guard text.isEmpty != tokenIds.isEmpty else {
      throw ValidationError("Give --text or --token-ids.")
    }
    guard tokens > 0 else { throw ValidationError("--tokens must be more than 0.") }
  }

  func run() throws {
    Interrupt.listen()
    let file = try arguments.open(model)
    var ids = tokenIds.flatMap(\.ids)
    for path in text { ids += file.tokenizer.encodePrompt(bytes: try readFile(path)) }
    var options = arguments.options(context: min(512, file.contextLength))
    options.prefetch = .off
    let loaded = try loadModel(file, options)
    var progress = ProgressLine("fitting")
    let fit = try loaded.fitPredictor(
      to: Array(ids.prefix(tokens)), distances: distances.ids.map(Int.init),
      isCancelled: { Interrupt.isRequested },
      progress: { done, total in
        progress.draw(done: done, of: total)
      })
    progress.clear()
    guard let fit else { throw ExitCode(130) }
    if json { return try Terminal.printJSON(fit) }
    try Terminal.print(
      """
      wrote       \(fit.path), \(formatBytes(fit.byteCount))
      fitted to   \(fit.tokens) tokens; what follows is of windows held out
      """)
    try Terminal.print(
      formatTable(
        ["distance", "squared error", "of gate reuse", "recall", "of gate reuse"],
        fit.heldOut.map {
          [
            "\($0.distance)", formatFixed($0.fittedError, digits: 4),
            formatFixed($0.gateReuseError, digits: 4), formatFixed($0.fittedRecall, digits: 3),
            formatFixed($0.gateReuseRecall, digits: 3),
          ]
        }))
  }
}

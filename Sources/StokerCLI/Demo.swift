import ArgumentParser
import Foundation
import Stoker

/// `stoker demo`: the whole idea in a few seconds.
struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs the built-in demo model with a third of its experts in memory.",
    discussion: """
      Generates a text under a budget that holds about a third of the experts, prints what that \
      cost, then generates it again with every expert resident and compares the two.

      The model (Qwen3-MoE, 8 layers of 32 experts, 28 million parameters) was trained from scratch \
      for this project on public-domain prose and Python source: expect half-sensible sentences.
      """)

  @Option(help: "The text to continue.")
  var prompt = "The old man looked at the sea and said"

  @Option(help: "The most tokens to generate.")
  var maxTokens = 64

  @Flag(help: "Print one JSON object instead of text.")
  var json = false

  @OptionGroup var arguments: ModelArguments

  func run() throws {
    Interrupt.listen()
    let file = try ModelFile(path: try Self.modelPath())
    let prompt = file.tokenizer.encodePrompt(bytes: Array(prompt.utf8))
    let request = GenerationRequest(
      prompt: prompt, maxTokens: maxTokens, sampling: SamplingParameters(temperature: 0))
    var options = arguments.options(
      context: positions(prompt: prompt, andThen: max(1, maxTokens), in: file))
    let needs = try file.requirements(options)
    options.memory =
      arguments.memory?.byteCount
      ?? max(needs.minimumBudget, needs.fullBudget - needs.allSlots * 2 / 3)

    let model = try MoEModel(file, options: options, logger: makeLogger())
    try model.validate(request)
    if !json {
      try Terminal.print(
        "Demo model, \(formatBytes(options.memory ?? 0)) of memory for everything; all of it "
          + "would need \(formatBytes(needs.fullBudget)).\n")
      try Terminal.write(Array(self.prompt.utf8))
    }
    var decoder = StreamingDecoder(file.tokenizer)
    let offloaded = try model.generate(
      request, isCancelled: { Interrupt.isRequested },
      onToken: { token in
        if !json { try Terminal.write(Array(try decoder.append(token).utf8)) }
      })
    if !json {
      try Terminal.print(
        decoder.flush() + "\n\n" + StatisticsTable(offloaded.statistics).text + "\n")
    }
    guard !offloaded.statistics.cancelled else { return }

    // The process has grown by the first run, so what all of it needs is asked again.
    options.memory = try file.requirements(options).fullBudget
    let resident = try MoEModel(file, options: options, logger: makeLogger()).generate(
      request, isCancelled: { Interrupt.isRequested })
    guard !resident.statistics.cancelled else { return }
    let identical = resident.tokens == offloaded.tokens
    if json {
      try Terminal.printJSON(
        Report(
          offloaded: try GenerationReport(offloaded, tokenizer: file.tokenizer),
          resident: try GenerationReport(resident, tokenizer: file.tokenizer), identical: identical)
      )
    } else {
      try Terminal.print("The same with every expert resident:\n")
      try Terminal.write(Array(self.prompt.utf8))
      try Terminal.write(try file.tokenizer.decode(resident.tokens))
      try Terminal.print("\n")
      try Terminal.print(
        identical
          ? "Both texts are identical: \(resident.tokens.count) of \(resident.tokens.count) tokens."
          : "The texts differ: this is a bug.")
    }
    if !identical { throw ExitCode.failure }
  }

  struct Report: Encodable {
    let offloaded: GenerationReport
    let resident: GenerationReport
    let identical: Bool
  }

  /// The model inside the package's resources.
  static func modelPath() throws -> String {
    guard let path = Bundle.module.path(forResource: "demo-Q4_K_M", ofType: "gguf") else {
      throw ValidationError(
        "The demo model is missing beside the program; expected demo-Q4_K_M.gguf in its resources.")
    }
    return path
  }
}

import ArgumentParser
import Glibc
import Stoker

extension SynthesisQuantization: ExpressibleByArgument {}

/// `stoker synth`: a model of the right size and manners without its weights.
struct Synth: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a model file with random weights and realistic routing.",
    discussion: """
      The file has the sizes, tensors and metadata of the real model, so it loads and runs like it \
      and reads as many bytes per token; only its text is gibberish. Use it to find out how a \
      machine would run a model before downloading it, or to measure an offloading policy.

      Plain random weights would route evenly, which no trained model does. Here:
        * some experts are popular: each layer's router leans, by a different amount for each \
      expert, along a direction that all tokens share. The most popular fifth of a layer's \
      experts get 55 % (OLMoE) to 70 % (Qwen3) of the choices.
        * experts are used again: attention falls off with distance, so states carry a moving \
      average of the last tokens. 39 % (OLMoE) or 35 % (Qwen3) of a token's experts were its \
      predecessor's too.
        * layers agree: each changes the state little, so the next layer's router, applied a \
      layer early, finds more than 70 % of the experts that it will choose.
      These shares were measured on the full models with 256 random tokens; another number of \
      layers or experts changes them.

      The same name, quantization, layers, experts and seed give the same bytes on every machine.

      Example: stoker synth olmoe.gguf --like olmoe-1b-7b --quant q4_0
      """)

  @Argument(help: "The file to write.")
  var output: String

  @Option(
    help: ArgumentHelp(
      "The model to imitate: \(ModelShape.all.map(\.name).joined(separator: ", ")).",
      valueName: "name"))
  var like: String

  @Option(
    help: """
      How weights are stored; norms and routers are F32, and rows that are not whole blocks of q4_K \
      are q4_0 (gpt-oss, some of DeepSeek).
      """)
  var quant: SynthesisQuantization

  @Option(
    help: ArgumentHelp("Layers. Default: those of the model.", valueName: "count"))
  var layers: Int?

  @Option(
    help: ArgumentHelp("Experts of each layer. Default: those of the model.", valueName: "count"))
  var experts: Int?

  @Option(help: "Another seed gives other weights.")
  var seed: UInt64 = 0

  @Flag(help: "Replace the file if it exists.")
  var force = false

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    Interrupt.listen()
    let shape = try ModelShape.named(like).resized(layers: layers, experts: experts)
    if !force { try refuseExistingFile(output) }
    let synthesizer = Synthesizer(shape: shape, quantization: quant, seed: seed)
    var progress = ProgressLine("writing")
    let summary: Synthesizer.Summary
    do {
      summary = try synthesizer.write(to: output, threadCount: min(256, Machine.processorCount)) {
        done, total in
        progress.draw(done: done, of: total, detail: formatBytes(done))
        return !Interrupt.isRequested
      }
    } catch SynthesisError.cancelled {
      progress.clear()
      throw ExitCode(130)
    }
    progress.clear()
    if json {
      return try Terminal.printJSON(
        Report(
          path: output, like: shape.name, quantization: quant.rawValue, seed: seed,
          layers: shape.layerCount, expertsPerLayer: shape.expertCount,
          byteCount: summary.byteCount, bytesPerExpert: summary.expertByteCount))
    }
    try Terminal.print(
      """
      wrote       \(output)
      size        \(formatBytes(summary.byteCount))
      experts     \(shape.expertCount) in each of \(shape.layerCount) layers, \
      \(formatBytes(summary.expertByteCount)) each
      """)
  }

  struct Report: Encodable {
    let path: String
    let like: String
    let quantization: String
    let seed: UInt64
    let layers: Int
    let expertsPerLayer: Int
    let byteCount: Int
    let bytesPerExpert: Int
  }
}

public import ArgumentParser
import Glibc
import Routing
public import Stoker

extension ModelPacking.Quantization: ExpressibleByArgument {}

/// `stoker pack`: the same model with each expert in one piece.
struct Pack: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Writes a model so that each expert is one read, with checksums; quantizes it, if asked to.",
    discussion: """
      A checkpoint keeps the three matrices of an expert apart; a packed file has them in one aligned \
      record, those that a trace uses the most first. Small experts are read faster so, and \
      'stoker verify' and --verify-reads can tell a damaged byte. Packed files are models like any \
      other; they are GGUF, but only Stoker knows where their experts are.

      Without --quantize the weights, and so the output, stay the same to the bit. With it, \
      experts of F32, F16, BF16 or FP8 are rounded to ggml's formats, by the least squared error; \
      --quantize-dense does that with the matrices that every token uses.

      What is written before it is whole is kept as OUT.partial: the same command goes on with it, \
      whatever ended the one before. Memory in use is some tens of megabytes.

      Examples:
        stoker pack model.gguf packed.gguf --trace routing.moetrace
        stoker pack Qwen3-30B-A3B/ qwen3-q4.gguf --quantize q4_K --quantize-dense q8_0
      """)

  @Argument(help: "A GGUF file (any of its files, if split), or a folder of safetensors files.")
  var model: String

  @Argument(help: "The file to write.")
  var output: String

  @Option(
    help: ArgumentHelp(
      "What experts of F32, F16, BF16 or FP8 become.",
      discussion:
        "One of \(ModelPacking.Quantization.allCases.map(\.rawValue).joined(separator: ", ")). Default: they stay.",
      valueName: "type"))
  var quantize: ModelPacking.Quantization?

  @Option(
    help: ArgumentHelp(
      "What the matrices that every token uses become; norms, biases and routers stay.",
      discussion: "Default: they stay.", valueName: "type"))
  var quantizeDense: ModelPacking.Quantization?

  @Option(
    help: ArgumentHelp(
      "A routing trace of the model: the experts it uses the most come first in each layer.",
      discussion: "Default: in the order of their numbers.", valueName: "file"))
  var trace: String?

  @Option(help: ArgumentHelp("Threads that quantize.", valueName: "count"))
  var threads: Int?

  @Flag(help: "Replace the file if it exists.")
  var force = false

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    Interrupt.listen()
    if !force { try refuseExistingFile(output) }
    let packing = try ModelPacking(
      ModelFile(path: model), to: output, quantization: quantize, denseQuantization: quantizeDense,
      trace: trace.map { try TraceInputArguments.parse([]).open([$0]) })
    var progress = ProgressLine("packing")
    let start = ContinuousClock.now
    var first: Int?
    let summary: ModelPacking.Summary
    do {
      summary = try packing.write(threads: threads) { done, total in
        let from = first ?? done
        first = from
        let rate = Double(done - from) / max(1e-3, (ContinuousClock.now - start).seconds)
        progress.draw(done: done, of: total, detail: "\(formatBytes(Int(rate)))/s")
        return !Interrupt.isRequested
      }
    } catch StokerError.cancelled {
      progress.clear()
      Terminal.note("stopped; the same command goes on with '\(output).partial'")
      throw ExitCode(130)
    }
    progress.clear()
    if json { return try Terminal.printJSON(summary) }
    var rows = [
      ("wrote", output), ("size", formatBytes(summary.byteCount)),
      ("experts", "\(summary.experts), a read of \(formatBytes(summary.expertByteCount)) each"),
    ]
    if summary.resumedByteCount > 0 {
      rows.append(("gone on from", "\(formatBytes(summary.resumedByteCount)) that were there"))
    }
    if summary.unusedTensors > 0 {
      rows.append(("left out", "\(summary.unusedTensors) tensors that predict further tokens"))
    }
    try Terminal.print(rows.map { $0.0.padding(to: 14) + $0.1 }.joined(separator: "\n"))
  }
}

/// `stoker verify`: whether a packed file is as it was written.
struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compares a packed model with its checksums.",
    discussion: """
      Reads the whole file and names every tensor and expert that is not as it was written; the \
      exit code is 1 if there is one.
      """)

  @Argument(help: "A file that 'stoker pack' has written.")
  var model: String

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    Interrupt.listen()
    var progress = ProgressLine("verifying")
    let start = ContinuousClock.now
    let found: ModelPacking.Verification
    do {
      found = try ModelPacking.verify(model) { done, total in
        progress.draw(done: done, of: total, detail: formatBytes(done))
        return !Interrupt.isRequested
      }
    } catch StokerError.cancelled {
      progress.clear()
      throw ExitCode(130)
    }
    progress.clear()
    let rate = Double(found.byteCount) / max(1e-3, (ContinuousClock.now - start).seconds)
    if json {
      try Terminal.printJSON(found)
    } else {
      for damage in found.damaged { try Terminal.print("damaged: \(damage)") }
      try Terminal.print(
        "\(found.checked) checksums of \(formatBytes(found.byteCount)): "
          + (found.damaged.isEmpty ? "all as written" : "\(found.damaged.count) damaged")
          + ", at \(formatBytes(Int(rate)))/s")
    }
    guard found.damaged.isEmpty else { throw ExitCode(1) }
  }
}

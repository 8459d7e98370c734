import ArgumentParser
import Glibc
import Stoker

/// `stoker perplexity`: how well a model predicts a text.
struct Perplexity: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures how well a model predicts a text.",
    discussion: """
      llama.cpp's convention: windows of --context tokens, each from an empty cache, of which the \
      second half is scored. A text shorter than one window is one window.

      Example: stoker perplexity model.gguf prose.txt
      """)

  @Argument(help: "A GGUF file (any of its files, if split), or a folder of safetensors files.")
  var model: String

  @Argument(help: "The text, unless --token-ids is given.")
  var file: String?

  @Option(help: ArgumentHelp("The text as token ids.", valueName: "1,2,3"))
  var tokenIds: TokenList?

  @Option(
    help: ArgumentHelp(
      "Write the logits of every token here: little-endian float32, [tokens, vocabulary].",
      valueName: "out.f32"))
  var logits: String?

  @Flag(help: "Print JSON.")
  var json = false

  @OptionGroup var arguments: ModelArguments

  func validate() throws {
    guard (file != nil) != (tokenIds != nil) else {
      throw ValidationError("Give a text file or --token-ids.")
    }
  }

  func run() throws {
    Interrupt.listen()
    let source = try arguments.open(model)
    let tokens = try tokenIds?.ids ?? source.tokenizer.encodePrompt(bytes: try readFile(file ?? ""))
    let window = arguments.context ?? min(512, source.defaultContext)
    let loaded = try loadModel(source, arguments.options(context: window))
    let output = try logits.map { try LogitsFile(path: $0) }
    var progress = ProgressLine("perplexity")
    let result = try loaded.perplexity(
      of: tokens, window: window, isCancelled: { Interrupt.isRequested },
      onLogits: output.map { output in { try output.append($0) } },
      progress: { done, total, perplexity in
        let detail = perplexity.map { "perplexity \(formatFixed($0, digits: 4))" } ?? ""
        progress.draw(done: done, of: total, detail: detail)
      })
    progress.clear()
    // Logits of a part of the text are not kept, and a mean of nothing is not printed.
    let isInterrupted = Interrupt.isRequested
    if !isInterrupted { try output?.close() }
    if result.scoredTokens == 0 {
      Terminal.note("interrupted before any token was scored")
    } else if json {
      try Terminal.printJSON(result)
    } else {
      try Terminal.print(
        """
        perplexity  \(formatFixed(result.perplexity, digits: 4))
        scored      \(result.scoredTokens) of \(tokens.count) tokens, in \(result.windows) \
        \(result.windows == 1 ? "window" : "windows") of \(min(window, tokens.count))
        time        \(formatFixed(result.seconds, digits: 1)) s, \
        \(formatFixed(Double(result.evaluatedTokens) / result.seconds, digits: 1)) tokens/s
        """)
    }
    if isInterrupted { throw ExitCode(130) }
  }
}

/// Logits written beside their final name and moved there when complete.
final class LogitsFile {
  private let path: String
  private var partial: String { path + ".partial" }
  private let descriptor: Int32
  private var isClosed = false

  init(path: String) throws {
    self.path = path
    descriptor = open(path + ".partial", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw OutputError(name: "'\(path).partial'", reason: String(cString: strerror(errno)))
    }
  }

  deinit {
    guard !isClosed else { return }
    Glibc.close(descriptor)
    unlink(partial)
  }

  func append(_ row: UnsafeBufferPointer<Float>) throws {
    try Terminal.write(UnsafeRawBufferPointer(row), to: descriptor, name: "'\(partial)'")
  }

  func close() throws {
    isClosed = true
    guard Glibc.close(descriptor) == 0, rename(partial, path) == 0 else {
      throw OutputError(name: "'\(path)'", reason: String(cString: strerror(errno)))
    }
  }
}

import ArgumentParser
import Glibc
import Logging

/// The `stoker` command.
@main
struct StokerCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stoker",
    abstract: "Runs mixture-of-experts models that are larger than memory.",
    discussion: """
      Experts that do not fit the memory budget are read from disk when the router asks for them. \
      The output is the same to the bit whatever the budget.

      Start with 'stoker demo'. Then 'stoker inspect MODEL.gguf' says how much memory a model \
      needs, and 'stoker run MODEL.gguf --memory 4GiB --prompt "..."' generates within it.
      """,
    version: "0.1.0",
    subcommands: [
      Demo.self, Run.self, Perplexity.self, Inspect.self, Synth.self, Trace.self,
      ReplayCommand.self, FitPredictor.self, PredictEval.self, Calibrate.self,
      PlanCommand.self, Pack.self, Verify.self,
    ])

  static func main() {
    // A reader that went away is an error of the write, which is told, and not the end.
    signal(SIGPIPE, SIG_IGN)
    LoggingSystem.bootstrap(StreamLogHandler.standardError)
    main(nil)
  }
}

/// Warnings and errors of this process, on standard error.
func makeLogger() -> Logger {
  var logger = Logger(label: "stoker")
  logger.logLevel = .notice
  return logger
}

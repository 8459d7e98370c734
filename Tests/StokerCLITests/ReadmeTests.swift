import FoundationEssentials
import Glibc
import Testing

/// The commands that README.md shows.
@Suite struct ReadmeTests {
  private static let path = Samples.repository + "/README.md"

  @Test(.enabled(if: access(path, R_OK) == 0, "there is no README.md"))
  func everyCommandShownIsRunByTheGateOrExists() throws {
    let gate = FileManager.default.contents(atPath: Samples.repository + "/.ci/run")
    let gateCommands = Self.commands(inScript: String(decoding: gate ?? Data(), as: UTF8.self))
    let readme = try String(contentsOf: URL(fileURLWithPath: Self.path), encoding: .utf8)
    let commands = Self.commands(in: readme)
    #expect(!commands.isEmpty, "README.md shows no command")
    for command in commands where !gateCommands.contains(command) {
      for part in command.split(whereSeparator: { "|;&".contains($0) }) {
        try check(part.split(separator: " ").map(String.init), of: command)
      }
    }
  }

  /// The command lines of the blocks marked `sh`.
  private static func commands(in text: String) -> [String] {
    var isInside = false
    var script: [Substring] = []
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.hasPrefix("```") {
        isInside = !isInside && line.dropFirst(3) == "sh"
      } else if isInside {
        script.append(line)
      }
    }
    return commands(inScript: script.joined(separator: "\n"))
  }

  /// The command lines of a script, each whole and with single spaces, without prompts and comments.
  private static func commands(inScript script: String) -> [String] {
    script.replacing("\\\n", with: " ").split(separator: "\n").compactMap { line in
      let command = line.replacing(/(^| )#.*$/, with: "").replacing(/^ *\$ +/, with: "")
      let words = command.split(separator: " ")
      return words.isEmpty ? nil : words.joined(separator: " ")
    }
  }

  /// Checks that a program exists, and for `stoker` that the subcommand has the options.
  private func check(_ words: [String], of command: String) throws {
    let words = Array(words.drop { $0.contains("=") })
    guard let program = words.first else { return }
    if let index = words.firstIndex(where: { $0 == "stoker" || $0.hasSuffix("/stoker") }),
      index == 0 || Array(words[..<index].prefix(2)) == ["swift", "run"]
    {
      return try checkStoker(Array(words[(index + 1)...]), of: command)
    }
    let isBuiltin = ["cd", "export"].contains(program)
    #expect(isBuiltin || Self.exists(program), "'\(command)': there is no '\(program)'")
  }

  private func checkStoker(_ words: [String], of command: String) throws {
    let names = words.prefix { !$0.hasPrefix("-") }.prefix(1)
    let help = try StokerProcess.run(names + ["--help"])
    // The help of what does not exist is the program's own.
    let usage = (["USAGE: stoker"] + names).joined(separator: " ")
    #expect(help.output.contains(usage), "'\(command)': stoker has no such subcommand")
    let listed = help.output.split { !($0.isLetter || $0.isNumber || $0 == "-") }
    for option in words where option.hasPrefix("--") {
      let name = option.prefix { $0 != "=" }
      #expect(listed.contains(name), "'\(command)': there is no option \(name)")
    }
  }

  /// Whether a program is on the search path, or a file of the repository.
  private static func exists(_ program: String) -> Bool {
    if program.contains("/") { return access("\(Samples.repository)/\(program)", X_OK) == 0 }
    let folders = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":") ?? []
    return folders.contains { access("\($0)/\(program)", X_OK) == 0 }
  }
}

import FoundationEssentials
import Glibc
import Stoker

/// Standard output and standard error, and whether anyone watches.
enum Terminal {
  static let showsProgress = isatty(STDERR_FILENO) == 1

  /// Writes bytes to standard output at once.
  /// - Throws: `OutputError` when nobody can read it any more.
  static func write(_ bytes: [UInt8]) throws {
    try write(bytes, to: STDOUT_FILENO, name: "standard output")
  }

  static func print(_ text: String = "") throws { try write(Array((text + "\n").utf8)) }

  /// Writes a line to standard error; a closed standard error is nobody's concern.
  static func note(_ text: String) {
    try? write(Array((text + "\n").utf8), to: STDERR_FILENO, name: "standard error")
  }

  /// Writes all of `bytes` to `descriptor`.
  static func write(_ bytes: [UInt8], to descriptor: Int32, name: String) throws {
    try bytes.withUnsafeBytes { try write($0, to: descriptor, name: name) }
  }

  static func write(
    _ bytes: UnsafeRawBufferPointer, to descriptor: Int32, name: String
  ) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      let written = Glibc.write(
        descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
      if written < 0 {
        if errno == EINTR { continue }
        throw OutputError(name: name, reason: String(cString: strerror(errno)))
      }
      rest = rest.dropFirst(written)
    }
  }

  /// Prints a value as JSON.
  static func printJSON(_ value: some Encodable) throws { try print(json(value)) }

  /// A value as JSON for people and programs, without a line's end.
  static func json(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }
}

/// Output that could not be written.
struct OutputError: Error, CustomStringConvertible {
  let name: String
  let reason: String
  var description: String { "could not write to \(name): \(reason)" }
}

/// A line on standard error that shows how far long work has come, with rate and time left. It is
/// drawn only on a terminal, ten times a second at most.
struct ProgressLine {
  private let label: String
  private let start = ContinuousClock.now
  private var lastDrawn: ContinuousClock.Instant?

  init(_ label: String) { self.label = label }

  mutating func draw(done: Int, of total: Int, detail: String = "") {
    guard Terminal.showsProgress, total > 0 else { return }
    let now = ContinuousClock.now
    if let lastDrawn, now - lastDrawn < .milliseconds(100), done < total { return }
    lastDrawn = now
    let elapsed = (now - start).seconds
    let fraction = Double(done) / Double(total)
    let width = 24
    let filled = Int(fraction * Double(width))
    let bar =
      String(repeating: "#", count: filled)
      + String(repeating: ".", count: width - filled)
    var line = "\r\(label) [\(bar)] \(formatFixed(100 * fraction, digits: 0)) %"
    if fraction > 0, elapsed > 0.5 {
      line += ", \(formatFixed(elapsed / fraction - elapsed, digits: 0)) s left"
    }
    if !detail.isEmpty { line += ", \(detail)" }
    try? Terminal.write(Array((line + "\u{1b}[K").utf8), to: STDERR_FILENO, name: "standard error")
  }

  /// Removes the line.
  func clear() {
    guard lastDrawn != nil else { return }
    try? Terminal.write(Array("\r\u{1b}[K".utf8), to: STDERR_FILENO, name: "standard error")
  }
}

extension Duration {
  /// The duration in seconds.
  var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}

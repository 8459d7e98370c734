import Glibc
import Stoker

/// A table of columns as wide as their widest cell; numbers stand at the right.
func formatTable(_ head: [String], _ rows: [[String]]) -> String {
  let all = [head] + rows
  let widths = head.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
  let isText = head.indices.map { column in
    rows.contains { $0[column].first.map { $0.isLetter || $0 == "/" || $0 == "." } ?? false }
  }
  return all.map { row in
    row.indices.map { column in
      let fill = String(repeating: " ", count: widths[column] - row[column].count)
      return isText[column] ? row[column] + fill : fill + row[column]
    }.joined(separator: "  ").trimmingEnd
  }.joined(separator: "\n")
}

/// Seconds as milliseconds, with two digits.
func milliseconds(_ seconds: Double?) -> String {
  seconds.map { "\(formatFixed($0 * 1e3, digits: 2)) ms" } ?? "-"
}

/// A share as a percentage with one digit.
func percent(_ share: Double) -> String { "\(formatFixed(100 * share, digits: 1)) %" }

/// A difference as a percentage with one digit and its sign.
func signedPercent(_ share: Double) -> String { (share < 0 ? "" : "+") + percent(share) }

extension String {
  fileprivate var trimmingEnd: String {
    var text = self
    while text.last == " " { text.removeLast() }
    return text
  }
}

/// Writes `text` to the file at `path`, which is replaced only by a whole one.
/// - Throws: `OutputError` naming the file.
func writeFile(_ text: String, to path: String) throws {
  let partial = path + ".partial"
  func failure() -> OutputError {
    OutputError(name: "'\(path)'", reason: String(cString: strerror(errno)))
  }
  let descriptor = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
  guard descriptor >= 0 else { throw failure() }
  do {
    try Terminal.write(Array(text.utf8), to: descriptor, name: "'\(path)'")
  } catch {
    close(descriptor)
    unlink(partial)
    throw error
  }
  guard close(descriptor) == 0, rename(partial, path) == 0 else { throw failure() }
}

/// Why a trace cannot be read, written or imported.
public enum TraceError: Error, Hashable, Sendable {
  /// A system call failed; `reason` is the system's word.
  case system(operation: String, path: String, reason: String)
  /// A file that does not begin as a .moetrace file does.
  case notATrace(path: String)
  /// A .moetrace file of another version.
  case unsupportedVersion(path: String, found: UInt32, expected: UInt32)
  /// A .moetrace file that is damaged at byte `offset`.
  case damaged(path: String, offset: Int, reason: String)
  /// A file in none of the formats that are known.
  case unknownFormat(path: String)
  /// Something in the text of a trace is not as its format wants it; lines count from 1.
  case malformed(path: String, line: Int, field: String, found: String, expected: String)
  /// A compressed file that cannot be decompressed.
  case compression(path: String, reason: String)
  /// Files that do not belong together.
  case mismatch(path: String, other: String, reason: String)
}

extension TraceError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let operation, let path, let reason):
      "'\(path)': cannot \(operation): \(reason)."
    case .notATrace(let path):
      "'\(path)' is no .moetrace file; `stoker trace import` makes one of other formats."
    case .unsupportedVersion(let path, let found, let expected):
      "'\(path)' is a trace of version \(found); this program reads version \(expected)."
    case .damaged(let path, let offset, let reason):
      "'\(path)' is damaged at byte \(offset): \(reason). The events before it are whole."
    case .unknownFormat(let path):
      "'\(path)' is no trace that Stoker knows: expected .moetrace, route_trace v1 CSV, JSON lines with "
        + "\"experts\" or \"tok\" and \"layers\", a JSON object with \"router_data\", or ESFT's tab-separated "
        + "expert_weights_L.txt, each of them plain or gzipped."
    case .malformed(let path, let line, let field, let found, let expected):
      "'\(path)', line \(line), \(field): found \(found), expected \(expected). Nothing was imported."
    case .compression(let path, let reason):
      "'\(path)' cannot be decompressed: \(reason). Nothing was imported."
    case .mismatch(let path, let other, let reason):
      "'\(path)' and '\(other)' do not belong together: \(reason). Nothing was imported."
    }
  }
}

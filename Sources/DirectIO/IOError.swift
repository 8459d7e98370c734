internal import Glibc

/// Why a file, a buffer or a read engine failed. `errno` values are those of errno(3).
public enum IOError: Error, Hashable, Sendable {
  case open(path: String, errno: Int32)
  case notRegularFile(path: String)
  /// O_DIRECT was asked for and the file system refuses it.
  case directRefused(path: String, errno: Int32)
  case read(path: String, offset: UInt64, byteCount: Int, errno: Int32)
  /// The file ends before the bytes asked for.
  case unexpectedEndOfFile(path: String, offset: UInt64, expected: Int, found: Int)
  case memory(byteCount: Int, errno: Int32)
  /// io_uring was asked for and the kernel refuses it.
  case ringRefused(errno: Int32, cause: String)
  case threadRefused(errno: Int32)
  /// Whoever provides the bytes could not.
  case provided(name: String, reason: String)
}

extension IOError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .open(let path, let code):
      "could not open '\(path)': \(text(code))"
    case .notRegularFile(let path):
      "'\(path)' is not a regular file"
    case .directRefused(let path, let code):
      "'\(path)' cannot be read with O_DIRECT (\(text(code))); use --direct auto or off"
    case .read(let path, let offset, let byteCount, let code):
      "reading \(byteCount) bytes at offset \(offset) of '\(path)' failed: \(text(code))"
    case .unexpectedEndOfFile(let path, let offset, let expected, let found):
      "'\(path)' ends early: expected \(expected) bytes at offset \(offset), found \(found); "
        + "was it truncated?"
    case .memory(let byteCount, let code):
      "the system refused \(byteCount) bytes of memory: \(text(code))"
    case .ringRefused(let code, let cause):
      "io_uring is not available (\(text(code))): \(cause); use --io auto or pread"
    case .threadRefused(let code):
      "the system refused a reader thread: \(text(code))"
    case .provided(let name, let reason):
      "\(name) did not provide the bytes: \(reason)"
    }
  }
}

/// The text of an errno value.
func text(_ code: Int32) -> String { String(cString: strerror(code)) }

internal import Glibc

/// The whole text of a file, decompressed if it is gzipped.
struct TextFile {
  /// The most bytes of one text.
  static let limit = 4 << 30

  let path: String
  let bytes: [UInt8]

  /// - Throws: `TraceError.system` or `.compression`.
  init(path: String) throws(TraceError) {
    self.path = path
    let contents = try Self.read(path)
    guard Gzip.isCompressed(contents) else {
      bytes = contents
      return
    }
    do throws(Gzip.Failure) {
      bytes = try Gzip.decompress(contents, limit: Self.limit)
    } catch {
      throw .compression(path: path, reason: error.reason)
    }
  }

  private static func read(_ path: String) throws(TraceError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw systemError("open it", path) }
    defer { close(descriptor) }
    var contents: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      let count = Glibc.read(descriptor, &buffer, buffer.count)
      if count < 0 {
        if errno == EINTR { continue }
        throw systemError("read it", path)
      }
      if count == 0 { return contents }
      guard contents.count + count <= limit else {
        throw .compression(path: path, reason: "its text is longer than \(limit) bytes")
      }
      contents += buffer[..<count]
    }
  }

  /// The lines, without their ends; empty ones too.
  var lines: some Sequence<ArraySlice<UInt8>> {
    bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).lazy.map {
      $0.last == UInt8(ascii: "\r") ? $0.dropLast() : $0
    }
  }
}

/// The error for a system call on `path` that has just failed.
func systemError(_ operation: String, _ path: String) -> TraceError {
  .system(operation: operation, path: path, reason: String(cString: strerror(errno)))
}

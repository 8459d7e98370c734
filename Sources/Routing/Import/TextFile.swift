internal import Glibc

/// The whole text of a file, decompressed if it is gzipped.
struct TextFile {
  /// The most bytes of one text.
  static let limit = 4 << 30

  let path: String
  let bytes: [UInt8]
  /// Told the bytes whose lines have been taken, again and again.
  var progress: (_ done: Int) -> Void = { _ in }

  /// - Throws: `TraceError.system` or `.compression`.
  init(path: String, progress: TraceProgress = { _, _ in }) throws(TraceError) {
    self.path = path
    let contents = try Self.read(path)
    guard Gzip.isCompressed(contents) else {
      bytes = contents
      return
    }
    do throws(Gzip.Failure) {
      bytes = try Gzip.decompress(contents, limit: Self.limit, progress: progress)
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
  var lines: TextLines { TextLines(file: self) }
}

/// The lines of a text, one after the other.
struct TextLines: Sequence, IteratorProtocol {
  fileprivate let file: TextFile
  private var position: Int? = 0
  private var told = 0

  fileprivate init(file: TextFile) { self.file = file }

  mutating func next() -> ArraySlice<UInt8>? {
    guard let first = position else { return nil }
    if first >= told + 1 << 20 {
      told = first
      file.progress(first)
    }
    let end = file.bytes[first...].firstIndex(of: UInt8(ascii: "\n"))
    position = end.map { $0 + 1 }
    let line = file.bytes[first..<(end ?? file.bytes.count)]
    return line.last == UInt8(ascii: "\r") ? line.dropLast() : line
  }
}

/// The error for a system call on `path` that has just failed.
func systemError(_ operation: String, _ path: String) -> TraceError {
  .system(operation: operation, path: path, reason: String(cString: strerror(errno)))
}

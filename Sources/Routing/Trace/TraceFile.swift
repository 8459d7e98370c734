internal import Glibc

/// An open file; closes it when it goes.
struct TraceFile: ~Copyable {
  let path: String
  private let descriptor: Int32

  /// - Throws: `TraceError.system`.
  init(path: String, flags: Int32) throws(TraceError) {
    descriptor = open(path, flags | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw systemError("open it", path) }
    self.path = path
  }

  deinit { close(descriptor) }

  /// The next `count` bytes, or those that are left of the file.
  func read(_ count: Int) throws(TraceError) -> [UInt8] {
    var bytes: [UInt8] = []
    // No more than is there: a length that is wrong must not fill the memory.
    var buffer = [UInt8](repeating: 0, count: min(count, 1 << 20))
    while bytes.count < count {
      let wanted = min(buffer.count, count - bytes.count)
      let result = Glibc.read(descriptor, &buffer, wanted)
      if result < 0 {
        if errno == EINTR { continue }
        throw systemError("read it", path)
      }
      if result == 0 { break }
      bytes += buffer[..<result]
    }
    return bytes
  }

  /// Writes all of `bytes`.
  func write(_ bytes: [UInt8]) throws(TraceError) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let result = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
      if result < 0 {
        if errno == EINTR { continue }
        throw systemError("write it", path)
      }
      rest = rest.dropFirst(result)
    }
  }

  /// Cuts the file at `byteCount` and goes to its end.
  func truncate(to byteCount: Int) throws(TraceError) {
    guard ftruncate(descriptor, byteCount) == 0, lseek(descriptor, 0, SEEK_END) >= 0 else {
      throw systemError("cut off its damaged end", path)
    }
  }

  /// Brings what was written to the disk.
  func flush() throws(TraceError) {
    guard fsync(descriptor) == 0 else { throw systemError("flush it", path) }
  }

  /// Bytes of the file.
  func byteCount() throws(TraceError) -> Int {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw systemError("find the size of it", path) }
    return Int(status.st_size)
  }
}

import Glibc

/// A file that is removed when its owner goes.
final class TemporaryFile {
  let path: String

  init() throws(SystemError) {
    let directory = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(directory)/stoker-experts-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    guard descriptor >= 0 else { throw SystemError("create a file in \(directory)") }
    close(descriptor)
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  }

  deinit { unlink(path) }

  /// Every byte of the file.
  func bytes() throws(SystemError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SystemError("open \(path)") }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: Int(lseek(descriptor, 0, SEEK_END)))
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress! + done, $0.count - done, off_t(done))
      }
      guard count > 0 else { throw SystemError("read \(path)") }
      done += count
    }
    return bytes
  }

  /// Cuts the file, which may be open elsewhere, to its first `byteCount` bytes.
  func truncate(to byteCount: Int) throws(SystemError) {
    guard Glibc.truncate(path, off_t(byteCount)) == 0 else { throw SystemError("truncate \(path)") }
  }

  /// Puts `bytes` into the same file: whoever has it open sees them.
  func overwrite(with bytes: [UInt8]) throws(SystemError) {
    let descriptor = open(path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw SystemError("open \(path) for writing") }
    defer { close(descriptor) }
    var done = 0
    while done < bytes.count {
      let count = bytes.withUnsafeBytes {
        pwrite(descriptor, $0.baseAddress! + done, $0.count - done, off_t(done))
      }
      guard count > 0 else { throw SystemError("write \(path)") }
      done += count
    }
  }
}

/// A system call of a test's set-up failed.
struct SystemError: Error, CustomStringConvertible {
  let description: String

  init(_ operation: String) {
    description = "could not \(operation): \(String(cString: strerror(errno)))"
  }
}

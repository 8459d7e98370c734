import ArgumentParser
import Glibc

/// Input that could not be read.
struct InputError: Error, CustomStringConvertible {
  let path: String
  let reason: String
  var description: String { "could not read '\(path)': \(reason)" }
}

/// The bytes of a file the user named.
/// - Throws: `InputError` naming the file.
func readFile(_ path: String) throws -> [UInt8] {
  func failure() -> InputError { InputError(path: path, reason: String(cString: strerror(errno))) }
  let descriptor = open(path, O_RDONLY | O_CLOEXEC)
  guard descriptor >= 0 else { throw failure() }
  defer { close(descriptor) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = read(descriptor, &chunk, chunk.count)
    if count < 0 {
      if errno == EINTR { continue }
      throw failure()
    }
    if count == 0 { return bytes }
    bytes += chunk[..<count]
  }
}

/// Refuses to write a model over a file: it may be a real one that took hours to get.
/// - Throws: `ValidationError` if there is a file at `path`.
func refuseExistingFile(_ path: String) throws {
  var status = stat()
  guard lstat(path, &status) == 0 else { return }
  throw ValidationError("'\(path)' exists; give --force to replace it, or another name.")
}

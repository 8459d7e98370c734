internal import Glibc

/// A file being written under the name `PATH.partial`, which takes its real name only when it is
/// whole and on disk, and is removed if that does not come to pass.
struct PartialFile: ~Copyable {
  /// The name the file will have.
  let path: String
  private let partialPath: String
  private let descriptor: Int32
  private var isRenamed = false

  /// Makes the file empty.
  /// - Throws: `CheckpointError.system`.
  init(path: String) throws(CheckpointError) {
    let partialPath = path + ".partial"
    let descriptor = Glibc.open(partialPath, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else {
      throw .system(operation: "create it", path: partialPath, errno: errno)
    }
    self.path = path
    self.partialPath = partialPath
    self.descriptor = descriptor
  }

  deinit {
    close(descriptor)
    if !isRenamed { unlink(partialPath) }
  }

  /// Writes all of `bytes` at the end.
  /// - Throws: `CheckpointError.system`.
  func write(_ bytes: UnsafeRawBufferPointer) throws(CheckpointError) {
    var written = 0
    while written < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[written...])
      let result = Glibc.write(descriptor, rest.baseAddress, rest.count)
      if result < 0 {
        if errno == EINTR { continue }
        throw failure("write")
      }
      written += result
    }
  }

  /// Brings the file to disk and gives it its name.
  /// - Throws: `CheckpointError.system`; the partial file is removed then.
  consuming func finish() throws(CheckpointError) {
    try renameDurably(partialPath, to: path, descriptor: descriptor)
    isRenamed = true
  }

  private func failure(_ operation: String) -> CheckpointError {
    .system(operation: "\(operation) it", path: partialPath, errno: errno)
  }
}

/// Brings a file to disk, gives it another name, and brings that to disk.
/// - Throws: `CheckpointError.system`.
func renameDurably(
  _ partialPath: String, to path: String, descriptor: Int32
) throws(CheckpointError) {
  guard fsync(descriptor) == 0 else {
    throw .system(operation: "flush it", path: partialPath, errno: errno)
  }
  guard rename(partialPath, path) == 0 else {
    throw .system(operation: "rename it", path: partialPath, errno: errno)
  }
  // The new name is on disk once its directory is (fsync(2)).
  let directory = Glibc.open(parentDirectory(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  guard directory >= 0 else {
    throw .system(operation: "open the directory of", path: path, errno: errno)
  }
  let result = fsync(directory)
  let code = errno
  close(directory)
  guard result == 0 else {
    throw .system(operation: "flush the directory of", path: path, errno: code)
  }
}

/// The directory that `path` lies in.
private func parentDirectory(of path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

/// Checks that the file system of `path` has room for `byteCount` more bytes.
/// - Throws: `CheckpointError.insufficientSpace` or `.system`.
func requireSpace(_ byteCount: UInt64, for path: String) throws(CheckpointError) {
  var status = statvfs()
  guard statvfs(parentDirectory(of: path), &status) == 0 else {
    throw .system(operation: "find the free space of the directory of", path: path, errno: errno)
  }
  let (product, overflow) = UInt64(status.f_bavail)
    .multipliedReportingOverflow(by: UInt64(status.f_frsize))
  let available = overflow ? UInt64.max : product
  guard byteCount <= available else {
    throw .insufficientSpace(path: path, needed: byteCount, available: available)
  }
}

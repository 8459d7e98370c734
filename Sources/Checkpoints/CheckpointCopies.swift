internal import Glibc

/// Other folders, on other drives, that hold files of a checkpoint under the same names: files that are not
/// beside the others, and copies, from which experts are read in turn so that all drives work.
struct CheckpointFolders {
  let paths: [String]

  /// The bytes that are compared of a copy: those of the header, and as many samples of a block as this.
  private static let sampleCount = 64
  private static let sampleByteCount = 4096

  /// The file named as `path` in the first folder that has one; nil if none has.
  func find(_ path: String) -> String? {
    paths.lazy.map { Self.join($0, path) }.first { access($0, F_OK) == 0 }
  }

  /// The copies of each file.
  ///
  /// - Parameter headers: the bytes before the first tensor of each, which are compared as a whole.
  /// - Throws: `.differentCopy` naming a file of that name that is another one, `.uselessFolder` for a folder
  ///   without any.
  func copies(
    of files: [Checkpoint.File], headers: [UInt64]
  ) throws(CheckpointError) -> [[Checkpoint.File]] {
    var copies = files.map { _ in [Checkpoint.File]() }
    for folder in paths {
      var isUsed = false
      for (index, file) in files.enumerated() {
        let candidate = Self.join(folder, file.path)
        guard let status = Self.status(of: candidate), let own = Self.status(of: file.path) else {
          continue
        }
        isUsed = true
        // The file itself, by another way or because it was found here.
        guard status.st_ino != own.st_ino || status.st_dev != own.st_dev else { continue }
        var isCopy = UInt64(max(0, status.st_size)) == file.byteCount
        for place in Self.samples(file.byteCount, header: headers[index]) where isCopy {
          isCopy = try Self.bytes(file.path, place) == Self.bytes(candidate, place)
        }
        guard isCopy else { throw .differentCopy(path: candidate, of: file.path) }
        copies[index].append(
          Checkpoint.File(
            path: candidate, byteCount: file.byteCount, arrangement: file.arrangement))
      }
      guard isUsed else { throw .uselessFolder(path: folder, file: files[0].path) }
    }
    return copies
  }

  private static func join(_ folder: String, _ path: String) -> String {
    let name = path.lastIndex(of: "/").map { path[path.index(after: $0)...] } ?? path[...]
    return folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
  }

  private static func status(of path: String) -> stat? {
    var status = stat()
    return stat(path, &status) == 0 ? status : nil
  }

  /// The places to compare: all of the header, and blocks all over the file.
  private static func samples(_ byteCount: UInt64, header: UInt64) -> [Range<UInt64>] {
    let step = UInt64(1 << 20)
    let whole = stride(from: 0, to: min(header, byteCount), by: Int(step)).map {
      $0..<min($0 + step, header, byteCount)
    }
    let size = min(UInt64(sampleByteCount), byteCount)
    return whole
      + (0...UInt64(sampleCount)).map { index in
        let start = (byteCount - size) / UInt64(sampleCount) * index
        return start..<start + size
      }
      + [byteCount - size..<byteCount]
  }

  private static func bytes(
    _ path: String, _ place: Range<UInt64>
  ) throws(CheckpointError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw .system(operation: "open it", path: path, errno: errno)
    }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: place.count)
    guard pread(descriptor, &bytes, bytes.count, off_t(place.lowerBound)) >= 0 else {
      throw .system(operation: "read it", path: path, errno: errno)
    }
    return bytes
  }
}

internal import Glibc

/// Reads the beginning of a file in order, through one buffer, and never past its end.
///
/// Every read first checks the bytes left in the file and the limit on headers, so a length taken
/// from the file never makes an allocation that the file could not fill.
struct HeaderReader: ~Copyable {
  let path: String
  /// The size of the file when it was opened.
  let byteCount: UInt64
  /// The offset of the next byte to read.
  private(set) var position: UInt64 = 0
  private let descriptor: Int32
  /// Bytes of the file from `chunkStart`; only the first `chunkByteCount` are valid.
  private var chunk: [UInt8]
  private var chunkStart: UInt64 = 0
  private var chunkByteCount = 0

  private static let chunkCapacity = 64 << 10

  /// - Throws: `CheckpointError.system` or `.notRegularFile`.
  init(path: String) throws(CheckpointError) {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer; regular files ignore it.
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw .system(operation: "open it", path: path, errno: errno)
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let code = errno
      close(descriptor)
      throw .system(operation: "read its size", path: path, errno: code)
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      throw .notRegularFile(path: path)
    }
    self.path = path
    self.descriptor = descriptor
    byteCount = UInt64(max(status.st_size, 0))
    chunk = [UInt8](repeating: 0, count: Self.chunkCapacity)
  }

  deinit { close(descriptor) }

  /// The bytes from `position` to the end of the file.
  var bytesLeft: UInt64 { byteCount - position }

  /// Checks that `needed` more bytes are in the file and within the limit on headers.
  func require(_ needed: UInt64, _ item: @autoclosure () -> String) throws(CheckpointError) {
    guard needed <= bytesLeft else {
      throw .truncated(
        path: path, item: item(), offset: position, needed: needed, available: bytesLeft)
    }
    guard needed <= GGUFLimits.headerByteCount - position else {
      throw .headerTooLarge(path: path, item: item(), limit: GGUFLimits.headerByteCount)
    }
  }

  /// Checks that `count` elements of at least `minimumByteCount` bytes can be in the file.
  /// - Returns: the count, which the file's size bounds.
  func checkedCount(
    _ count: UInt64, minimumByteCount: Int, maximum: UInt64 = .max,
    _ item: @autoclosure () -> String
  ) throws(CheckpointError) -> Int {
    guard count <= bytesLeft / UInt64(minimumByteCount) else {
      throw .countExceedsFile(path: path, item: item(), found: count, available: bytesLeft)
    }
    guard count <= (GGUFLimits.headerByteCount - position) / UInt64(minimumByteCount) else {
      throw .headerTooLarge(path: path, item: item(), limit: GGUFLimits.headerByteCount)
    }
    guard count <= maximum else {
      throw .countExceedsLimit(path: path, item: item(), found: count, limit: maximum)
    }
    return Int(count)
  }

  /// Reads a little-endian integer.
  mutating func integer<T: FixedWidthInteger>(
    _ type: T.Type, _ item: @autoclosure () -> String
  ) throws(CheckpointError) -> T {
    let size = MemoryLayout<T>.size
    try require(UInt64(size), item())
    if chunkStart + UInt64(chunkByteCount) < position + UInt64(size) || position < chunkStart {
      try fill(atLeast: size, item())
    }
    let offset = Int(position - chunkStart)
    let value = chunk.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: T.self) }
    position += UInt64(size)
    return T(littleEndian: value)
  }

  /// Reads `count` bytes, handing them over piece by piece.
  mutating func bytes(
    count: Int, _ item: @autoclosure () -> String, _ body: (ArraySlice<UInt8>) -> Void
  ) throws(CheckpointError) {
    try require(UInt64(count), item())
    var left = count
    while left > 0 {
      if position < chunkStart || position >= chunkStart + UInt64(chunkByteCount) {
        try fill(atLeast: 1, item())
      }
      let begin = Int(position - chunkStart)
      let piece = min(left, chunkByteCount - begin)
      body(chunk[begin..<(begin + piece)])
      position += UInt64(piece)
      left -= piece
    }
  }

  /// Reads `count` little-endian integers.
  mutating func integers<T: FixedWidthInteger>(
    _ type: T.Type, count: Int, _ item: @autoclosure () -> String
  ) throws(CheckpointError) -> [T] {
    var values = [T](repeating: 0, count: count)
    var filled = 0
    try bytes(count: count * MemoryLayout<T>.size, item()) { piece in
      values.withUnsafeMutableBytes { destination in
        let rest = UnsafeMutableRawBufferPointer(rebasing: destination[filled...])
        rest.copyBytes(from: piece)
      }
      filled += piece.count
    }
    if T(littleEndian: 1) != 1 {
      for index in values.indices { values[index] = T(littleEndian: values[index]) }
    }
    return values
  }

  /// Reads a string of the given length.
  mutating func string(
    byteCount count: Int, _ item: @autoclosure () -> String
  ) throws(CheckpointError) -> String {
    var text: [UInt8] = []
    text.reserveCapacity(count)
    try bytes(count: count, item()) { text.append(contentsOf: $0) }
    guard let string = String(validating: text, as: UTF8.self) else {
      throw .invalidUTF8(path: path, item: item())
    }
    return string
  }

  /// Refills the buffer from `position` with at least `needed` bytes.
  private mutating func fill(
    atLeast needed: Int, _ item: @autoclosure () -> String
  ) throws(CheckpointError) {
    chunkStart = position
    chunkByteCount = 0
    let descriptor = descriptor
    while chunkByteCount < needed {
      let filled = chunkByteCount
      let offset = off_t(position) + off_t(filled)
      let (result, code) = chunk.withUnsafeMutableBytes { buffer in
        let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[filled...])
        let result = pread(descriptor, rest.baseAddress, rest.count, offset)
        return (result, errno)
      }
      if result < 0 {
        if code == EINTR { continue }
        throw .system(operation: "read \(item())", path: path, errno: code)
      }
      // The size was checked, so the file has shrunk since.
      guard result > 0 else {
        throw .truncated(
          path: path, item: item(), offset: position, needed: UInt64(needed),
          available: UInt64(chunkByteCount))
      }
      chunkByteCount += result
    }
  }
}

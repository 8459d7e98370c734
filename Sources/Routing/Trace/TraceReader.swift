internal import Glibc

/// Reads a .moetrace file from its beginning, one block in memory at a time.
public struct TraceReader: ~Copyable {
  /// What the trace says of itself.
  public let header: TraceHeader
  /// Bytes at the end of the file that are no whole block, as a recording leaves that was cut short;
  /// known once `next` has answered false.
  public private(set) var tornByteCount = 0
  /// Bytes up to the end of the last whole block that was read.
  private(set) var endOfBlocks: Int
  private let file: TraceFile
  private var codec: TraceCodec
  private var payload: [UInt8] = []
  private var position = 0
  private var eventsLeft = 0

  /// Opens the trace at `path`.
  /// - Throws: `TraceError`.
  public init(path: String) throws(TraceError) {
    try self.init(TraceFile(path: path, flags: O_RDONLY))
  }

  init(_ file: consuming TraceFile) throws(TraceError) {
    let prefix = try file.read(TraceFrame.prefixByteCount)
    guard prefix.count == TraceFrame.prefixByteCount, prefix.starts(with: TraceFrame.magic) else {
      throw .notATrace(path: file.path)
    }
    let version = TraceFrame.number(prefix, at: 8)
    guard version == TraceFrame.version else {
      throw .unsupportedVersion(path: file.path, found: version, expected: TraceFrame.version)
    }
    let length = Int(TraceFrame.number(prefix, at: 12))
    guard length <= TraceFrame.maximumHeaderByteCount else {
      throw .damaged(
        path: file.path, offset: 12, reason: "its header would be \(length) bytes long")
    }
    let rest = try file.read(length + TraceFrame.checksumByteCount)
    guard rest.count == length + TraceFrame.checksumByteCount else {
      throw .damaged(path: file.path, offset: 16, reason: "it ends inside its header")
    }
    guard CRC32C.checksum((prefix + rest[..<length])[...]) == TraceFrame.number(rest, at: length)
    else { throw .damaged(path: file.path, offset: 0, reason: "its header's checksum is wrong") }
    guard let header = TraceFrame.decode(rest[..<length]) else {
      throw .damaged(path: file.path, offset: 16, reason: "its header describes no model")
    }
    self.header = header
    endOfBlocks = prefix.count + rest.count
    codec = TraceCodec(header: header)
    self.file = file
  }

  /// Whether the file at `path` begins as a .moetrace file does.
  /// - Throws: `TraceError.system`.
  static func recognizes(path: String) throws(TraceError) -> Bool {
    let file = try TraceFile(path: path, flags: O_RDONLY)
    return try file.read(TraceFrame.magic.count) == TraceFrame.magic
  }

  /// The path of the file.
  public var path: String { file.path }

  /// Bytes read so far, whole blocks.
  public var readByteCount: Int { endOfBlocks }

  /// The bytes of the file.
  /// - Throws: `TraceError.system`.
  public func byteCount() throws(TraceError) -> Int { try file.byteCount() }

  /// Reads the next event into `event`; false at the end of the trace.
  /// - Throws: `TraceError.damaged` if a block that others follow is damaged, or `.system`.
  public mutating func next(into event: inout TraceEvent) throws(TraceError) -> Bool {
    while eventsLeft == 0 {
      guard try readBlock() else { return false }
    }
    guard codec.decode(payload, at: &position, into: &event) else {
      throw damaged("an event in the block that ends here makes no sense")
    }
    eventsLeft -= 1
    guard eventsLeft > 0 || position == payload.count else {
      throw damaged("the block that ends here has bytes after its events")
    }
    return true
  }

  /// Reads the next whole block; false at the end of the file or of what is whole of it.
  private mutating func readBlock() throws(TraceError) -> Bool {
    let prefix = try file.read(TraceFrame.blockPrefixByteCount)
    guard prefix.count == TraceFrame.blockPrefixByteCount else { return try endTorn() }
    let length = Int(TraceFrame.number(prefix, at: 4))
    guard TraceFrame.number(prefix, at: 0) == TraceFrame.blockMagic,
      CRC32C.checksum(prefix[..<12]) == TraceFrame.number(prefix, at: 12),
      length <= TraceFrame.maximumPayloadByteCount
    else { throw damaged("no block begins here") }
    var block = try file.read(length + TraceFrame.checksumByteCount)
    guard block.count == length + TraceFrame.checksumByteCount else { return try endTorn() }
    let checksum = TraceFrame.number(block, at: length)
    block.removeLast(TraceFrame.checksumByteCount)
    let end = endOfBlocks + prefix.count + length + TraceFrame.checksumByteCount
    guard CRC32C.checksum(block[...]) == checksum else {
      if try file.byteCount() <= end { return try endTorn() }
      throw damaged("the checksum of the block that begins here is wrong")
    }
    payload = block
    position = 0
    eventsLeft = Int(TraceFrame.number(prefix, at: 8))
    codec.reset()
    endOfBlocks = end
    return true
  }

  private mutating func endTorn() throws(TraceError) -> Bool {
    tornByteCount = max(0, try file.byteCount() - endOfBlocks)
    return false
  }

  private func damaged(_ reason: String) -> TraceError {
    .damaged(path: file.path, offset: endOfBlocks, reason: reason)
  }

  /// The file, open at some place of it.
  consuming func takeFile() -> TraceFile { file }
}

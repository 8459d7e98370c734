internal import Glibc

/// Writes a .moetrace file, event by event.
///
/// Events are gathered into blocks of about 64 KiB: a program that dies loses the last of them at most.
public final class TraceWriter {
  /// What the trace says of itself.
  public let header: TraceHeader
  /// The highest sequence of the events that were there before; -1 if there was none.
  public private(set) var lastSequence: Int32 = -1
  /// Bytes of a damaged end that were cut off what was there before.
  public private(set) var cutByteCount = 0
  private let path: String
  /// The name until `finish`, if the file is to appear whole or not at all.
  private let partialPath: String?
  private let file: TraceFile
  private var codec: TraceCodec
  private var payload: [UInt8] = []
  private var eventCount: UInt32 = 0
  private var isFinished = false

  private static let blockByteCount = 64 << 10

  /// Makes a trace that takes its name, `path`, only when it is finished; a file of that name is
  /// replaced then.
  /// - Throws: `TraceError.system`.
  public init(creating path: String, header: TraceHeader) throws(TraceError) {
    let partialPath = path + ".partial"
    file = try TraceFile(path: partialPath, flags: O_WRONLY | O_CREAT | O_TRUNC)
    self.path = path
    self.partialPath = partialPath
    self.header = header
    codec = TraceCodec(header: header)
    payload.reserveCapacity(2 * Self.blockByteCount)
    try file.write(TraceFrame.encode(header))
  }

  /// Goes on with the trace at `path`, or begins it. A damaged end, which a recording leaves that was
  /// cut short, is cut off.
  /// - Throws: `TraceError`; `.mismatch` if the trace there is of another model.
  public init(appendingTo path: String, header: TraceHeader) throws(TraceError) {
    let file = try TraceFile(path: path, flags: O_RDWR | O_CREAT)
    if try file.byteCount() == 0 {
      try file.write(TraceFrame.encode(header))
      self.file = file
    } else {
      var reader = try TraceReader(file)
      guard reader.header.geometry == header.geometry, reader.header.model == header.model,
        reader.header.hasWeights == header.hasWeights,
        reader.header.hasScores == header.hasScores,
        reader.header.predictionDistances == header.predictionDistances
      else {
        throw .mismatch(
          path: path, other: "the trace to be recorded",
          reason:
            "one is of '\(reader.header.model)', the other of '\(header.model)', or their shapes "
            + "differ, or only one has router scores or predictions; name another file")
      }
      var event = TraceEvent()
      while try reader.next(into: &event) { lastSequence = max(lastSequence, event.sequence) }
      let end = reader.endOfBlocks
      cutByteCount = reader.tornByteCount
      self.file = reader.takeFile()
      try self.file.truncate(to: end)
    }
    self.path = path
    partialPath = nil
    self.header = header
    codec = TraceCodec(header: header)
    payload.reserveCapacity(2 * Self.blockByteCount)
  }

  deinit {
    if isFinished { return }
    if let partialPath {
      unlink(partialPath)
    } else {
      // Nobody is there to tell; `finish` would have.
      try? writeBlock()
    }
  }

  /// Appends `event`, which must fit the header.
  /// - Throws: `TraceError.system`.
  public func append(_ event: borrowing TraceEvent) throws(TraceError) {
    precondition(
      !event.experts.isEmpty && event.experts.count % header.geometry.topK == 0,
      "an event of partial tokens")
    precondition(
      event.weights.count == (header.hasWeights ? event.experts.count : 0),
      "weights do not match the experts")
    codec.encode(event, into: &payload)
    eventCount += 1
    if payload.count >= Self.blockByteCount { try writeBlock() }
  }

  /// Writes what is left and, for a trace that is created, gives it its name.
  /// - Throws: `TraceError.system`.
  public func finish() throws(TraceError) {
    try writeBlock()
    if let partialPath {
      try file.flush()
      guard rename(partialPath, path) == 0 else { throw systemError("rename it", partialPath) }
    }
    isFinished = true
  }

  private func writeBlock() throws(TraceError) {
    guard eventCount > 0 else { return }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(payload.count + 32)
    TraceFrame.append(TraceFrame.blockMagic, to: &bytes)
    TraceFrame.append(UInt32(payload.count), to: &bytes)
    TraceFrame.append(eventCount, to: &bytes)
    TraceFrame.append(CRC32C.checksum(bytes[...]), to: &bytes)
    bytes += payload
    TraceFrame.append(CRC32C.checksum(payload[...]), to: &bytes)
    payload.removeAll(keepingCapacity: true)
    eventCount = 0
    codec.reset()
    try file.write(bytes)
  }
}

extension RoutingTrace {
  /// Writes the trace to `path`, whole or not at all.
  /// - Throws: `TraceError.system`.
  public func write(to path: String) throws(TraceError) {
    let writer = try TraceWriter(creating: path, header: header)
    var event = TraceEvent()
    for index in 0..<eventCount {
      read(index, into: &event)
      try writer.append(event)
    }
    try writer.finish()
  }
}

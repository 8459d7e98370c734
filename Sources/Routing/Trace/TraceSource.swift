/// Called while files are read, with the bytes that are done and all of them; more than once from the
/// beginning where work has several steps.
public typealias TraceProgress = (_ done: Int, _ total: Int) -> Void

/// A trace that is read from its beginning as often as is wanted: in memory or, where its file is large,
/// part by part from there, so that memory does not grow with its length.
public struct TraceSource: Sendable {
  private enum Storage: Sendable {
    case memory(RoutingTrace)
    case file(path: String)
  }

  /// What the trace says of itself.
  public let header: TraceHeader
  /// The events of each layer, [layers].
  public private(set) var eventCounts: [Int]
  /// The number of routed experts, duplicates within an event included.
  public private(set) var accessCount = 0
  /// Bytes at the end of its file that are no whole block and are left out.
  public private(set) var tornByteCount = 0
  private let storage: Storage

  /// Bytes of a .moetrace file up to which it is held in memory: up to ten times as many there.
  public static let residentByteCount = 16 << 20
  /// Bytes of a file that are read at a time.
  private var partByteCount = 4 << 20

  private init(_ header: TraceHeader, _ storage: Storage) {
    self.header = header
    self.storage = storage
    eventCounts = Array(repeating: 0, count: header.geometry.layerCount)
  }

  /// A trace in memory.
  public init(_ trace: RoutingTrace) {
    self.init(trace.header, .memory(trace))
    tornByteCount = trace.tornByteCount
    count(trace)
  }

  /// Reads the whole .moetrace file at `path` once, which shows that it is sound, and keeps it if it is
  /// no longer than `residentByteCount`.
  /// - Parameter progress: called with the bytes read so far and in all.
  /// - Throws: `TraceError`.
  public init(
    path: String, progress: TraceProgress = { _, _ in }
  ) throws(TraceError) {
    try self.init(path: path, residentByteCount: Self.residentByteCount, progress: progress)
  }

  /// - Parameter partByteCount: bytes of the file that are read at a time.
  package init(
    path: String, residentByteCount: Int, partByteCount: Int = 4 << 20,
    progress: TraceProgress = { _, _ in }
  ) throws(TraceError) {
    var reader = try TraceReader(path: path)
    let byteCount = try reader.byteCount()
    if byteCount <= residentByteCount {
      self.init(try RoutingTrace(path: path, progress: progress))
      return
    }
    self.init(reader.header, .file(path: path))
    self.partByteCount = partByteCount
    var part = RoutingTrace(header: header)
    while try reader.next(partByteCount, into: &part) {
      count(part)
      progress(reader.readByteCount, byteCount)
    }
    tornByteCount = reader.tornByteCount
  }

  private mutating func count(_ trace: RoutingTrace) {
    for event in 0..<trace.eventCount { eventCounts[trace.layer(of: event)] += 1 }
    accessCount += trace.accessCount
  }

  /// The number of events.
  public var eventCount: Int { eventCounts.reduce(0, +) }

  /// The trace, if it is in memory.
  public var resident: RoutingTrace? {
    if case .memory(let trace) = storage { trace } else { nil }
  }

  /// The whole trace.
  /// - Throws: `TraceError`.
  public func loaded() throws(TraceError) -> RoutingTrace {
    switch storage {
    case .memory(let trace): trace
    case .file(let path): try RoutingTrace(path: path)
    }
  }

  /// The parts of the trace from its beginning; one that is in memory is one part.
  /// - Throws: `TraceError` if the file cannot be read or is no longer what it was.
  public func parts() throws(TraceError) -> TraceParts {
    switch storage {
    case .memory(let trace): return TraceParts(trace)
    case .file(let path):
      let reader = try TraceReader(path: path)
      guard reader.header == header else { throw .changed(path) }
      return TraceParts(reader, eventCount: eventCount, partByteCount: partByteCount)
    }
  }

  /// Calls `body` with the parts of the trace in their order.
  ///
  /// - Parameter body: gets the part and the share of the trace that precedes it.
  /// - Throws: what `body` throws; `TraceError` if the file cannot be read or is no longer what it was.
  public func forEachPart(_ body: (RoutingTrace, _ done: Double) throws -> Void) throws {
    var parts = try parts()
    while try parts.next() { try body(parts.part, parts.done) }
  }
}

/// The parts of a trace, one after the other.
public struct TraceParts: ~Copyable {
  /// The part that `next` has found.
  public private(set) var part: RoutingTrace
  /// The share of the trace that precedes it.
  public private(set) var done = 0.0
  private let file: OpenFile?
  private var partByteCount = 0
  private let eventCount: Int
  private var left: Int

  fileprivate init(_ trace: RoutingTrace) {
    part = trace
    file = nil
    eventCount = trace.eventCount
    left = eventCount
  }

  fileprivate init(_ reader: consuming TraceReader, eventCount: Int, partByteCount: Int) {
    part = RoutingTrace(header: reader.header)
    file = OpenFile(reader)
    self.eventCount = eventCount
    self.partByteCount = partByteCount
    left = eventCount
  }

  /// Goes on to the next part; false at the end.
  /// - Throws: `TraceError` if the file cannot be read or is no longer what it was.
  public mutating func next() throws(TraceError) -> Bool {
    guard left > 0 else { return false }
    done = 1 - Double(left) / Double(eventCount)
    // Events that are recorded meanwhile are of no concern.
    if let file, try !file.reader.next(partByteCount, into: &part, most: left) {
      throw .changed(file.reader.path)
    }
    left -= part.eventCount
    return true
  }

  /// A reader that is there or not.
  private final class OpenFile {
    var reader: TraceReader

    init(_ reader: consuming TraceReader) { self.reader = reader }
  }
}

extension TraceError {
  fileprivate static func changed(_ path: String) -> TraceError {
    .system(
      operation: "read it again", path: path, reason: "it was changed while it was being read")
  }
}

extension TraceReader {
  /// Reads the next events, at most `most`, of about so many bytes of the file into `part`, in place of
  /// what is there; false at the end of the trace.
  fileprivate mutating func next(
    _ byteCount: Int, into part: inout RoutingTrace, most: Int = .max
  ) throws(TraceError) -> Bool {
    part.removeAll()
    let end = readByteCount + byteCount
    var event = TraceEvent()
    while part.eventCount < most, readByteCount < end, try next(into: &event) { part.append(event) }
    return part.eventCount > 0
  }
}

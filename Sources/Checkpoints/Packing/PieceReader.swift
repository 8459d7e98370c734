internal import DirectIO

/// Bytes of a file that are gone through from the first to the last.
struct Piece: Sendable {
  let file: Int
  let offset: UInt64
  let byteCount: Int
  /// What the parts of it that are handed out are multiples of, the last one apart.
  let unit: Int
}

/// A part of a piece.
struct PiecePart {
  /// Which piece, and where in it the part begins.
  let piece: Int
  let start: Int
  /// Whether it is the last of its piece.
  let isLast: Bool
  /// The bytes, or why they could not be read.
  let bytes: Result<UnsafeRawBufferPointer, IOError>
}

/// Goes through pieces of files in order with many reads under way, in bounded memory.
final class PieceReader {
  /// The most bytes of a part, and of all parts that are being read.
  private static let partByteCount = 4 << 20
  private static let memoryByteCount = 48 << 20
  /// The most parts that are being read.
  private static let partCount = 128

  /// A part that is being read.
  private struct Flight {
    let piece: Int
    let start: Int
    let isLast: Bool
    let span: AlignedSpan
    /// Where in the memory it goes, and the bytes that are free again once it has been handed out.
    let offset: Int
    let reserved: Int
  }

  private let files: [DataFile]
  private let memory: Arena
  private let engine: any ReadEngine

  /// - Throws: `PackingError.io`.
  init(_ files: [Checkpoint.File], direct: DirectPolicy = .auto) throws(PackingError) {
    do throws(IOError) {
      self.files = try files.open(direct)
      memory = try Arena(byteCount: Self.memoryByteCount)
      engine = try makeReadEngine(
        kind: .auto, files: self.files, arenas: [memory], capacity: Self.partCount)
    } catch {
      throw .io(error)
    }
  }

  deinit { engine.drain() }

  /// Calls `body` with the parts of `pieces` in order.
  /// - Throws: what `body` throws.
  func forEach<Failure: Error>(
    _ pieces: [Piece], _ body: (PiecePart) throws(Failure) -> Void
  ) throws(Failure) {
    defer { engine.drain() }
    var cursor = Cursor(pieces)
    var flights: [Flight] = []
    var first = 0
    var ended: [UInt64: Result<Void, IOError>] = [:]
    // The memory is a ring: parts are handed out in the order in which they were queued.
    var end = 0
    var used = 0
    func queue() {
      while flights.count - first < Self.partCount, let part = cursor.next(Self.partByteCount) {
        let piece = pieces[part.piece]
        let span = files[piece.file].span(
          offset: piece.offset + UInt64(part.bytes.lowerBound), byteCount: part.bytes.count)
        let size = (span.byteCount + 4095) / 4096 * 4096
        let wraps = end + size > memory.byteCount
        let skipped = wraps ? memory.byteCount - end : 0
        guard used + skipped + size <= memory.byteCount else { return }
        let offset = wraps ? 0 : end
        end = offset + size
        used += skipped + size
        engine.enqueue(
          ReadRequest(
            file: piece.file, span: span,
            destination: memory.region(offset: offset, count: size).baseAddress!,
            tag: UInt64(flights.count), priority: .demand))
        flights.append(
          Flight(
            piece: part.piece, start: part.bytes.lowerBound,
            isLast: part.bytes.upperBound == piece.byteCount, span: span, offset: offset,
            reserved: skipped + size))
        cursor.advance(to: part)
      }
    }
    queue()
    engine.submit()
    while first < flights.count {
      let flight = flights[first]
      while ended[UInt64(first)] == nil {
        engine.wait()
        engine.poll { ended[$0.tag] = $0.error.map { .failure($0) } ?? .success(()) }
      }
      let bytes = UnsafeRawBufferPointer(
        start: memory.base + flight.offset + flight.span.lead,
        count: flight.span.requiredByteCount - flight.span.lead)
      try body(
        PiecePart(
          piece: flight.piece, start: flight.start, isLast: flight.isLast,
          bytes: ended.removeValue(forKey: UInt64(first))!.map { bytes }))
      first += 1
      used -= flight.reserved
      queue()
      engine.submit()
    }
  }

  /// Where the next part begins.
  private struct Cursor {
    private let pieces: [Piece]
    private var piece = 0
    private var start = 0

    init(_ pieces: [Piece]) { self.pieces = pieces }

    /// The next part, of at most so many bytes.
    func next(_ most: Int) -> (piece: Int, bytes: Range<Int>)? {
      guard piece < pieces.count else { return nil }
      let unit = pieces[piece].unit
      return (piece, start..<min(pieces[piece].byteCount, start + max(unit, most / unit * unit)))
    }

    mutating func advance(to part: (piece: Int, bytes: Range<Int>)) {
      start = part.bytes.upperBound
      if start == pieces[piece].byteCount { (piece, start) = (piece + 1, 0) }
    }
  }
}

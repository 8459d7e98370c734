import Glibc
import TestSupport
import Testing

@testable import DirectIO

/// All of this target's tests, one at a time: some of them change what the kernel lets the whole
/// process do, and rings count against limits the others would meet.
@Suite(.serialized) struct IOTests {}

/// A folder of its own for one test, removed with what is in it.
final class TemporaryFolder {
  let path: String
  private var names: [String] = []

  /// - Parameter parent: where to make it; nil for the system's place for temporary files.
  init(in parent: String? = nil) throws {
    let parent = parent ?? getenv("TMPDIR").map { String(cString: $0) } ?? P_tmpdir
    var template = Array("\(parent)/stoker-io-XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil, "no folder can be made in \(parent)")
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  }

  deinit {
    for name in names { unlink("\(path)/\(name)") }
    rmdir(path)
  }

  /// The path of a file that is removed with the folder.
  func path(_ name: String) -> String {
    names.append(name)
    return "\(path)/\(name)"
  }
}

/// A file of random bytes.
struct RandomFile {
  let folder: TemporaryFolder
  let path: String
  let bytes: [UInt8]

  init(byteCount: Int, seed: UInt64 = 1, in parent: String? = nil) throws {
    folder = try TemporaryFolder(in: parent)
    path = folder.path("random")
    var generator = SeededGenerator(seed: seed)
    let words = (0..<(byteCount + 7) / 8).map { _ in generator.next() }
    bytes = words.withUnsafeBytes { Array($0.prefix(byteCount)) }
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    try #require(descriptor >= 0)
    defer { close(descriptor) }
    try #require(write(descriptor, bytes, byteCount) == byteCount)
  }
}

/// A read engine and a way to read files with it.
struct EngineSetup: Hashable, Sendable, Codable, CustomTestStringConvertible {
  let kind: ReadEngineKind
  let direct: DirectPolicy

  var testDescription: String { "\(kind.rawValue), direct \(direct.rawValue)" }

  /// Every engine this machine has, past the page cache where the file system allows it and
  /// through it. `RingTests` says so if io_uring is missing.
  static let all: [EngineSetup] = kinds.flatMap { kind in
    [DirectPolicy.auto, .off].map { EngineSetup(kind: kind, direct: $0) }
  }
  static let kinds: [ReadEngineKind] = ringRefusal == nil ? [.uring, .pread] : [.pread]

  /// Why rings cannot be made here; nil if they can.
  static let ringRefusal: IOError? = {
    do throws(IOError) {
      _ = try makeReadEngine(kind: .uring, files: [], arenas: [], queueDepth: 1)
      return nil
    } catch {
      return error
    }
  }()
}

/// Memory for a number of reads, filled with a pattern.
struct Slots {
  let arena: Arena
  let stride: Int

  /// - Parameter byteCount: of the largest wanted extent; the slots have room for its alignment.
  init(count: Int, byteCount: Int) throws {
    stride = (byteCount + 2 * 4096 + 4095) / 4096 * 4096
    arena = try Arena(byteCount: count * stride)
    memset(arena.base, 0xa5, arena.byteCount)
  }

  func destination(_ slot: Int) -> UnsafeMutableRawPointer {
    arena.region(offset: slot * stride, count: stride).baseAddress!
  }

  /// Whether the read of `span` left `expected` in the slot.
  func holds(_ expected: ArraySlice<UInt8>, slot: Int, span: AlignedSpan) -> Bool {
    expected.withUnsafeBytes {
      memcmp(destination(slot) + span.lead, $0.baseAddress!, $0.count) == 0
    }
  }
}

extension DataFile {
  func span(_ range: Range<Int>) -> AlignedSpan {
    span(offset: UInt64(range.lowerBound), byteCount: range.count)
  }
}

extension ReadEngine {
  /// Waits for every outstanding read.
  /// - Returns: the completions in the order in which they came.
  func completions() -> [ReadCompletion] {
    var all: [ReadCompletion] = []
    submit()
    while outstandingCount > 0 {
      wait()
      poll { all.append($0) }
    }
    return all
  }

  /// Reads extents of the engine's file `file`, each into the slot of its index, which is its tag.
  func read(
    _ ranges: [Range<Int>], of file: DataFile, index: Int = 0, into slots: Slots
  ) -> [ReadCompletion] {
    for (slot, range) in ranges.enumerated() {
      enqueue(
        ReadRequest(
          file: index, span: file.span(range), destination: slots.destination(slot),
          tag: UInt64(slot), priority: slot.isMultiple(of: 3) ? .demand : .prefetch))
    }
    return completions()
  }
}

/// Expects that every extent was read once, without an error, and is what the file holds.
func expectRead(
  _ completions: [ReadCompletion], _ ranges: [Range<Int>], of file: DataFile, bytes: [UInt8],
  into slots: Slots, sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(
    completions.map(\.tag).sorted() == ranges.indices.map { UInt64($0) },
    "not every read ended once", sourceLocation: sourceLocation)
  // What a test in a process of its own expected and found does not reach the log; a comment does.
  let errors = completions.compactMap(\.error)
  #expect(errors == [], "\(errors)", sourceLocation: sourceLocation)
  let wrong = ranges.indices.filter { slot in
    !slots.holds(bytes[ranges[slot]], slot: slot, span: file.span(ranges[slot]))
  }
  #expect(wrong == [], "these slots do not hold the file's bytes", sourceLocation: sourceLocation)
}

/// Random extents of `byteCount` bytes, at least one byte and at most `largest` long.
func randomRanges(_ count: Int, byteCount: Int, largest: Int, seed: UInt64) -> [Range<Int>] {
  var generator = SeededGenerator(seed: seed)
  return (0..<count).map { _ in
    let length = Int.random(in: 1...min(largest, byteCount), using: &generator)
    let start = Int.random(in: 0...(byteCount - length), using: &generator)
    return start..<(start + length)
  }
}

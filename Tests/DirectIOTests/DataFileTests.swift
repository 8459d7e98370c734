import Glibc
import TestSupport
import Testing

@testable import DirectIO

extension IOTests {
  @Suite struct DataFileTests {
    @Test(arguments: DirectPolicy.allCases)
    func missingFilesSaySo(_ direct: DirectPolicy) throws {
      let folder = try TemporaryFolder()
      let path = folder.path("missing")
      let error = #expect(throws: IOError.self) { try DataFile(path: path, direct: direct) }
      #expect(error == .open(path: path, errno: ENOENT))
      #expect(error?.description == "could not open '\(path)': No such file or directory")
    }

    @Test(arguments: DirectPolicy.allCases)
    func directoriesAreNoFiles(_ direct: DirectPolicy) throws {
      let folder = try TemporaryFolder()
      let error = #expect(throws: IOError.self) { try DataFile(path: folder.path, direct: direct) }
      #expect(error == .notRegularFile(path: folder.path))
      #expect(error?.description == "'\(folder.path)' is not a regular file")
    }

    @Test(arguments: DirectPolicy.allCases)
    func devicesAreNoFiles(_ direct: DirectPolicy) throws {
      #expect(throws: IOError.notRegularFile(path: "/dev/zero")) {
        try DataFile(path: "/dev/zero", direct: direct)
      }
    }

    @Test(arguments: DirectPolicy.allCases)
    func pipesAreNoFilesAndAreNotWaitedFor(_ direct: DirectPolicy) async {
      await #expect(processExitsWith: .success) { [direct = direct as DirectPolicy] in
        let folder = try TemporaryFolder()
        let path = folder.path("pipe")
        try #require(mkfifo(path, 0o600) == 0)
        // Opening a pipe that nobody writes to blocks: the alarm ends the process then.
        alarm(5)
        #expect(throws: IOError.notRegularFile(path: path)) {
          try DataFile(path: path, direct: direct)
        }
      }
    }

    @Test(arguments: DirectPolicy.allCases)
    func unreadableFilesSaySo(_ direct: DirectPolicy) async {
      await #expect(processExitsWith: .success) { [direct = direct as DirectPolicy] in
        let file = try RandomFile(byteCount: 10)
        try #require(chmod(file.path, 0) == 0)
        // Root is refused nothing.
        if geteuid() == 0 { try #require(seteuid(65534) == 0) }
        defer { seteuid(getuid()) }
        #expect(throws: IOError.open(path: file.path, errno: EACCES)) {
          try DataFile(path: file.path, direct: direct)
        }
      }
    }

    @Test(arguments: EngineSetup.all)
    func emptyFilesHaveNothingToRead(_ setup: EngineSetup) throws {
      let random = try RandomFile(byteCount: 0)
      let file = try DataFile(path: random.path, direct: setup.direct)
      #expect(file.byteCount == 0)
      let slots = try Slots(count: 1, byteCount: 1)
      let engine = try makeReadEngine(kind: setup.kind, files: [file], arenas: [slots.arena])
      let ended = engine.read([0..<1], of: file, into: slots)
      #expect(
        ended.map(\.error) == [
          .unexpectedEndOfFile(path: random.path, offset: 0, expected: 1, found: 0)
        ])
    }

    @Test func theFileSystemsAlignmentIsAPowerOfTwo() throws {
      let random = try RandomFile(byteCount: 10_000)
      let file = try DataFile(path: random.path, direct: .auto)
      #expect(file.byteCount == 10_000)
      #expect(file.isDirect == (file.fallbackReason == nil))
      if file.isDirect {
        #expect(file.alignment.nonzeroBitCount == 1 && (512...4096).contains(file.alignment))
      } else {
        #expect(file.alignment == 1)
      }
      let buffered = try DataFile(path: random.path, direct: .off)
      #expect(!buffered.isDirect && buffered.alignment == 1 && buffered.fallbackReason == nil)
    }

    @Test func spansOfBufferedFilesAreExact() throws {
      let random = try RandomFile(byteCount: 10_000)
      let file = try DataFile(path: random.path, direct: .off)
      let span = file.span(offset: 4_321, byteCount: 1_234)
      #expect(span.offset == 4_321 && span.byteCount == 1_234)
      #expect(span.lead == 0 && span.requiredByteCount == 1_234)
    }

    @Test(arguments: 0..<200)
    func spansOfDirectFilesAreTheSmallestAlignedOnes(_ seed: Int) throws {
      let random = try RandomFile(byteCount: 1)
      let file = try DataFile(path: random.path, direct: .auto)
      var generator = SeededGenerator(seed: UInt64(seed))
      let offset = Int.random(in: 0...(1 << 40), using: &generator)
      let byteCount = Int.random(in: 1...20_000, using: &generator)
      let span = file.span(offset: UInt64(offset), byteCount: byteCount)
      let unit = file.alignment
      #expect(Int(span.offset) % unit == 0 && span.byteCount % unit == 0)
      #expect(Int(span.offset) + span.lead == offset && (0..<unit).contains(span.lead))
      #expect(span.requiredByteCount == span.lead + byteCount)
      #expect((0..<unit).contains(span.byteCount - span.requiredByteCount))
    }

    @Test func closesItsDescriptor() throws {
      let random = try RandomFile(byteCount: 1)
      let descriptor = try DataFile(path: random.path, direct: .off).descriptor
      #expect(fcntl(descriptor, F_GETFD) == -1)
      let folder = try TemporaryFolder()
      for direct in DirectPolicy.allCases {
        _ = try? DataFile(path: folder.path, direct: direct)
        #expect(fcntl(descriptor, F_GETFD) == -1)
      }
    }
  }
}

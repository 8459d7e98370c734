import Glibc
import Testing

@testable import DirectIO

extension IOTests {
  @Suite struct ArenaTests {
    @Test(arguments: [1, 4095, 4096, 4097, 100_000, (2 << 20) - 1])
    func smallArenasBeginOnAPage(_ byteCount: Int) throws {
      let arena = try Arena(byteCount: byteCount)
      #expect(UInt(bitPattern: arena.base) % 4096 == 0)
      #expect(arena.byteCount == byteCount)
      #expect(arena.hugePageRefusal == nil)
    }

    @Test(arguments: [2 << 20, (2 << 20) + 1, 5 << 20])
    func largeArenasBeginOnAHugePage(_ byteCount: Int) throws {
      // More than one: a single mapping may lie on such a border by chance.
      let arenas = try (0..<3).map { _ in try Arena(byteCount: byteCount) }
      for arena in arenas {
        #expect(UInt(bitPattern: arena.base) % UInt(Arena.hugePageByteCount) == 0)
        #expect(arena.byteCount == byteCount)
      }
    }

    @Test(arguments: [1, 4097, (2 << 20) + 1])
    func everyByteIsZeroAndWritable(_ byteCount: Int) throws {
      let arena = try Arena(byteCount: byteCount)
      let bytes = arena.region(offset: 0, count: byteCount)
      #expect(bytes.allSatisfy { $0 == 0 })
      bytes.initializeMemory(as: UInt8.self, repeating: 0x5a)
      #expect(bytes[0] == 0x5a && bytes[byteCount - 1] == 0x5a)
    }

    @Test func ofNoBytesHasAnEmptyRegion() throws {
      let arena = try Arena(byteCount: 0)
      #expect(arena.byteCount == 0)
      #expect(arena.region(offset: 0, count: 0).isEmpty)
    }

    @Test(arguments: [Int.max, Int.max - (2 << 20), 1 << 60])
    func moreThanTheAddressSpaceIsAnError(_ byteCount: Int) {
      let error = #expect(throws: IOError.self) { try Arena(byteCount: byteCount) }
      #expect(error == .memory(byteCount: byteCount, errno: ENOMEM))
      #expect(
        error?.description
          == "the system refused \(byteCount) bytes of memory: Cannot allocate memory")
    }

    @Test func givesItsMemoryBack() async {
      // A thousand gibibytes in turn, where there is room for 64.
      await #expect(processExitsWith: .success) {
        var limit = rlimit(rlim_cur: 64 << 30, rlim_max: 64 << 30)
        try #require(setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0)
        for _ in 0..<1000 { _ = try Arena(byteCount: 1 << 30) }
        #expect(throws: IOError.memory(byteCount: 65 << 30, errno: ENOMEM)) {
          try Arena(byteCount: 65 << 30)
        }
      }
    }

    @Test func regionsAreWhereTheyShouldBe() throws {
      let arena = try Arena(byteCount: 10_000)
      let region = arena.region(offset: 9_000, count: 1_000)
      #expect(region.baseAddress == arena.base + 9_000 && region.count == 1_000)
      #expect(arena.region(offset: 10_000, count: 0).isEmpty)
    }

    @Test(arguments: [[-1, 1], [0, 10_001], [10_001, 0], [1, .max], [5, -1]])
    func regionsOutsideTrap(_ bounds: [Int]) async {
      await #expect(processExitsWith: .failure) { [bounds = bounds as [Int]] in
        let arena = try Arena(byteCount: 10_000)
        _ = arena.region(offset: bounds[0], count: bounds[1])
      }
    }
  }
}

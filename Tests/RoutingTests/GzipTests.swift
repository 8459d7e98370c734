import Foundation
import TestSupport
import Testing

@testable import Routing

/// Against the system's gzip.
@Suite struct GzipTests {
  private static func compress(_ bytes: [UInt8], level: Int, in folder: ScratchFolder) throws
    -> [UInt8]
  {
    let url = folder.url.appendingPathComponent("text")
    try Data(bytes).write(to: url)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["gzip", "-kf", "-\(level)", url.path]
    try process.run()
    process.waitUntilExit()
    return Array(try Data(contentsOf: url.appendingPathExtension("gz")))
  }

  private static func texts() -> [[UInt8]] {
    var generator = SeededGenerator(seed: 5)
    let words = Array("7\t12\t63\t5\n{\"experts\":[[1,2,3]]}".utf8)
    return [
      [], [65], Array(repeating: 0, count: 100_000),
      (0..<70_000).map { _ in UInt8.random(in: 0...255, using: &generator) },
      (0..<200_000).map { _ in words.randomElement(using: &generator)! },
    ]
  }

  @Test(arguments: [1, 6, 9]) func textsComeBack(_ level: Int) throws {
    let folder = try ScratchFolder()
    for text in Self.texts() {
      let compressed = try Self.compress(text, level: level, in: folder)
      #expect(Gzip.isCompressed(compressed))
      #expect(try Gzip.decompress(compressed, limit: 1 << 20) == text)
      #expect(try Gzip.decompress(compressed + compressed, limit: 1 << 20) == text + text)
      if !text.isEmpty {
        #expect(throws: Gzip.Failure.self) {
          try Gzip.decompress(compressed, limit: text.count - 1)
        }
      }
    }
  }

  @Test func damageIsAnError() throws {
    let folder = try ScratchFolder()
    let text = Self.texts()[4]
    let compressed = try Self.compress(text, level: 6, in: folder)
    var generator = SeededGenerator(seed: 6)
    for _ in 0..<300 {
      var damaged = compressed
      // Not in the first ten bytes: most of the header says nothing of the text.
      damaged[Int.random(in: 10..<damaged.count, using: &generator)] ^=
        UInt8(1) << UInt8.random(in: 0..<8, using: &generator)
      #expect(throws: Gzip.Failure.self) { try Gzip.decompress(damaged, limit: 1 << 20) }
      let cut = compressed.prefix(.random(in: 0..<compressed.count, using: &generator))
      #expect(throws: Gzip.Failure.self) { try Gzip.decompress(Array(cut), limit: 1 << 20) }
    }
  }
}

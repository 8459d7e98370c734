import Glibc
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Damages valid files at random and checks that they are either read or refused, never fatal.
///
/// `STOKER_FUZZ_CASES` sets the number of damaged files.
@Suite struct MutationTests {
  private static let caseCount =
    getenv("STOKER_FUZZ_CASES").flatMap { Int(String(cString: $0)) } ?? 5_000
  private static let seed: UInt64 = 0x5EED

  /// In a process of its own, whose memory no other test adds to.
  @Test func damagedFilesAreReadOrRefusedInLittleMemory() async {
    await #expect(processExitsWith: .success) { try MutationTests().damageFiles() }
  }

  private func damageFiles() throws {
    let scratch = try ScratchDirectory()
    let path = scratch.file("damaged.gguf")
    let originals = try originals(scratch)
    var random = SeededGenerator(seed: Self.seed)
    // The first reading allocates what any reading keeps.
    for original in originals {
      try writeFile(path, original.bytes)
      _ = try Checkpoint.open(path)
    }
    let before = try peakResidentByteCount()
    var refusedCount = 0
    var kinds: Set<String> = []
    for _ in 0..<Self.caseCount {
      let original = originals[Int(random.next() % UInt64(originals.count))]
      let bytes = damaged(original, &random)
      try writeFile(path, bytes)
      do throws(CheckpointError) {
        let (checkpoint, _, layout) = try describe(path)
        check(checkpoint, layout, fileByteCount: bytes.count)
      } catch {
        refusedCount += 1
        kinds.insert(Mirror(reflecting: error).children.first?.label ?? "")
        #expect(error.description.contains(path))
      }
    }
    let growth = try peakResidentByteCount() - before
    #expect(growth < 64 << 20, "the peak grew by \(growth) bytes")
    // Damage that is always or never found would mean that the test is not looking.
    #expect(refusedCount > Self.caseCount / 2)
    #expect(refusedCount < Self.caseCount)
    #expect(kinds.count > 15, "\(kinds)")
  }

  private struct Original {
    let bytes: [UInt8]
    let headerByteCount: Int
    /// Where the file has lengths and counts.
    let lengthOffsets: [Int]
  }

  /// Files of both architectures, one of them packed too, and one with every type of metadata.
  private func originals(_ scratch: ScratchDirectory) throws -> [Original] {
    let path = scratch.file("original.gguf")
    func original() throws -> Original {
      let checkpoint = try Checkpoint.open(path)
      let bytes = try readFile(path)
      let headerByteCount = Int(checkpoint.tensors.values.map(\.offset).min() ?? 24)
      // A small number in eight bytes is most likely a length, a count or a dimension.
      let lengths = (8..<(headerByteCount - 8)).filter { offset in
        bytes[offset] > 0 && bytes[(offset + 1)..<(offset + 8)].allSatisfy { $0 == 0 }
      }
      return Original(bytes: bytes, headerByteCount: headerByteCount, lengthOffsets: lengths)
    }
    var originals: [Original] = []
    for (architecture, type) in [("olmoe", ElementType.q4_0), ("qwen3moe", .q8_0)] {
      var tiny = TinyModel(architecture, weights: type)
      tiny.set("rope.scaling.type", .string("yarn"))
      tiny.set("rope.scaling.factor", .float32(2))
      try tiny.write(path)
      originals.append(try original())
    }
    let (checkpoint, _, layout) = try describe(path)
    let packed = scratch.file("packed.gguf")
    _ = try Packer(checkpoint, layout: layout, options: .init(), path: packed)
      .write(to: packed, threadCount: 1) { _, _ in true }
    try writeFile(path, readFile(packed))
    originals.append(try original())
    try writeCheckpoint(path, RoundTripTests.everyType, RoundTripTests.tensors)
    originals.append(try original())
    return originals
  }

  private func damaged(_ original: Original, _ random: inout SeededGenerator) -> [UInt8] {
    var bytes = original.bytes
    for _ in 0..<Int.random(in: 1...3, using: &random) {
      let header = min(original.headerByteCount, bytes.count)
      guard header > 8 else { break }
      let place = Int.random(in: 0..<header, using: &random)
      switch Int.random(in: 0..<6, using: &random) {
      case 0, 1:
        bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 2:
        // Cut out, or put in, a piece of the same file.
        let end = min(place + Int.random(in: 1...16, using: &random), header)
        let from = Int.random(in: 0..<header, using: &random)
        let piece = bytes[from..<min(from + Int.random(in: 0...16, using: &random), header)]
        bytes.replaceSubrange(place..<end, with: Array(piece))
      case 3:
        bytes.removeLast(Int.random(in: 1...bytes.count, using: &random))
      case 4:
        bytes[place] = UInt8.random(in: 0...255, using: &random)
      default:
        guard let offset = original.lengthOffsets.randomElement(using: &random),
          offset + 8 <= bytes.count
        else { break }
        let value = [
          UInt64.max, 1 << 63, UInt64(Int.max), 1 << 62, 1 << 40, 1 << 32, 1 << 20, 65_536, 0,
          UInt64(bytes.count), UInt64(bytes[offset]) + 1, random.next(),
        ].randomElement(using: &random)!
        withUnsafeBytes(of: value.littleEndian) {
          bytes.replaceSubrange(offset..<(offset + 8), with: $0)
        }
      }
    }
    return bytes
  }

  /// What holds for every file that is accepted.
  private func check(_ checkpoint: Checkpoint, _ layout: ExpertLayout, fileByteCount: Int) {
    for info in checkpoint.tensors.values {
      #expect(Int(info.offset) + info.byteCount <= fileByteCount)
    }
    for layer in 0..<layout.layerCount {
      let slices = layout.slices(layer: layer, expert: layout.expertCount - 1)
      for slice in [slices.gate, slices.up, slices.down] {
        #expect(slice.byteCount > 0)
        #expect(Int(slice.offset) + slice.byteCount <= fileByteCount)
      }
    }
    #expect(layout.denseByteCount + layout.totalExpertByteCount <= fileByteCount)
  }

  /// `VmHWM` of `/proc/self/status`: the most memory this process has had resident.
  private func peakResidentByteCount() throws -> Int {
    let text = String(decoding: try readFile("/proc/self/status"), as: UTF8.self)
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
    let digits = line.filter(\.isNumber)
    return try #require(Int(digits)) * 1_024
  }
}

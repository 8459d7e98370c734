import Glibc
import Tensors
import Testing

@testable import Checkpoints

@Suite struct MalformedFileTests {
  private let scratch: ScratchDirectory
  private let path: String

  init() throws {
    scratch = try ScratchDirectory()
    path = scratch.file("bad.gguf")
  }

  private func expect(_ error: CheckpointError, _ header: RawHeader) throws {
    try writeFile(path, header.bytes)
    #expect(throws: error) { try Checkpoint.open(path) }
    #expect(error.description.contains(path))
  }

  /// A header of one key; `build` adds its type and value.
  private func key(_ key: String = "k", _ build: (inout RawHeader) -> Void) -> RawHeader {
    var header = RawHeader(keyCount: 1)
    header.add(key)
    build(&header)
    return header
  }

  /// A header of one-dimensional or given tensors with 128 bytes of data.
  private func tensors(
    _ tensors: [(name: String, shape: [UInt64], type: UInt32, offset: UInt64)]
  ) -> RawHeader {
    var header = RawHeader(tensorCount: UInt64(tensors.count))
    for tensor in tensors {
      header.add(
        tensor: tensor.name, shape: tensor.shape, type: tensor.type, offset: tensor.offset)
    }
    header.add(data: 128)
    return header
  }

  @Test func missingFilesAndDirectoriesAreRefused() {
    #expect(throws: CheckpointError.system(operation: "open it", path: path, errno: ENOENT)) {
      try Checkpoint.open(path)
    }
    // A directory may be a folder of Hugging Face's.
    let config = "\(scratch.path)/config.json"
    #expect(throws: CheckpointError.system(operation: "open it", path: config, errno: ENOENT)) {
      try Checkpoint.open(scratch.path)
    }
    #expect(throws: CheckpointError.notRegularFile(path: "/dev/null")) {
      try Checkpoint.open("/dev/null")
    }
  }

  @Test func magicAndVersionAreChecked() throws {
    var header = RawHeader()
    header.bytes.replaceSubrange(0..<4, with: Array("ggml".utf8))
    try expect(.invalidMagic(path: path, found: Array("ggml".utf8)), header)
    header.bytes.replaceSubrange(0..<4, with: Array("FUGG".utf8))
    try expect(.bigEndian(path: path), header)
    try expect(.bigEndian(path: path), RawHeader(version: UInt32(3).byteSwapped))
    try expect(.unsupportedVersion(path: path, found: 1), RawHeader(version: 1))
    try expect(.unsupportedVersion(path: path, found: 4), RawHeader(version: 4))
  }

  @Test func everyTruncationOfAFileIsAnError() throws {
    try writeCheckpoint(path, RoundTripTests.everyType, RoundTripTests.tensors)
    let bytes = try readFile(path)
    // The last tensor is 288 bytes, a multiple of the alignment: no padding can be spared.
    for count in 0..<bytes.count {
      try writeFile(path, Array(bytes[..<count]))
      #expect(throws: CheckpointError.self, "\(count) bytes") { try Checkpoint.open(path) }
    }
    try writeFile(path, Array(bytes[..<10]))
    #expect(
      throws: CheckpointError.truncated(
        path: path, item: "the tensor count", offset: 8, needed: 8, available: 2)
    ) { try Checkpoint.open(path) }
  }

  @Test func countsBeyondTheFileAreRefusedBeforeAllocating() throws {
    try expect(
      .countExceedsFile(path: path, item: "the tensor count", found: .max, available: 8),
      RawHeader(tensorCount: .max))
    try expect(
      .countExceedsFile(path: path, item: "the metadata count", found: 1 << 40, available: 0),
      RawHeader(keyCount: 1 << 40))
    for (type, size) in [
      (MetadataType.uint8, UInt64(1)), (.float64, 8), (.string, 8), (.array, 12),
    ] {
      let header = key { header in
        header.add(MetadataType.array.rawValue)
        header.add(type.rawValue)
        header.add(64 / size + 1)
        header.bytes += [UInt8](repeating: 0, count: 64)
      }
      try expect(
        .countExceedsFile(
          path: path, item: "the element count of 'k'", found: 64 / size + 1, available: 64),
        header)
    }
    try expect(
      .countExceedsFile(path: path, item: "the length of 'k'", found: .max, available: 3),
      key { header in
        header.add(MetadataType.string.rawValue)
        header.add(UInt64.max)
        header.bytes += [1, 2, 3]
      })
  }

  @Test func aSparseFileCannotClaimMemory() throws {
    // The file is as long as it says, so only the limits stand between it and 16 GiB of memory.
    var header = key { header in
      header.add(MetadataType.array.rawValue)
      header.add(MetadataType.uint32.rawValue)
      header.add(UInt64(1) << 32)
    }
    try writeFile(path, header.bytes)
    #expect(truncate(path, 32 << 30) == 0)
    #expect(
      throws: CheckpointError.headerTooLarge(
        path: path, item: "the element count of 'k'", limit: GGUFLimits.headerByteCount)
    ) { try Checkpoint.open(path) }

    header = RawHeader(tensorCount: 300_000)
    try writeFile(path, header.bytes)
    #expect(truncate(path, 32 << 30) == 0)
    #expect(
      throws: CheckpointError.countExceedsLimit(
        path: path, item: "the tensor count", found: 300_000, limit: GGUFLimits.tensorCount)
    ) { try Checkpoint.open(path) }
  }

  @Test func metadataIsChecked() throws {
    try expect(
      .unknownMetadataType(path: path, key: "k", found: 13),
      key {
        $0.add(UInt32(13))
        $0.add(UInt64(0))
      })
    try expect(
      .invalidBool(path: path, key: "k", found: 2),
      key {
        $0.add(MetadataType.bool.rawValue)
        $0.add(UInt8(2))
      })
    var twice = RawHeader(keyCount: 2)
    for _ in 0..<2 {
      twice.add(key: "k", type: .uint32)
      twice.add(UInt32(7))
    }
    try expect(.duplicateKey(path: path, key: "k"), twice)
    var wrong = RawHeader(keyCount: 1)
    wrong.add(string: [0xC3])
    wrong.bytes += [UInt8](repeating: 0, count: 16)
    try expect(.invalidUTF8(path: path, item: "metadata key 0"), wrong)
    try expect(
      .invalidUTF8(path: path, item: "'k'"),
      key {
        $0.add(MetadataType.string.rawValue)
        $0.add(string: [0x80, 0x80])
      })
    for length in [0, 65_536] {
      try expect(
        .invalidLength(
          path: path, item: "metadata key 0", found: UInt64(length), minimum: 1, maximum: 65_535),
        key(String(repeating: "k", count: length)) { $0.bytes += [UInt8](repeating: 0, count: 8) })
    }
    try expect(
      .nestingTooDeep(path: path, key: "k", limit: 4),
      key { header in
        header.add(MetadataType.array.rawValue)
        for _ in 0..<5 {
          header.add(MetadataType.array.rawValue)
          header.add(UInt64(1))
        }
        header.add(MetadataType.uint8.rawValue)
        header.add(UInt64(0))
      })
  }

  @Test(arguments: [0, 1, 4, 24, 33, 1 << 21])
  func alignmentIsChecked(alignment: UInt32) throws {
    try expect(
      .invalidAlignment(path: path, found: UInt64(alignment)),
      key("general.alignment") {
        $0.add(MetadataType.uint32.rawValue)
        $0.add(alignment)
      })
  }

  @Test func anAlignmentOfAnotherTypeIsRefused() throws {
    try expect(
      .wrongType(path: path, key: "general.alignment", found: "uint64", expected: "uint32"),
      key("general.alignment") {
        $0.add(MetadataType.uint64.rawValue)
        $0.add(UInt64(32))
      })
  }

  @Test func tensorNamesAreChecked() throws {
    for length in [0, 257] {
      try expect(
        .invalidLength(
          path: path, item: "the name of tensor 0", found: UInt64(length), minimum: 1,
          maximum: 256),
        tensors([(String(repeating: "n", count: length), [1], 0, 0)]))
    }
    var header = RawHeader(tensorCount: 1)
    header.add(string: [0xFF])
    header.add(data: 64)
    try expect(.invalidUTF8(path: path, item: "the name of tensor 0"), header)
    try expect(
      .duplicateTensor(path: path, tensor: "t"),
      tensors([("t", [8], 0, 0), ("t", [8], 0, 32)]))
    // 65 to 256 bytes are more than the specification has, and accepted.
    let long = String(repeating: "n", count: 256)
    try writeFile(path, tensors([(long, [8], 0, 0)]).bytes)
    #expect(try Checkpoint.open(path).tensor(long).byteCount == 32)
  }

  @Test func tensorShapesAndTypesAreChecked() throws {
    try expect(
      .unknownElementType(path: path, tensor: "t", found: 4), tensors([("t", [32], 4, 0)]))
    for shape in [[], [1, 1, 1, 1, 1]] as [[UInt64]] {
      try expect(
        .invalidDimensionCount(path: path, tensor: "t", found: UInt32(shape.count)),
        tensors([("t", shape, 0, 0)]))
    }
    for dimension in [0, UInt64(Int.max) + 1] {
      try expect(
        .invalidDimension(path: path, tensor: "t", axis: 1, found: dimension),
        tensors([("t", [4, dimension], 0, 0)]))
    }
    try expect(
      .tensorTooLarge(path: path, tensor: "t", shape: [1 << 32, 1 << 32]),
      tensors([("t", [1 << 32, 1 << 32], 0, 0)]))
    // The values fit an Int, their bytes do not.
    try expect(
      .tensorTooLarge(path: path, tensor: "t", shape: [1 << 62]),
      tensors([("t", [1 << 62], 0, 0)]))
    // 16 rows of 2 values are a whole block, but blocks do not cross rows.
    try expect(
      .partialBlock(path: path, tensor: "t", type: .q8_0, rowLength: 2),
      tensors([("t", [2, 16], 8, 0)]))
  }

  @Test func tensorPlacesAreChecked() throws {
    try expect(
      .misalignedTensor(path: path, tensor: "t", offset: 4, alignment: 32),
      tensors([("t", [1], 0, 4)]))
    for (offset, count) in [(UInt64(0), UInt64(33)), (128, 1), (UInt64.max - 31, 8), (1 << 63, 8)] {
      let header = tensors([("t", [count], 0, offset)])
      try expect(
        .tensorOutOfRange(
          path: path, tensor: "t", offset: offset, byteCount: Int(count) * 4,
          fileByteCount: UInt64(header.bytes.count)),
        header)
    }
    try expect(
      .overlappingTensors(path: path, first: "a", second: "b"),
      tensors([("b", [8], 0, 32), ("a", [9], 0, 0)]))
    try expect(
      .overlappingTensors(path: path, first: "a", second: "b"),
      tensors([("a", [8], 0, 32), ("b", [8], 0, 32)]))
  }
}

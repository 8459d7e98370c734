import Tensors
import Testing

@testable import Checkpoints

@Suite struct RoundTripTests {
  private let scratch: ScratchDirectory

  init() throws { scratch = try ScratchDirectory() }

  /// Every metadata type by itself and in an array, empty arrays and arrays of arrays.
  static let everyType: Metadata = [
    ("a.uint8", .uint8(.max)), ("a.int8", .int8(.min)), ("a.uint16", .uint16(.max)),
    ("a.int16", .int16(.min)), ("a.uint32", .uint32(.max)), ("a.int32", .int32(.min)),
    ("a.uint64", .uint64(.max)), ("a.int64", .int64(.min)), ("a.float32", .float32(-0.15625)),
    ("a.float64", .float64(.pi)), ("a.true", .bool(true)), ("a.false", .bool(false)),
    ("a.string", .string("žluťoučký kůň")), ("a.empty", .string("")),
    ("b.uint8", .array(.uint8([0, 255]))), ("b.int8", .array(.int8([-128, 127]))),
    ("b.uint16", .array(.uint16([0, .max]))), ("b.int16", .array(.int16([.min, .max]))),
    ("b.uint32", .array(.uint32([0, .max]))), ("b.int32", .array(.int32([.min, .max]))),
    ("b.uint64", .array(.uint64([0, .max]))), ("b.int64", .array(.int64([.min, .max]))),
    ("b.float32", .array(.float32([1.5, -.infinity]))),
    ("b.float64", .array(.float64([.greatestFiniteMagnitude, .leastNonzeroMagnitude]))),
    ("b.bool", .array(.bool([true, false, true]))),
    ("b.string", .array(.string(StringTable(["", "two", "Ġ"])))),
    ("b.empty", .array(.string(StringTable()))),
    (
      "b.array",
      .array(
        .array([
          .int32([1, 2]), .array([.string(StringTable(["deep"])), .array([.uint8([])])]),
          .array([]),
        ]))
    ),
  ]

  static let tensors: [GGUFWriter.Tensor] = [
    .init(name: "vector", type: .f32, shape: [3]),
    .init(name: "matrix", type: .q8_0, shape: [64, 3]),
    .init(name: "four", type: .f16, shape: [2, 3, 4, 5]),
    .init(name: "k", type: .q4_K, shape: [256, 2]),
  ]

  @Test(arguments: [2, 3])
  func everyMetadataTypeComesBack(version: UInt8) throws {
    let path = scratch.file("all.gguf")
    try writeCheckpoint(path, Self.everyType, Self.tensors)
    var bytes = try readFile(path)
    bytes[4] = version
    try writeFile(path, bytes)

    let checkpoint = try Checkpoint.open(path)
    #expect(checkpoint.version == UInt32(version))
    #expect(checkpoint.metadata.count == Self.everyType.count)
    for (key, value) in Self.everyType { #expect(checkpoint.metadata[key] == value, "\(key)") }
  }

  @Test(arguments: [8, 32, 4_096])
  func tensorsLieWhereTheyWereWritten(alignment: UInt32) throws {
    let path = scratch.file("tensors.gguf")
    try writeCheckpoint(path, [("general.alignment", .uint32(alignment))], Self.tensors)
    let bytes = try readFile(path)
    let checkpoint = try Checkpoint.open(path)
    #expect(checkpoint.files == [.init(path: path, byteCount: UInt64(bytes.count))])
    #expect(bytes.count % Int(alignment) == 0)
    #expect(checkpoint.tensorOrder == Self.tensors.map(\.name))
    for (index, tensor) in Self.tensors.enumerated() {
      let info = try checkpoint.tensor(tensor.name)
      #expect(info.shape == tensor.shape)
      #expect(info.type == tensor.type)
      #expect(info.offset % UInt64(alignment) == 0)
      let begin = Int(info.offset)
      let found = Array(bytes[begin..<(begin + info.byteCount)])
      #expect(found == tensorBytes(tensor, index: index))
    }
  }

  @Test func aHeaderLongerThanTheBufferComesBack() throws {
    // Strings of every length up to 300 put values across the ends of the reader's buffer.
    let strings = (0..<20_000).map { String(repeating: "x", count: $0 % 300) }
    let numbers = (0..<100_000).map { Int32($0) }
    let metadata: Metadata = [
      ("strings", .array(.string(StringTable(strings)))), ("numbers", .array(.int32(numbers))),
      ("long", .string(String(repeating: "ž", count: 100_000))),
    ]
    let path = scratch.file("long.gguf")
    try writeCheckpoint(path, metadata, [])
    let checkpoint = try Checkpoint.open(path)
    for (key, value) in metadata { #expect(checkpoint.metadata[key] == value, "\(key)") }
    let table = try checkpoint.strings("strings")
    #expect(table.string(at: 299) == strings[299])
    #expect(table.byteCount == strings.reduce(0) { $0 + $1.utf8.count })
    #expect(try checkpoint.integers("numbers").last == 99_999)
  }

  @Test func accessorsCheckTypes() throws {
    let path = scratch.file("all.gguf")
    try writeCheckpoint(path, Self.everyType, [])
    let checkpoint = try Checkpoint.open(path)
    #expect(try checkpoint.integer("a.uint8") == 255)
    #expect(try checkpoint.integer("a.int64") == Int.min)
    #expect(try checkpoint.float("a.float32") == -0.15625)
    #expect(try checkpoint.float("a.float64") == Float(Double.pi))
    #expect(try checkpoint.bool("a.true"))
    #expect(try checkpoint.integers("b.int16") == [-32_768, 32_767])
    #expect(try checkpoint.floats("b.float32") == [1.5, -.infinity])
    #expect(try checkpoint.stringIfPresent("none") == nil)
    #expect(
      throws: CheckpointError.missingKey(path: path, key: "none", expected: "integer")
    ) { try checkpoint.integer("none") }
    #expect(
      throws: CheckpointError.wrongType(
        path: path, key: "a.string", found: "string", expected: "integer")
    ) { try checkpoint.integerIfPresent("a.string") }
    #expect(
      throws: CheckpointError.wrongType(
        path: path, key: "b.string", found: "array of string", expected: "string")
    ) { try checkpoint.string("b.string") }
    #expect(
      throws: CheckpointError.invalidValue(
        path: path, key: "a.uint64", found: "\(UInt64.max)", expected: "at most \(Int.max)")
    ) { try checkpoint.integer("a.uint64") }
  }

  @Test func aTokenThatIsNotTextKeepsItsBytes() {
    var table = StringTable(["a"])
    table.append([0xFF, 0x00])
    #expect(Array(table[1]) == [0xFF, 0x00])
    #expect(table.string(at: 0) == "a")
    #expect(table.string(at: 1) == nil)
  }
}

import Tensors
import Testing

@testable import Checkpoints

@Suite struct GGUFWriterTests {
  private let scratch: ScratchDirectory
  private let path: String

  init() throws {
    scratch = try ScratchDirectory()
    path = scratch.file("out.gguf")
  }

  private static let two: [GGUFWriter.Tensor] = [
    .init(name: "a", type: .f32, shape: [3]), .init(name: "b", type: .f32, shape: [2]),
  ]

  private func expect(
    _ error: CheckpointError, metadata: Metadata = [], tensors: [GGUFWriter.Tensor] = []
  ) {
    #expect(throws: error) {
      let writer = try GGUFWriter(path: path, metadata: metadata, tensors: tensors)
      try writer.finish()
    }
    #expect(scratch.names.isEmpty)
  }

  @Test func dataMayComeInPieces() throws {
    var writer = try GGUFWriter(path: path, metadata: [], tensors: Self.two)
    let byteCount = writer.byteCount
    #expect(writer.nextTensor?.name == "a")
    for byte in 0..<12 { try writer.append([UInt8(byte)]) }
    #expect(scratch.names == ["out.gguf.partial"])
    #expect(writer.nextTensor?.name == "b")
    try writer.append([UInt8](repeating: 7, count: 8))
    #expect(writer.nextTensor == nil)
    try writer.finish()
    #expect(scratch.names == ["out.gguf"])
    let bytes = try readFile(path)
    #expect(bytes.count == Int(byteCount))
    let checkpoint = try Checkpoint.open(path)
    let first = Int(try checkpoint.tensor("a").offset)
    #expect(Array(bytes[first..<(first + 12)]) == (0..<12).map { UInt8($0) })
    #expect(Array(bytes[(first + 32)..<(first + 40)]) == [UInt8](repeating: 7, count: 8))
  }

  @Test func aFinishedFileReplacesTheOldOne() throws {
    try writeFile(path, [1, 2, 3])
    let writer = try GGUFWriter(path: path, metadata: [("k", .bool(true))], tensors: [])
    #expect(try readFile(path) == [1, 2, 3])
    try writer.finish()
    #expect(try Checkpoint.open(path).bool("k"))
  }

  @Test func wrongAmountsOfDataAreRefusedAndLeaveNoFile() {
    #expect(
      throws: CheckpointError.wrongDataSize(path: path, tensor: "a", found: 13, expected: 12)
    ) {
      var writer = try GGUFWriter(path: path, metadata: [], tensors: Self.two)
      try writer.append([UInt8](repeating: 0, count: 5))
      try writer.append([UInt8](repeating: 0, count: 8))
    }
    #expect(
      throws: CheckpointError.wrongDataSize(path: path, tensor: "b", found: 1, expected: 8)
    ) {
      var writer = try GGUFWriter(path: path, metadata: [], tensors: Self.two)
      try writer.append([UInt8](repeating: 0, count: 12))
      try writer.append([0])
      try writer.finish()
    }
    #expect(throws: CheckpointError.excessData(path: path, byteCount: 2)) {
      var writer = try GGUFWriter(path: path, metadata: [], tensors: [])
      try writer.append([0, 0])
    }
    #expect(scratch.names.isEmpty)
  }

  @Test func tooLittleFreeSpaceIsRefused() throws {
    let huge = GGUFWriter.Tensor(name: "huge", type: .f32, shape: [1 << 58])
    let error = #expect(throws: CheckpointError.self) {
      let writer = try GGUFWriter(path: path, metadata: [], tensors: [huge])
      try writer.finish()
    }
    guard case .insufficientSpace(path, let needed, let available) = error else {
      Issue.record("found \(String(describing: error))")
      return
    }
    #expect(needed > 1 << 60)
    #expect(available < needed)
    #expect(error?.description.contains("\(needed)") == true)
    #expect(scratch.names.isEmpty)
  }

  @Test func whatAReaderRefusesIsNotWritten() {
    let long = String(repeating: "n", count: 257)
    let deep = (0..<4).reduce(MetadataArray.uint8([])) { array, _ in .array([array]) }
    expect(
      .duplicateKey(path: path, key: "k"), metadata: [("k", .uint8(0)), ("k", .uint8(0))])
    expect(.invalidAlignment(path: path, found: 12), metadata: [("general.alignment", .uint32(12))])
    expect(
      .nestingTooDeep(path: path, key: "k", limit: 4), metadata: [("k", .array(deep))])
    expect(.duplicateTensor(path: path, tensor: "a"), tensors: [Self.two[0], Self.two[0]])
    expect(
      .invalidLength(
        path: path, item: "the name of tensor 0", found: 257, minimum: 1, maximum: 256),
      tensors: [.init(name: long, type: .f32, shape: [1])])
    expect(
      .invalidDimensionCount(path: path, tensor: "a", found: 0),
      tensors: [.init(name: "a", type: .f32, shape: [])])
    expect(
      .partialBlock(path: path, tensor: "a", type: .q4_0, rowLength: 33),
      tensors: [.init(name: "a", type: .q4_0, shape: [33])])
    expect(
      .tensorTooLarge(path: path, tensor: "a", shape: [1 << 62]),
      tensors: [.init(name: "a", type: .f32, shape: [1 << 62])])
    let large = GGUFWriter.Tensor(name: "a", type: .i8, shape: [.max])
    expect(.tensorTooLarge(path: path, tensor: "a", shape: [.max]), tensors: [large])
  }

  @Test func aMissingDirectoryIsAnError() {
    #expect(throws: CheckpointError.self) {
      let writer = try GGUFWriter(
        path: scratch.file("none/out.gguf"), metadata: [], tensors: [])
      try writer.finish()
    }
  }
}

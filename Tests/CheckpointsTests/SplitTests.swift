import Glibc
import Tensors
import Testing

@testable import Checkpoints

@Suite struct SplitTests {
  private let scratch: ScratchDirectory

  init() throws { scratch = try ScratchDirectory() }

  private func path(_ number: Int, of count: Int = 3) -> String {
    scratch.file("tiny-0000\(number)-of-0000\(count).gguf")
  }

  private func split(
    index: Int, count: Int = 3, tensors: Int
  ) -> Metadata {
    [
      ("split.no", .uint16(UInt16(index))), ("split.count", .uint16(UInt16(count))),
      ("split.tensors.count", .int32(Int32(tensors))),
    ]
  }

  /// Writes a tiny model over three files, the first of which has only metadata.
  private func writeShards(_ model: TinyModel) throws {
    let count = model.tensors.count
    try writeCheckpoint(path(1), model.metadata + split(index: 0, tensors: count), [])
    try writeCheckpoint(
      path(2), split(index: 1, tensors: count), Array(model.tensors[..<(count / 2)]))
    try writeCheckpoint(
      path(3), split(index: 2, tensors: count) + [("general.alignment", .uint32(64))],
      Array(model.tensors[(count / 2)...]))
  }

  @Test(arguments: [1, 2, 3])
  func anyFileFindsTheOthers(number: Int) throws {
    let model = TinyModel("olmoe")
    try writeShards(model)
    let (checkpoint, description, layout) = try describe(path(number))
    #expect(checkpoint.path == path(number))
    #expect(checkpoint.files.map(\.path) == [path(1), path(2), path(3)])
    #expect(checkpoint.tensorOrder == model.tensors.map(\.name))
    #expect(description.layerCount == 2)
    for (index, tensor) in model.tensors.enumerated() {
      let info = try checkpoint.tensor(tensor.name)
      let isFirstHalf = index < model.tensors.count / 2
      #expect(info.file == (isFirstHalf ? 1 : 2))
      let bytes = try readFile(checkpoint.files[info.file].path)
      let found = bytes[Int(info.offset)..<(Int(info.offset) + info.byteCount)]
      let first = isFirstHalf ? 0 : model.tensors.count / 2
      #expect(Array(found) == tensorBytes(tensor, index: index - first))
    }
    // The layers lie in different files.
    #expect(layout.slices(layer: 0, expert: 3).gate.file == 1)
    #expect(layout.slices(layer: 1, expert: 0).gate.file == 2)
  }

  @Test func aMissingFileIsNamed() throws {
    try writeShards(TinyModel("olmoe"))
    unlink(path(2))
    #expect(throws: CheckpointError.missingShard(path: path(2), openedFrom: path(3))) {
      try Checkpoint.open(path(3))
    }
  }

  @Test func aRenamedFileIsRefused() throws {
    try writeShards(TinyModel("olmoe"))
    let renamed = scratch.file("part.gguf")
    rename(path(1), renamed)
    #expect(
      throws: CheckpointError.invalidSplitName(path: renamed, expected: "-00001-of-00003.gguf")
    ) { try Checkpoint.open(renamed) }
    // A file under another's name.
    rename(renamed, path(1))
    rename(path(2), path(3))
    try writeCheckpoint(path(2), split(index: 1, tensors: 1), [])
    #expect(
      throws: CheckpointError.splitMismatch(path: path(3), key: "split.no", found: 1, expected: 2)
    ) { try Checkpoint.open(path(1)) }
  }

  @Test func filesOfDifferentSplitsAreRefused() throws {
    let model = TinyModel("olmoe")
    try writeShards(model)
    let count = model.tensors.count
    let whole = try readFile(path(3))
    let half = Array(model.tensors[(count / 2)...])

    try writeCheckpoint(path(3), split(index: 2, count: 4, tensors: count), half)
    #expect(
      throws: CheckpointError.splitMismatch(
        path: path(3), key: "split.count", found: 4, expected: 3)
    ) { try Checkpoint.open(path(1)) }

    try writeCheckpoint(path(3), split(index: 2, tensors: count), Array(half.dropLast()))
    #expect(
      throws: CheckpointError.splitMismatch(
        path: path(1), key: "split.tensors.count", found: count, expected: count - 1)
    ) { try Checkpoint.open(path(1)) }

    try writeCheckpoint(
      path(3), split(index: 2, tensors: count), [model.tensors[0]] + half.dropFirst())
    #expect(
      throws: CheckpointError.duplicateTensor(path: path(3), tensor: model.tensors[0].name)
    ) { try Checkpoint.open(path(1)) }

    try writeCheckpoint(
      path(3), split(index: 2, tensors: count) + [("general.name", .string("Other"))], half)
    #expect(
      throws: CheckpointError.conflictingMetadata(
        path: path(3), key: "general.name", firstPath: path(1))
    ) { try Checkpoint.open(path(1)) }

    try writeFile(path(3), whole)
    _ = try describe(path(1))
  }

  @Test func splitNumbersAreChecked() throws {
    let bad = path(1)
    try writeCheckpoint(
      bad,
      [
        ("split.no", .uint16(3)), ("split.count", .uint16(3)),
        ("split.tensors.count", .int32(0)),
      ], [])
    #expect(
      throws: CheckpointError.invalidValue(
        path: bad, key: "split.no", found: "3", expected: "0 to 2")
    ) { try Checkpoint.open(bad) }
    try writeCheckpoint(bad, [("split.no", .uint16(0)), ("split.count", .uint64(1 << 40))], [])
    #expect(
      throws: CheckpointError.invalidValue(
        path: bad, key: "split.count", found: "\(1 << 40)", expected: "1 to 65535")
    ) { try Checkpoint.open(bad) }
    try writeCheckpoint(bad, [("split.count", .uint16(3))], [])
    #expect(
      throws: CheckpointError.missingKey(path: bad, key: "split.no", expected: "integer")
    ) { try Checkpoint.open(bad) }
  }

  @Test func aSplitOfOneNeedsNoName() throws {
    let single = scratch.file("single.gguf")
    let model = TinyModel("olmoe")
    try writeCheckpoint(
      single, model.metadata + split(index: 0, count: 1, tensors: model.tensors.count),
      model.tensors)
    #expect(try Checkpoint.open(single).files.count == 1)
  }

  @Test func namesAreTakenApart() {
    #expect(
      ShardName(path: "a/b-00002-of-00010.gguf")
        == ShardName(prefix: "a/b", number: 2, count: 10))
    #expect(ShardName(prefix: "m", number: 12, count: 345).path == "m-00012-of-00345.gguf")
    for name in [
      "", "m.gguf", "m-2-of-3.gguf", "m-00002-of-00003.bin", "m00002-of-00003.gguf",
      "m-00002-of-.gguf", "-of-.gguf", "m-99999999999999999999-of-00003.gguf",
    ] {
      #expect(ShardName(path: name) == nil, "\(name)")
    }
  }
}

import Foundation
import Tensors
import Testing

@testable import Checkpoints

/// Checkpoints whose files lie in several folders, as on several drives.
@Suite struct FolderTests {
  private let scratch: ScratchDirectory
  private let folders: [String]

  init() throws {
    scratch = try ScratchDirectory()
    folders = ["a", "b", "c"].map(scratch.file)
    for folder in folders {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }
  }

  private func write(_ name: String, in folder: Int) throws -> String {
    let path = "\(folders[folder])/\(name)"
    try TinyModel("qwen3moe", weights: .q8_0).write(path)
    return path
  }

  private func layout(_ path: String, _ folders: [String]) throws -> (Checkpoint, ExpertLayout) {
    let checkpoint = try Checkpoint.open(path, folders: folders)
    return (checkpoint, try ExpertLayout(checkpoint, model: ModelDescription(checkpoint)))
  }

  @Test func expertsAreTakenFromAllCopiesInTurn() throws {
    let path = try write("m.gguf", in: 0)
    let copies = try (1...2).map { try write("m.gguf", in: $0) }
    let (checkpoint, striped) = try layout(path, [folders[1], folders[2] + "/"])
    #expect(checkpoint.files.map(\.path) == [path] + copies)
    #expect(checkpoint.fileCount == 1 && checkpoint.byteCount == checkpoint.files[0].byteCount)
    let plain = try layout(path, []).1
    for layer in 0..<2 {
      for expert in 0..<4 {
        let found = striped.slices(layer: layer, expert: expert)
        let own = plain.slices(layer: layer, expert: expert)
        #expect(
          [found.gate, found.up, found.down].map(\.file)
            == .init(repeating: (layer + expert) % 3, count: 3))
        #expect(
          [found.gate, found.up, found.down].map(\.offset)
            == [own.gate, own.up, own.down].map(\.offset))
      }
    }
    // What is not an expert is read once.
    #expect(striped.denseTensors.allSatisfy { $0.file == 0 })
    // The folder itself, and a link to the file, are no copies.
    try FileManager.default.removeItem(atPath: copies[0])
    try FileManager.default.createSymbolicLink(atPath: copies[0], withDestinationPath: path)
    #expect(try layout(path, [folders[0], folders[1]]).0.files.count == 1)
  }

  @Test func anotherFileOfThatNameIsRefused() throws {
    let path = try write("m.gguf", in: 0)
    let other = try write("m.gguf", in: 1)
    var bytes = try readFile(other)
    func refused(_ bytes: [UInt8]) throws {
      try writeFile(other, bytes)
      #expect(throws: CheckpointError.differentCopy(path: other, of: path)) {
        try Checkpoint.open(path, folders: [folders[1]])
      }
    }
    try refused(bytes + [0])
    bytes[40] ^= 1
    try refused(bytes)
    bytes[40] ^= 1
    bytes[bytes.count - 3] ^= 1
    try refused(bytes)
    #expect(throws: CheckpointError.uselessFolder(path: folders[2], file: path)) {
      try Checkpoint.open(path, folders: [folders[2]])
    }
  }

  @Test func filesOfASplitModelNeedNotLieTogether() throws {
    let model = TinyModel("olmoe")
    let half = model.tensors.count / 2
    func split(_ index: Int) -> Metadata {
      [
        ("split.no", .uint16(UInt16(index))), ("split.count", .uint16(2)),
        ("split.tensors.count", .int32(Int32(model.tensors.count))),
      ]
    }
    let first = "\(folders[0])/m-00001-of-00002.gguf"
    let second = "\(folders[1])/m-00002-of-00002.gguf"
    try writeCheckpoint(first, model.metadata + split(0), Array(model.tensors[..<half]))
    try writeCheckpoint(second, split(1), Array(model.tensors[half...]))
    #expect(throws: CheckpointError.self) { try Checkpoint.open(first) }
    let (checkpoint, layout) = try layout(first, [folders[1]])
    #expect(checkpoint.files.map(\.path) == [first, second])
    #expect(layout.slices(layer: 1, expert: 0).gate.file == 1)
    // A copy of one of two files stripes the layers that are in it.
    try FileManager.default.copyItem(
      atPath: second, toPath: "\(folders[2])/m-00002-of-00002.gguf")
    let (_, striped) = try self.layout(first, [folders[1], folders[2]])
    #expect((0..<4).map { striped.slices(layer: 1, expert: $0).up.file } == [2, 1, 2, 1])
    #expect((0..<4).map { striped.slices(layer: 0, expert: $0).up.file } == [0, 0, 0, 0])
  }
}

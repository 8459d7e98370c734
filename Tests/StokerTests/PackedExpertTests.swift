import Checkpoints
import DirectIO
import ExpertRuntime
import Foundation
import Tensors
import Testing

@testable import Models
@testable import Stoker

/// Folders whose experts are 4-bit floats that lie otherwise than they are computed with (gpt-oss). What
/// transformers makes of such a folder is in the GGUF file of the same name, in F32.
@Suite struct PackedExpertTests {
  private static let name = "tiny-gpt-oss-mxfp4"

  /// The bytes of a matrix of an expert, as a read gives them.
  private func bytes(
    _ slice: ExpertSlice, _ range: Range<Int>? = nil, of files: [DataFile]
  ) throws -> [UInt8] {
    let range = range ?? 0..<slice.byteCount
    let file = files[slice.file]
    let span = file.span(
      offset: slice.offset + UInt64(range.lowerBound), byteCount: range.count)
    let memory = try Arena(byteCount: span.byteCount)
    let failure = file.read(span, into: memory.base)
    try #require(failure == nil, "\(failure.map { "\($0)" } ?? "")")
    return Array(
      UnsafeRawBufferPointer(start: memory.base + span.lead, count: range.count))
  }

  private func values(_ type: ElementType, _ bytes: [UInt8]) -> [Float] {
    let count = bytes.count / type.blockByteCount * type.blockSize
    return [Float](unsafeUninitializedCapacity: count) { floats, initialized in
      bytes.withUnsafeBytes {
        Kernels(set: .best).dequantize(
          type: type, blocks: $0.baseAddress!, count: count, into: floats.baseAddress!)
      }
      initialized = count
    }
  }

  /// Whether all experts, and what every token uses, have the values of the GGUF file, to the last bit.
  func holdsTheValuesOfItsGGUF(_ name: String) throws -> Bool {
    let folder = try ModelFile(path: Fixtures.folder(name))
    let plain = try ModelFile(path: Fixtures.tiny(name))
    for direct in [DirectPolicy.auto, .off] {
      let files = (
        try folder.checkpointFiles.open(direct), try plain.checkpointFiles.open(direct)
      )
      for layer in 0..<folder.layout.layerCount {
        let shape = folder.layout.shape(layer: layer)
        guard [shape.gateType, shape.upType, shape.downType] == [.mxfp4, .mxfp4, .mxfp4] else {
          return false
        }
        for expert in 0..<folder.layout.expertCount {
          for matrix in ExpertMatrix.allCases {
            let own = folder.layout.slice(matrix, layer: layer, expert: expert)
            let other = plain.layout.slice(matrix, layer: layer, expert: expert)
            guard
              values(.mxfp4, try bytes(own, of: files.0))
                == values(.f32, try bytes(other, of: files.1))
            else { return false }
          }
        }
      }
    }
    let models = (
      try Fixtures.model(Fixtures.folder(name)), try Fixtures.model(Fixtures.tiny(name))
    )
    let tensors = (folder.layout.denseTensors, plain.layout.denseTensors)
    let names = Set(tensors.0.map(\.name))
    guard names == Set(tensors.1.map(\.name)) else { return false }
    for tensor in tensors.1 {
      let count = tensor.shape.reduce(1, *)
      let weights = (models.0.transformer.weights, models.1.transformer.weights)
      guard values(weights.0, tensor.name, count) == values(weights.1, tensor.name, count) else {
        return false
      }
    }
    return true
  }

  private func values(_ weights: DenseWeights, _ name: String, _ count: Int) -> [Float] {
    let matrix = weights.matrix(name)
    return values(
      matrix.type,
      Array(
        UnsafeRawBufferPointer(
          start: matrix.bytes, count: matrix.type.byteCount(valueCount: count)!)))
  }

  @Test(arguments: Fixtures.packedFolders)
  func theValuesAreThoseOfTransformers(_ name: String) throws {
    #expect(try holdsTheValuesOfItsGGUF(name))
  }

  /// Gate and up, whose rows take turns, are one read; so they are with a small limit to joint reads.
  @Test func gateAndUpAreReadTogether() throws {
    let file = try ModelFile(path: Fixtures.folder(Self.name))
    let geometry = ExpertGeometry(
      layout: file.layout, files: try file.checkpointFiles.open(.auto), joint: 0)
    #expect(geometry.reads(layer: 0).map(\.matrices) == [[.gate, .up], [.down]])
  }

  /// Any part of a matrix, and of gate and up together, is that part of the whole.
  @Test func partsAreThoseOfTheWhole() throws {
    let file = try ModelFile(path: Fixtures.folder(Self.name))
    let files = try file.checkpointFiles.open(.auto)
    let slices = file.layout.slices(layer: 1, expert: 5)
    let joint = ExpertSlice(
      file: slices.gate.file, offset: slices.gate.offset, byteCount: 2 * slices.gate.byteCount)
    for slice in [joint, slices.down] {
      let whole = try bytes(slice, of: files)
      let count = whole.count
      for range in [
        0..<1, 1..<18, 16..<35, 33..<34, 5..<count - 7, count / 2 - 40..<count / 2 + 3,
        count / 2..<count, count / 2 - 1..<count, count - 1..<count,
      ] {
        #expect(try bytes(slice, range, of: files) == Array(whole[range]), "\(range)")
      }
    }
    // What lies between has nothing.
    let gap = file.checkpointFiles.indices.contains(joint.file) ? files[joint.file] : files[0]
    var byte: UInt8 = 0
    let failure = gap.read(
      gap.span(offset: joint.offset + UInt64(joint.byteCount), byteCount: 1), into: &byte)
    #expect(failure.map { "\($0)" }?.contains("nothing lies") == true)
  }

  @Test func whatHadToBeDoneWithoutIsTold() throws {
    let model = try Fixtures.model(Fixtures.folder(Self.name))
    #expect(model.configuration.engine == "pread")
    #expect(model.configuration.fallbacks.contains { $0.contains("stoker pack") })
    #expect(throws: IOError.self) {
      try Fixtures.model(Fixtures.folder(Self.name), ModelOptions(io: .uring))
    }
  }

  /// A file of the folder with some text replaced by other text of the same length, as headers have it.
  @Test(arguments: [
    (
      "model.safetensors", "1.mlp.experts.down_proj_scales", "1.mlp.experts.down_proj_scalez",
      "scales"
    ),
    (
      "model.safetensors", "1.mlp.experts.gate_up_proj_blocks", "1.mlp.experts.gate_up_proj_blockz",
      "blocks"
    ),
    ("model.safetensors", "[8,64,2,16]", "[8,32,4,16]", "shape"),
    ("model.safetensors", "[8,64,2]", "[8,32,4]", "shape"),
    ("model.safetensors", "[8,64,2,16]", "[4,64,4,16]", "experts"),
    ("config.json", "\"mxfp4\"", "\"mxfp9\"", "quant_method"),
    ("config.json", "quantization_config", "quantization_konfig", "GGUF"),
    ("config.json", "\"swiglu_limit\": 7.0", "\"swiglu_limit\": 9.0", "swiglu_limit"),
    ("config.json", "full_attention", "sliding_attention", "layer_types"),
  ])
  func whatIsWrongIsNamed(_ name: String, _ old: String, _ new: String, _ reason: String) throws {
    let folder = NSTemporaryDirectory() + "packed-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try FileManager.default.copyItem(atPath: Fixtures.folder(Self.name), toPath: folder)
    let path = URL(fileURLWithPath: "\(folder)/\(name)")
    var bytes = try Data(contentsOf: path)
    let range = try #require(bytes.range(of: Data(old.utf8)), "\(old) is not in \(name)")
    bytes.replaceSubrange(range, with: Data(new.utf8))
    try bytes.write(to: path)
    let error = #expect(throws: (any Error).self) { try ModelFile(path: folder) }
    #expect(error.map { "\($0)" }?.contains(reason) == true, "\(error.map { "\($0)" } ?? "none")")
  }

  /// A file that has become shorter since it was opened is an error of the layer, not a crash.
  @Test func whatIsCutOffIsNamed() throws {
    let folder = NSTemporaryDirectory() + "packed-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try FileManager.default.copyItem(atPath: Fixtures.folder(Self.name), toPath: folder)
    let model = try Fixtures.smallestModel(folder)
    let handle = try #require(FileHandle(forUpdatingAtPath: "\(folder)/model.safetensors"))
    defer { try? handle.close() }
    try handle.truncate(atOffset: 40_000)
    let error = #expect(throws: RuntimeError.self) { try Fixtures.logits(model, [1, 2, 3]) }
    #expect(error.map { "\($0)" }?.contains("model.safetensors") == true)
  }
}

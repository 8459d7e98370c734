import FoundationEssentials
import Glibc
import Tensors

@testable import Checkpoints

/// A directory that is removed with all its files at the end of a test.
final class ScratchDirectory {
  let path: String

  init() throws {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/checkpoints-XXXXXX".utf8CString)
    let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) != nil }
    guard made else { throw FileFailure(path: parent, code: errno) }
    path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
  }

  deinit {
    try? FileManager.default.removeItem(atPath: path)
  }

  func file(_ name: String) -> String { "\(path)/\(name)" }

  /// The names of the files in the directory.
  var names: [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }
}

struct FileFailure: Error {
  let path: String
  let code: Int32
}

func readFile(_ path: String) throws -> [UInt8] {
  guard let file = fopen(path, "rb") else { throw FileFailure(path: path, code: errno) }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 65_536)
  while true {
    let count = fread(&chunk, 1, chunk.count, file)
    if count == 0 { return bytes }
    bytes.append(contentsOf: chunk[..<count])
  }
}

func writeFile(_ path: String, _ bytes: [UInt8]) throws {
  guard let file = fopen(path, "wb") else { throw FileFailure(path: path, code: errno) }
  let written = fwrite(bytes, 1, bytes.count, file)
  guard fclose(file) == 0, written == bytes.count else {
    throw FileFailure(path: path, code: errno)
  }
}

/// The bytes of a GGUF header put together by hand, for files that the writer refuses to write.
struct RawHeader {
  var bytes: [UInt8] = []

  init(version: UInt32 = 3, tensorCount: UInt64 = 0, keyCount: UInt64 = 0) {
    bytes = Array("GGUF".utf8)
    add(version)
    add(tensorCount)
    add(keyCount)
  }

  mutating func add(_ number: some FixedWidthInteger) {
    withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
  }

  mutating func add(_ string: String) { add(string: Array(string.utf8)) }

  mutating func add(string: [UInt8]) {
    add(UInt64(string.count))
    bytes += string
  }

  mutating func add(key: String, type: MetadataType) {
    add(key)
    add(type.rawValue)
  }

  mutating func add(tensor: String, shape: [UInt64], type: UInt32 = 0, offset: UInt64 = 0) {
    add(tensor)
    add(UInt32(shape.count))
    for dimension in shape { add(dimension) }
    add(type)
    add(offset)
  }

  /// Pads the header and adds data.
  mutating func add(data count: Int) {
    while bytes.count % 32 != 0 { bytes.append(0) }
    bytes += [UInt8](repeating: 0, count: count)
  }
}

typealias Metadata = [(key: String, value: MetadataValue)]

/// Writes a file whose tensors' bytes count up from the tensor's index.
func writeCheckpoint(_ path: String, _ metadata: Metadata, _ tensors: [GGUFWriter.Tensor]) throws {
  var writer = try GGUFWriter(path: path, metadata: metadata, tensors: tensors)
  var index = 0
  while let tensor = writer.nextTensor {
    try writer.append(tensorBytes(tensor, index: index))
    index += 1
  }
  try writer.finish()
}

func tensorBytes(_ tensor: GGUFWriter.Tensor, index: Int) -> [UInt8] {
  let count = tensor.type.byteCount(valueCount: tensor.shape.reduce(1, *))!
  return (0..<count).map { UInt8(truncatingIfNeeded: $0 + index) }
}

/// A model of two layers, small enough to write thousands of times.
struct TinyModel {
  var architecture = "qwen3moe"
  var metadata: Metadata
  var tensors: [GGUFWriter.Tensor]

  /// Hidden 64, four heads of 16 over two key-value heads, four experts of 32, vocabulary 8.
  init(_ architecture: String, weights: ElementType = .f32) {
    self.architecture = architecture
    let numbers: [(String, UInt32)] = [
      ("block_count", 2), ("context_length", 128), ("embedding_length", 64),
      ("feed_forward_length", 32), ("attention.head_count", 4), ("attention.head_count_kv", 2),
      ("expert_count", 4), ("expert_used_count", 2),
    ]
    metadata = [
      ("general.architecture", .string(architecture)), ("general.name", .string("Tiny")),
    ]
    metadata += numbers.map { ("\(architecture).\($0)", .uint32($1)) }
    metadata.append(("\(architecture).attention.layer_norm_rms_epsilon", .float32(1e-5)))
    if architecture == "qwen3moe" {
      metadata.append(("qwen3moe.expert_feed_forward_length", .uint32(32)))
    }
    metadata.append(
      (
        "tokenizer.ggml.tokens",
        .array(.string(StringTable((0..<8).map { "token \($0)" })))
      ))
    func tensor(
      _ name: String, _ shape: [Int], _ type: ElementType
    ) -> GGUFWriter.Tensor { GGUFWriter.Tensor(name: name, type: type, shape: shape) }
    tensors = [
      tensor("token_embd.weight", [64, 8], weights), tensor("output_norm.weight", [64], .f32),
    ]
    let isHeadwise = architecture == "qwen3moe"
    for layer in 0..<2 {
      let rows: [(String, [Int], ElementType)] = [
        ("attn_norm", [64], .f32), ("attn_q", [64, 64], weights), ("attn_k", [64, 32], weights),
        ("attn_v", [64, 32], weights), ("attn_output", [64, 64], weights),
        ("attn_q_norm", [isHeadwise ? 16 : 64], .f32),
        ("attn_k_norm", [isHeadwise ? 16 : 32], .f32), ("ffn_norm", [64], .f32),
        ("ffn_gate_inp", [64, 4], .f32), ("ffn_gate_exps", [64, 32, 4], weights),
        ("ffn_up_exps", [64, 32, 4], weights), ("ffn_down_exps", [32, 64, 4], weights),
      ]
      tensors += rows.map { tensor("blk.\(layer).\($0).weight", $1, $2) }
    }
  }

  /// Sets a key of the architecture, or takes it away.
  mutating func set(_ key: String, _ value: MetadataValue?) {
    let name = "\(architecture).\(key)"
    metadata.removeAll { $0.key == name }
    if let value { metadata.append((name, value)) }
  }

  /// Changes the shape or type of a tensor, or takes it away.
  mutating func replace(_ name: String, with tensor: GGUFWriter.Tensor?) {
    let index = tensors.firstIndex { $0.name == name }!
    tensors.replaceSubrange(index...index, with: tensor.map { [$0] } ?? [])
  }

  func write(_ path: String) throws { try writeCheckpoint(path, metadata, tensors) }
}

/// Every check that a checkpoint goes through before its weights are read.
func describe(
  _ path: String
) throws(CheckpointError) -> (Checkpoint, ModelDescription, ExpertLayout) {
  let checkpoint = try Checkpoint.open(path)
  let model = try ModelDescription(checkpoint)
  let layout = try ExpertLayout(checkpoint, model: model)
  try checkpoint.validateTensors(model)
  return (checkpoint, model, layout)
}

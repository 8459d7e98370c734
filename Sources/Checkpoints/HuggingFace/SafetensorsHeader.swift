internal import FoundationEssentials
internal import Tensors

/// The header of a safetensors file: eight bytes of length, then JSON that names each tensor's type, shape and
/// place in the bytes after it (huggingface.co/docs/safetensors, "Format").
struct SafetensorsHeader {
  let path: String
  let fileByteCount: UInt64
  /// The tensors by place, their shapes in GGML's order.
  let tensors: [TensorInfo]

  /// The limit of the format's own library.
  private static let maximumHeaderByteCount: UInt64 = 100_000_000

  private struct Entry: Decodable {
    let dtype: String
    let shape: [Int]
    let dataOffsets: [UInt64]

    private enum CodingKeys: String, CodingKey {
      case dtype, shape
      case dataOffsets = "data_offsets"
    }
  }

  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  private struct Content: Decodable {
    var entries: [(String, Entry)] = []

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: Key.self)
      for key in container.allKeys where key.stringValue != "__metadata__" {
        entries.append((key.stringValue, try container.decode(Entry.self, forKey: key)))
      }
    }
  }

  /// - Parameter file: the index to give to the tensors' `file`.
  init(path: String, file: Int) throws(CheckpointError) {
    self.path = path
    var reader = try HeaderReader(path: path)
    fileByteCount = reader.byteCount
    let length = try reader.integer(UInt64.self, "the header's length")
    guard length <= Self.maximumHeaderByteCount else {
      throw .countExceedsLimit(
        path: path, item: "the header's length", found: length, limit: Self.maximumHeaderByteCount)
    }
    guard length <= reader.byteCount - reader.position else {
      throw .countExceedsFile(
        path: path, item: "the header's length", found: length,
        available: reader.byteCount - reader.position)
    }
    var text = Data()
    try reader.bytes(count: Int(length), "the header") { text.append(contentsOf: $0) }
    let content = try JSONFile.decode(Content.self, text, path: path)
    let start = reader.position
    let available = reader.byteCount - start
    var tensors: [TensorInfo] = []
    for (name, entry) in content.entries {
      let tensor = try Self.tensor(name, entry, path: path, file: file, start: start)
      guard entry.dataOffsets[1] <= available else {
        throw .tensorOutOfRange(
          path: path, tensor: name, offset: entry.dataOffsets[0], byteCount: tensor.byteCount,
          fileByteCount: fileByteCount)
      }
      tensors.append(tensor)
    }
    try checkDisjoint(tensors, path: path)
    self.tensors = tensors.sorted { ($0.offset, $0.name) < ($1.offset, $1.name) }
  }

  /// The types that can be computed as they lie, and bytes that hold 4-bit floats.
  private static let types: [String: ElementType] = [
    "F32": .f32, "F16": .f16, "BF16": .bf16, "F8_E4M3": .f8_E4M3, "U8": .i8,
  ]

  private static func tensor(
    _ name: String, _ entry: Entry, path: String, file: Int, start: UInt64
  ) throws(CheckpointError) -> TensorInfo {
    guard let type = types[entry.dtype] else {
      throw .invalidValue(
        path: path, key: name, found: "of type \(entry.dtype)",
        expected: types.keys.sorted().joined(separator: ", "))
    }
    // One value of no dimension is one of one.
    let shape = entry.shape.isEmpty ? [1] : Array(entry.shape.reversed())
    let byteCount = try tensorByteCount(type: type, shape: shape, path: path, tensor: name)
    guard entry.dataOffsets.count == 2, entry.dataOffsets[0] <= entry.dataOffsets[1],
      entry.dataOffsets[1] - entry.dataOffsets[0] == UInt64(byteCount)
    else {
      throw .invalidValue(
        path: path, key: name, found: "at data_offsets \(entry.dataOffsets)",
        expected: "a beginning and an end \(byteCount) bytes apart, as type and shape ask for")
    }
    let (offset, overflow) = start.addingReportingOverflow(entry.dataOffsets[0])
    let alignment = UInt64(type.blockByteCount)
    guard !overflow, offset.isMultiple(of: alignment) else {
      throw .misalignedTensor(
        path: path, tensor: name, offset: entry.dataOffsets[0], alignment: alignment)
    }
    return TensorInfo(
      name: name, type: type, shape: shape, file: file, offset: offset, byteCount: byteCount)
  }
}

internal import Tensors

/// The header of one GGUF file: everything before the data of its tensors.
struct GGUFHeader: MetadataSource {
  let path: String
  let fileByteCount: UInt64
  let version: UInt32
  let metadata: [String: MetadataValue]
  /// The tensors in the order of the header.
  let tensors: [TensorInfo]

  /// Reads and checks the header of the file at `path`.
  /// - Parameter file: the index to give to the tensors' `file`.
  init(path: String, file: Int) throws(CheckpointError) {
    var reader = try HeaderReader(path: path)
    version = try Self.version(&reader)
    // Each tensor takes a name of a byte, one dimension, a type and an offset; each key a byte, a
    // type and a value of a byte.
    let tensorCount = try reader.checkedCount(
      reader.integer(UInt64.self, "the tensor count"), minimumByteCount: 8 + 1 + 4 + 8 + 4 + 8,
      maximum: GGUFLimits.tensorCount, "the tensor count")
    let keyCount = try reader.checkedCount(
      reader.integer(UInt64.self, "the metadata count"), minimumByteCount: 8 + 1 + 4 + 1,
      maximum: GGUFLimits.keyCount, "the metadata count")
    metadata = try reader.metadata(count: keyCount)
    let alignment =
      if let value = metadata[GGUFFormat.alignmentKey] {
        try GGUFFormat.alignment(value, path: path)
      } else {
        GGUFFormat.defaultAlignment
      }
    var infos: [RelativeTensor] = []
    for index in 0..<tensorCount {
      infos.append(
        try RelativeTensor(
          &reader, index: index, alignment: alignment,
          allowsOwnTypes: metadata[PackedFormat.versionKey] != nil))
    }
    self.path = path
    fileByteCount = reader.byteCount
    tensors = try Self.place(
      infos, headerByteCount: reader.position, alignment: alignment,
      fileByteCount: reader.byteCount, path: path, file: file)
    try checkDisjoint(tensors, path: path)
  }

  private static func version(_ reader: inout HeaderReader) throws(CheckpointError) -> UInt32 {
    let path = reader.path
    var magic: [UInt8] = []
    try reader.bytes(count: GGUFFormat.magic.count, "the magic number") {
      magic.append(contentsOf: $0)
    }
    guard magic == GGUFFormat.magic else {
      if magic == GGUFFormat.magic.reversed() { throw .bigEndian(path: path) }
      throw .invalidMagic(path: path, found: magic)
    }
    let version = try reader.integer(UInt32.self, "the version")
    guard GGUFFormat.readableVersions.contains(version) else {
      // A big-endian file keeps the order of the magic's letters and swaps the number after it.
      if GGUFFormat.readableVersions.contains(version.byteSwapped) { throw .bigEndian(path: path) }
      throw .unsupportedVersion(path: path, found: version)
    }
    return version
  }

  /// Turns offsets from the beginning of the data into offsets from the beginning of the file.
  private static func place(
    _ infos: [RelativeTensor], headerByteCount: UInt64, alignment: UInt64, fileByteCount: UInt64,
    path: String, file: Int
  ) throws(CheckpointError) -> [TensorInfo] {
    guard let dataStart = GGUFFormat.align(headerByteCount, to: alignment) else {
      throw .headerTooLarge(path: path, item: "its padding", limit: GGUFLimits.headerByteCount)
    }
    var names: Set<String> = []
    var tensors: [TensorInfo] = []
    for info in infos {
      let (offset, offsetOverflow) = dataStart.addingReportingOverflow(info.offset)
      let (end, endOverflow) = offset.addingReportingOverflow(UInt64(info.byteCount))
      guard !offsetOverflow, !endOverflow, end <= fileByteCount else {
        throw .tensorOutOfRange(
          path: path, tensor: info.name, offset: info.offset, byteCount: info.byteCount,
          fileByteCount: fileByteCount)
      }
      guard names.insert(info.name).inserted else {
        throw .duplicateTensor(path: path, tensor: info.name)
      }
      tensors.append(
        TensorInfo(
          name: info.name, type: info.type, shape: info.shape, file: file, offset: offset,
          byteCount: info.byteCount))
    }
    return tensors
  }
}

/// A tensor info as the header has it: its offset counts from the beginning of the data.
private struct RelativeTensor {
  let name: String
  let type: ElementType
  let shape: [Int]
  let offset: UInt64
  let byteCount: Int

  /// - Parameter allowsOwnTypes: whether the types may be there that only packed files have.
  init(
    _ reader: inout HeaderReader, index: Int, alignment: UInt64, allowsOwnTypes: Bool
  ) throws(CheckpointError) {
    let path = reader.path
    let name = try reader.name(maximum: GGUFLimits.nameByteCount, "the name of tensor \(index)")
    let dimensionCount = try reader.integer(UInt32.self, "the dimension count of '\(name)'")
    guard (1...UInt32(GGUFLimits.maximumDimensionCount)).contains(dimensionCount) else {
      throw .invalidDimensionCount(path: path, tensor: name, found: dimensionCount)
    }
    var shape: [Int] = []
    for axis in 0..<Int(dimensionCount) {
      let dimension = try reader.integer(UInt64.self, "dimension \(axis) of '\(name)'")
      guard dimension > 0, let length = Int(exactly: dimension) else {
        throw .invalidDimension(path: path, tensor: name, axis: axis, found: dimension)
      }
      shape.append(length)
    }
    let typeNumber = try reader.integer(UInt32.self, "the type of '\(name)'")
    guard let type = ElementType(rawValue: typeNumber), allowsOwnTypes || !type.hasScalesApart
    else {
      throw .unknownElementType(path: path, tensor: name, found: typeNumber)
    }
    let offset = try reader.integer(UInt64.self, "the offset of '\(name)'")
    guard offset % alignment == 0 else {
      throw .misalignedTensor(path: path, tensor: name, offset: offset, alignment: alignment)
    }
    self.name = name
    self.type = type
    self.shape = shape
    self.offset = offset
    byteCount = try tensorByteCount(type: type, shape: shape, path: path, tensor: name)
  }
}

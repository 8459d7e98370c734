internal import Tensors

/// The bytes of a GGUF header, up to the beginning of the data, with the checks a reader makes.
struct HeaderEncoder {
  let path: String
  private(set) var bytes: [UInt8] = []
  private(set) var alignment = GGUFFormat.defaultAlignment
  private(set) var tensorByteCounts: [Int] = []
  /// Where the data of each tensor begins in the file.
  private(set) var tensorOffsets: [UInt64] = []
  /// Header, data and padding.
  private(set) var fileByteCount: UInt64 = 0

  /// - Throws: the error that reading such a file would give.
  init(
    path: String, metadata: [(key: String, value: MetadataValue)], tensors: [GGUFWriter.Tensor]
  ) throws(CheckpointError) {
    self.path = path
    bytes.append(contentsOf: GGUFFormat.magic)
    append(GGUFFormat.writtenVersion)
    append(UInt64(tensors.count))
    append(UInt64(metadata.count))
    try limit(metadata.count, GGUFLimits.keyCount, "the metadata count")
    try limit(tensors.count, GGUFLimits.tensorCount, "the tensor count")
    try append(metadata)
    let dataByteCount = try append(tensors)
    guard bytes.count <= GGUFLimits.headerByteCount else {
      throw .headerTooLarge(
        path: path, item: "the tensor infos", limit: GGUFLimits.headerByteCount)
    }
    while UInt64(bytes.count) % alignment != 0 { bytes.append(0) }
    tensorOffsets = tensorOffsets.map { $0 + UInt64(bytes.count) }
    fileByteCount = UInt64(bytes.count) + dataByteCount
  }

  private func limit(_ count: Int, _ limit: UInt64, _ item: String) throws(CheckpointError) {
    guard count <= limit else {
      throw .countExceedsLimit(path: path, item: item, found: UInt64(count), limit: limit)
    }
  }

  private mutating func append(
    _ metadata: [(key: String, value: MetadataValue)]
  ) throws(CheckpointError) {
    var keys: Set<String> = []
    for (index, (key, value)) in metadata.enumerated() {
      guard keys.insert(key).inserted else { throw .duplicateKey(path: path, key: key) }
      try appendName(key, maximum: GGUFLimits.keyByteCount, "metadata key \(index)")
      append(value.type.rawValue)
      try append(value, key: key)
    }
  }

  /// Appends the tensor infos.
  /// - Returns: the bytes of all data with its padding.
  private mutating func append(_ tensors: [GGUFWriter.Tensor]) throws(CheckpointError) -> UInt64 {
    var names: Set<String> = []
    var offset: UInt64 = 0
    for (index, tensor) in tensors.enumerated() {
      guard names.insert(tensor.name).inserted else {
        throw .duplicateTensor(path: path, tensor: tensor.name)
      }
      let byteCount = try tensorByteCount(
        type: tensor.type, shape: tensor.shape, path: path, tensor: tensor.name)
      try appendName(tensor.name, maximum: GGUFLimits.nameByteCount, "the name of tensor \(index)")
      append(UInt32(tensor.shape.count))
      for dimension in tensor.shape { append(UInt64(dimension)) }
      append(tensor.type.rawValue)
      append(offset)
      tensorByteCounts.append(byteCount)
      tensorOffsets.append(offset)
      let (end, overflow) = offset.addingReportingOverflow(UInt64(byteCount))
      // A file is at most `Int.max` bytes; leave room for the header.
      guard !overflow, let next = GGUFFormat.align(end, to: alignment),
        next <= UInt64(Int.max) - 2 * GGUFLimits.headerByteCount - GGUFLimits.maximumAlignment
      else {
        throw .tensorTooLarge(path: path, tensor: tensor.name, shape: tensor.shape)
      }
      offset = next
    }
    return offset
  }

  private mutating func append(_ value: MetadataValue, key: String) throws(CheckpointError) {
    if key == GGUFFormat.alignmentKey {
      alignment = try GGUFFormat.alignment(value, path: path)
    }
    switch value {
    case .uint8(let number): append(number)
    case .int8(let number): append(number)
    case .uint16(let number): append(number)
    case .int16(let number): append(number)
    case .uint32(let number): append(number)
    case .int32(let number): append(number)
    case .uint64(let number): append(number)
    case .int64(let number): append(number)
    case .float32(let number): append(number.bitPattern)
    case .float64(let number): append(number.bitPattern)
    case .bool(let bool): append(UInt8(bool ? 1 : 0))
    case .string(let string): append(string: string.utf8)
    case .array(let array): try append(array, key: key, depth: 1)
    }
  }

  private mutating func append(
    _ array: MetadataArray, key: String, depth: Int
  ) throws(CheckpointError) {
    guard depth <= GGUFLimits.nestingDepth else {
      throw .nestingTooDeep(path: path, key: key, limit: GGUFLimits.nestingDepth)
    }
    append(array.elementType.rawValue)
    append(UInt64(array.count))
    switch array {
    case .uint8(let numbers): bytes.append(contentsOf: numbers)
    case .int8(let numbers): for number in numbers { append(number) }
    case .uint16(let numbers): for number in numbers { append(number) }
    case .int16(let numbers): for number in numbers { append(number) }
    case .uint32(let numbers): for number in numbers { append(number) }
    case .int32(let numbers): for number in numbers { append(number) }
    case .uint64(let numbers): for number in numbers { append(number) }
    case .int64(let numbers): for number in numbers { append(number) }
    case .float32(let numbers): for number in numbers { append(number.bitPattern) }
    case .float64(let numbers): for number in numbers { append(number.bitPattern) }
    case .bool(let bools): for bool in bools { append(UInt8(bool ? 1 : 0)) }
    case .string(let table): for index in 0..<table.count { append(string: table[index]) }
    case .array(let arrays):
      for array in arrays { try append(array, key: key, depth: depth + 1) }
    }
  }

  private mutating func appendName(
    _ name: String, maximum: Int, _ item: String
  ) throws(CheckpointError) {
    guard (1...maximum).contains(name.utf8.count) else {
      throw .invalidLength(
        path: path, item: item, found: UInt64(name.utf8.count), minimum: 1, maximum: maximum)
    }
    append(string: name.utf8)
  }

  private mutating func append(string: some Collection<UInt8>) {
    append(UInt64(string.count))
    bytes.append(contentsOf: string)
  }

  private mutating func append(_ number: some FixedWidthInteger) {
    withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
  }
}

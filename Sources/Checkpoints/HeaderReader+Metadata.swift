extension HeaderReader {
  /// Reads the metadata section: `count` keys, each with a type and a value.
  mutating func metadata(count: Int) throws(CheckpointError) -> [String: MetadataValue] {
    // No capacity is reserved: an entry takes more memory than its fewest bytes in the file.
    var metadata: [String: MetadataValue] = [:]
    for index in 0..<count {
      let key = try name(maximum: GGUFLimits.keyByteCount, "metadata key \(index)")
      let type = try metadataType(key: key)
      let value = try metadataValue(type, key: key)
      guard metadata.updateValue(value, forKey: key) == nil else {
        throw .duplicateKey(path: path, key: key)
      }
    }
    return metadata
  }

  /// Reads a length and so many bytes of UTF-8, at least one and at most `maximum`.
  mutating func name(
    maximum: Int, _ item: @autoclosure () -> String
  ) throws(CheckpointError) -> String {
    let length = try integer(UInt64.self, "the length of \(item())")
    guard (1...UInt64(maximum)).contains(length) else {
      throw .invalidLength(path: path, item: item(), found: length, minimum: 1, maximum: maximum)
    }
    return try string(byteCount: Int(length), item())
  }

  private mutating func metadataType(key: String) throws(CheckpointError) -> MetadataType {
    let number = try integer(UInt32.self, "the type of '\(key)'")
    guard let type = MetadataType(rawValue: number) else {
      throw .unknownMetadataType(path: path, key: key, found: number)
    }
    return type
  }

  private mutating func metadataValue(
    _ type: MetadataType, key: String
  ) throws(CheckpointError) -> MetadataValue {
    let item = "'\(key)'"
    switch type {
    case .uint8: return .uint8(try integer(UInt8.self, item))
    case .int8: return .int8(try integer(Int8.self, item))
    case .uint16: return .uint16(try integer(UInt16.self, item))
    case .int16: return .int16(try integer(Int16.self, item))
    case .uint32: return .uint32(try integer(UInt32.self, item))
    case .int32: return .int32(try integer(Int32.self, item))
    case .uint64: return .uint64(try integer(UInt64.self, item))
    case .int64: return .int64(try integer(Int64.self, item))
    case .float32: return .float32(Float(bitPattern: try integer(UInt32.self, item)))
    case .float64: return .float64(Double(bitPattern: try integer(UInt64.self, item)))
    case .bool: return .bool(try bool(integer(UInt8.self, item), key: key))
    case .string:
      let length = try integer(UInt64.self, "the length of \(item)")
      let count = try checkedCount(length, minimumByteCount: 1, "the length of \(item)")
      return .string(try string(byteCount: count, item))
    case .array: return .array(try metadataArray(key: key, depth: 1))
    }
  }

  private func bool(_ byte: UInt8, key: String) throws(CheckpointError) -> Bool {
    guard byte <= 1 else { throw .invalidBool(path: path, key: key, found: byte) }
    return byte == 1
  }

  private mutating func metadataArray(
    key: String, depth: Int
  ) throws(CheckpointError) -> MetadataArray {
    guard depth <= GGUFLimits.nestingDepth else {
      throw .nestingTooDeep(path: path, key: key, limit: GGUFLimits.nestingDepth)
    }
    let item = "'\(key)'"
    let type = try metadataType(key: key)
    let count = try checkedCount(
      integer(UInt64.self, "the element count of \(item)"),
      minimumByteCount: type.minimumByteCount, "the element count of \(item)")
    switch type {
    case .uint8: return .uint8(try integers(UInt8.self, count: count, item))
    case .int8: return .int8(try integers(Int8.self, count: count, item))
    case .uint16: return .uint16(try integers(UInt16.self, count: count, item))
    case .int16: return .int16(try integers(Int16.self, count: count, item))
    case .uint32: return .uint32(try integers(UInt32.self, count: count, item))
    case .int32: return .int32(try integers(Int32.self, count: count, item))
    case .uint64: return .uint64(try integers(UInt64.self, count: count, item))
    case .int64: return .int64(try integers(Int64.self, count: count, item))
    case .float32:
      return .float32(try integers(UInt32.self, count: count, item).map(Float.init(bitPattern:)))
    case .float64:
      return .float64(try integers(UInt64.self, count: count, item).map(Double.init(bitPattern:)))
    case .bool:
      var values: [Bool] = []
      values.reserveCapacity(count)
      for byte in try integers(UInt8.self, count: count, item) {
        values.append(try bool(byte, key: key))
      }
      return .bool(values)
    case .string: return .string(try stringTable(count: count, key: key))
    case .array:
      var arrays: [MetadataArray] = []
      for _ in 0..<count { arrays.append(try metadataArray(key: key, depth: depth + 1)) }
      return .array(arrays)
    }
  }

  private mutating func stringTable(
    count: Int, key: String
  ) throws(CheckpointError) -> StringTable {
    var table = StringTable()
    table.reserve(count: count)
    for index in 0..<count {
      let length = try integer(UInt64.self, "the length of string \(index) of '\(key)'")
      let byteCount = try checkedCount(
        length, minimumByteCount: 1, "the length of string \(index) of '\(key)'")
      try bytes(count: byteCount, "string \(index) of '\(key)'") { table.appendPart($0) }
      table.endString()
    }
    return table
  }
}

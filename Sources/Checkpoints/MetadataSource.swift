/// The metadata of a file or checkpoint, with accessors that check types and name the file.
///
/// Each accessor comes in a form that requires the key and one, `...IfPresent`, that gives nil
/// without it. A value of the wrong type is an error in both.
package protocol MetadataSource {
  /// The file that errors name.
  var path: String { get }
  /// The values by key.
  var metadata: [String: MetadataValue] { get }
}

extension MetadataSource {
  /// The text at `key`.
  package func string(_ key: String) throws(CheckpointError) -> String {
    try required(key, "string", stringIfPresent(key))
  }

  /// The integer at `key`, of any integer type.
  /// - Throws: also `.invalidValue` if it exceeds `Int`.
  package func integer(_ key: String) throws(CheckpointError) -> Int {
    try required(key, "integer", integerIfPresent(key))
  }

  /// The number at `key`, a float32 or a float64 rounded to float32.
  package func float(_ key: String) throws(CheckpointError) -> Float {
    try required(key, "float", floatIfPresent(key))
  }

  /// The truth value at `key`.
  package func bool(_ key: String) throws(CheckpointError) -> Bool {
    try required(key, "bool", boolIfPresent(key))
  }

  /// The strings at `key`.
  package func strings(_ key: String) throws(CheckpointError) -> StringTable {
    try required(key, "array of string", stringsIfPresent(key))
  }

  /// The integers at `key`, an array of any integer type.
  /// - Throws: also `.invalidValue` if one exceeds `Int`.
  package func integers(_ key: String) throws(CheckpointError) -> [Int] {
    try required(key, "array of integers", integersIfPresent(key))
  }

  /// The numbers at `key`, an array of float32 or of float64 rounded to float32.
  package func floats(_ key: String) throws(CheckpointError) -> [Float] {
    try required(key, "array of floats", floatsIfPresent(key))
  }

  /// As `string(_:)`, or nil without the key.
  package func stringIfPresent(_ key: String) throws(CheckpointError) -> String? {
    guard let value = metadata[key] else { return nil }
    guard case .string(let string) = value else { throw wrongType(key, value, "string") }
    return string
  }

  /// As `integer(_:)`, or nil without the key.
  package func integerIfPresent(_ key: String) throws(CheckpointError) -> Int? {
    switch metadata[key] {
    case nil: return nil
    case .uint8(let value): return Int(value)
    case .int8(let value): return Int(value)
    case .uint16(let value): return Int(value)
    case .int16(let value): return Int(value)
    case .uint32(let value): return Int(value)
    case .int32(let value): return Int(value)
    case .int64(let value): return Int(value)
    case .uint64(let value): return try exactly(value, key)
    case .some(let value): throw wrongType(key, value, "integer")
    }
  }

  /// As `float(_:)`, or nil without the key.
  package func floatIfPresent(_ key: String) throws(CheckpointError) -> Float? {
    switch metadata[key] {
    case nil: return nil
    case .float32(let value): return value
    case .float64(let value): return Float(value)
    case .some(let value): throw wrongType(key, value, "float")
    }
  }

  /// As `bool(_:)`, or nil without the key.
  package func boolIfPresent(_ key: String) throws(CheckpointError) -> Bool? {
    guard let value = metadata[key] else { return nil }
    guard case .bool(let bool) = value else { throw wrongType(key, value, "bool") }
    return bool
  }

  /// As `strings(_:)`, or nil without the key.
  package func stringsIfPresent(_ key: String) throws(CheckpointError) -> StringTable? {
    guard let value = metadata[key] else { return nil }
    guard case .array(.string(let table)) = value else {
      throw wrongType(key, value, "array of string")
    }
    return table
  }

  /// As `integers(_:)`, or nil without the key.
  package func integersIfPresent(_ key: String) throws(CheckpointError) -> [Int]? {
    guard let value = metadata[key] else { return nil }
    guard case .array(let array) = value else { throw wrongType(key, value, "array of integers") }
    switch array {
    case .uint8(let values): return values.map(Int.init)
    case .int8(let values): return values.map(Int.init)
    case .uint16(let values): return values.map(Int.init)
    case .int16(let values): return values.map(Int.init)
    case .uint32(let values): return values.map(Int.init)
    case .int32(let values): return values.map(Int.init)
    case .int64(let values): return values.map(Int.init)
    case .uint64(let values):
      var integers: [Int] = []
      integers.reserveCapacity(values.count)
      for value in values { integers.append(try exactly(value, key)) }
      return integers
    case .float32, .float64, .bool, .string, .array:
      throw wrongType(key, value, "array of integers")
    }
  }

  /// As `floats(_:)`, or nil without the key.
  package func floatsIfPresent(_ key: String) throws(CheckpointError) -> [Float]? {
    switch metadata[key] {
    case nil: return nil
    case .array(.float32(let values)): return values
    case .array(.float64(let values)): return values.map { Float($0) }
    case .some(let value): throw wrongType(key, value, "array of floats")
    }
  }

  private func exactly(_ value: UInt64, _ key: String) throws(CheckpointError) -> Int {
    guard let integer = Int(exactly: value) else {
      throw .invalidValue(
        path: path, key: key, found: "\(value)", expected: "at most \(Int.max)")
    }
    return integer
  }

  private func required<Value>(
    _ key: String, _ expected: String, _ value: Value?
  ) throws(CheckpointError) -> Value {
    guard let value else { throw .missingKey(path: path, key: key, expected: expected) }
    return value
  }

  private func wrongType(
    _ key: String, _ value: MetadataValue, _ expected: String
  ) -> CheckpointError {
    .wrongType(path: path, key: key, found: value.typeName, expected: expected)
  }
}

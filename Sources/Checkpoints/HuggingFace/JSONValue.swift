internal import FoundationEssentials

/// Any JSON.
enum JSONValue: Decodable, Sendable {
  case null
  case bool(Bool)
  case integer(Int)
  case number(Double)
  case string(String)
  case array([JSONValue])
  case object([String: JSONValue])

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .bool(value)
    } else if let value = try? container.decode(Int.self) {
      self = .integer(value)
    } else if let value = try? container.decode(Double.self) {
      self = .number(value)
    } else if let value = try? container.decode(String.self) {
      self = .string(value)
    } else if let value = try? container.decode([JSONValue].self) {
      self = .array(value)
    } else {
      self = .object(try container.decode([String: JSONValue].self))
    }
  }

  /// The value at `key` of an object, if it is not null.
  subscript(key: String) -> JSONValue? {
    guard case .object(let object) = self, let value = object[key] else { return nil }
    if case .null = value { return nil }
    return value
  }

  var string: String? {
    if case .string(let value) = self { value } else { nil }
  }

  var bool: Bool? {
    if case .bool(let value) = self { value } else { nil }
  }

  var integer: Int? {
    switch self {
    case .integer(let value): value
    case .number(let value): Int(exactly: value)
    default: nil
    }
  }

  var number: Double? {
    switch self {
    case .integer(let value): Double(value)
    case .number(let value): value
    default: nil
    }
  }

  var array: [JSONValue]? {
    if case .array(let value) = self { value } else { nil }
  }
}

/// A file of JSON that belongs to a checkpoint.
struct JSONFile {
  let path: String
  let value: JSONValue

  /// Far more than the largest tokenizer has.
  private static let maximumByteCount = 256 << 20

  /// - Throws: `.system` if it cannot be read, `.invalidJSON`.
  init(_ path: String) throws(CheckpointError) {
    self.path = path
    value = try Self.decode(JSONValue.self, path: path)
  }

  /// The same file with the values of the object at `key`, if there is one, before those beside it.
  func flattened(_ key: String) -> JSONFile {
    guard case .object(let outer) = value, case .object(let inner) = value[key] else { return self }
    return JSONFile(path: path, value: .object(outer.merging(inner) { $1 }))
  }

  private init(path: String, value: JSONValue) {
    self.path = path
    self.value = value
  }

  /// What the file holds, decoded.
  static func decode<Value: Decodable>(
    _ type: Value.Type, path: String
  ) throws(CheckpointError) -> Value {
    var reader = try HeaderReader(path: path)
    guard reader.byteCount <= maximumByteCount else {
      throw .headerTooLarge(path: path, item: "the file", limit: UInt64(maximumByteCount))
    }
    var content = Data()
    let byteCount = Int(reader.byteCount)
    try reader.bytes(count: byteCount, "the file") { content.append(contentsOf: $0) }
    return try decode(type, content, path: path)
  }

  static func decode<Value: Decodable>(
    _ type: Value.Type, _ content: Data, path: String
  ) throws(CheckpointError) -> Value {
    do {
      return try JSONDecoder().decode(type, from: content)
    } catch let error as DecodingError {
      throw .invalidJSON(path: path, reason: reason(error))
    } catch {
      throw .invalidJSON(path: path, reason: "\(error)")
    }
  }

  private static func reason(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, let context):
      "'\((context.codingPath + [key]).map(\.stringValue).joined(separator: "."))' is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      "'\(context.codingPath.map(\.stringValue).joined(separator: "."))': \(context.debugDescription)"
    case .dataCorrupted(let context): context.debugDescription
    @unknown default: "\(error)"
    }
  }

  // MARK: - Values

  /// The first of `keys` that there is, an integer.
  func integerIfPresent(_ keys: String...) throws(CheckpointError) -> Int? {
    for key in keys {
      guard let found = value[key] else { continue }
      guard let integer = found.integer else {
        throw .wrongType(path: path, key: key, found: "\(found)", expected: "integer")
      }
      return integer
    }
    return nil
  }

  /// The same, which has to be there.
  func integer(_ key: String, _ others: String...) throws(CheckpointError) -> Int {
    for key in [key] + others {
      if let found = try integerIfPresent(key) { return found }
    }
    throw .missingKey(path: path, key: key, expected: "integer")
  }

  func numberIfPresent(_ key: String) throws(CheckpointError) -> Double? {
    guard let found = value[key] else { return nil }
    guard let number = found.number else {
      throw .wrongType(path: path, key: key, found: "\(found)", expected: "number")
    }
    return number
  }

  func boolIfPresent(_ key: String) throws(CheckpointError) -> Bool? {
    guard let found = value[key] else { return nil }
    guard let bool = found.bool else {
      throw .wrongType(path: path, key: key, found: "\(found)", expected: "bool")
    }
    return bool
  }

  /// The error for a value that is not supported.
  func invalid(_ key: String, _ found: String, _ expected: String) -> CheckpointError {
    .invalidValue(path: path, key: key, found: found, expected: expected)
  }
}

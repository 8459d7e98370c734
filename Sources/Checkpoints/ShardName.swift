/// The name of one file of a split checkpoint: `PREFIX-00002-of-00003.gguf`.
struct ShardName: Equatable {
  /// The path up to the dash before the number.
  let prefix: String
  /// Counted from one.
  let number: Int
  let count: Int

  init(prefix: String, number: Int, count: Int) {
    self.prefix = prefix
    self.number = number
    self.count = count
  }

  /// Takes a path apart, or gives nil if it is not the name of a shard.
  init?(path: String) {
    var rest = Array(path.utf8)[...]
    func drop(_ suffix: String) -> Bool {
      guard rest.suffix(suffix.utf8.count).elementsEqual(suffix.utf8) else { return false }
      rest.removeLast(suffix.utf8.count)
      return true
    }
    /// At least five digits, as `%05d` writes them, and few enough for `Int`.
    func dropNumber() -> Int? {
      let digits = rest.reversed().prefix { (0x30...0x39).contains($0) }.reversed()
      guard (5...10).contains(digits.count) else { return nil }
      rest.removeLast(digits.count)
      return digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
    }
    guard drop(".gguf"), let count = dropNumber(), drop("-of-"), let number = dropNumber(),
      drop("-")
    else { return nil }
    prefix = String(decoding: rest, as: UTF8.self)
    self.number = number
    self.count = count
  }

  /// The end of the path, after the prefix.
  var suffix: String { "-\(Self.padded(number))-of-\(Self.padded(count)).gguf" }

  var path: String { prefix + suffix }

  private static func padded(_ number: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(5 - digits.count, 0)) + digits
  }
}

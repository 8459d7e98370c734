/// Many strings as one run of bytes and the offset where each ends.
///
/// A tokenizer has 150,000 tokens of a few bytes; as separate strings they would take several times
/// the memory. Entries are bytes, not text: tokens of byte-level vocabularies need not be UTF-8.
package struct StringTable: Sendable, Equatable {
  private var bytes: [UInt8] = []
  private var ends: [UInt32] = []

  /// Makes an empty table.
  package init() {}

  /// Makes a table of the UTF-8 bytes of `strings`.
  package init(_ strings: some Sequence<String>) {
    for string in strings { append(string.utf8) }
  }

  /// The number of strings.
  package var count: Int { ends.count }

  /// The bytes of all strings together.
  package var byteCount: Int { bytes.count }

  /// The bytes of string `index`, which must be in `0..<count`.
  package subscript(index: Int) -> ArraySlice<UInt8> {
    bytes[(index == 0 ? 0 : Int(ends[index - 1]))..<Int(ends[index])]
  }

  /// Calls `body` with the bytes of string `index`; nothing is copied.
  package func withSpan<R>(at index: Int, _ body: (Span<UInt8>) -> R) -> R {
    body(bytes.span.extracting((index == 0 ? 0 : Int(ends[index - 1]))..<Int(ends[index])))
  }

  /// String `index` as text, or nil if it is not UTF-8.
  package func string(at index: Int) -> String? {
    String(validating: self[index], as: UTF8.self)
  }

  /// Adds a string at the end.
  package mutating func append(_ string: some Collection<UInt8>) {
    bytes.append(contentsOf: string)
    endString()
  }

  /// Makes room for `count` more strings.
  mutating func reserve(count: Int) { ends.reserveCapacity(ends.count + count) }

  /// Makes room for `count` strings of `byteCount` bytes in all.
  package mutating func reserveCapacity(count: Int, byteCount: Int) {
    ends.reserveCapacity(count)
    bytes.reserveCapacity(byteCount)
  }

  /// Adds bytes to the string that `endString` will end.
  mutating func appendPart(_ part: some Collection<UInt8>) { bytes.append(contentsOf: part) }

  /// Ends the string at the end of the bytes.
  mutating func endString() {
    // A header is limited to far less (`GGUFLimits`), so only our own callers can exceed this.
    precondition(bytes.count <= Int(UInt32.max), "a string table holds at most 4 GiB")
    ends.append(UInt32(bytes.count))
  }
}

package import Tensors

/// Writes a GGUF file, version 3: metadata and tensor infos first, then each tensor's data in the
/// declared order, in pieces of any size.
///
/// The file is `PATH.partial` until `finish` has brought it to disk; a writer that is dropped
/// before removes it.
package struct GGUFWriter: ~Copyable {
  /// A tensor to be written.
  package struct Tensor: Sendable {
    /// At most 256 bytes of UTF-8.
    package let name: String
    /// How its values are stored.
    package let type: ElementType
    /// In GGML's order: the first is a row's length.
    package let shape: [Int]

    /// Declares a tensor; `GGUFWriter` checks it.
    package init(name: String, type: ElementType, shape: [Int]) {
      self.name = name
      self.type = type
      self.shape = shape
    }
  }

  /// The size of the whole file.
  package let byteCount: UInt64
  private let file: PartialFile
  private let alignment: UInt64
  private let tensors: [Tensor]
  private let tensorByteCounts: [Int]
  /// The tensor whose data comes next, and how much of it there was.
  private var current = 0
  private var currentByteCount = 0

  /// Creates the file and writes its header.
  /// - Parameters:
  ///   - metadata: keys and values in the order they are written. `general.alignment`, a uint32,
  ///     sets the alignment of the data, else it is 32.
  ///   - tensors: the tensors in the order their data will be appended.
  /// - Throws: `CheckpointError` for a header that a reader would refuse, too little free space
  ///   (`.insufficientSpace`) or a failed system call.
  package init(
    path: String, metadata: [(key: String, value: MetadataValue)], tensors: [Tensor]
  ) throws(CheckpointError) {
    let header = try HeaderEncoder(path: path, metadata: metadata, tensors: tensors)
    try requireSpace(header.fileByteCount, for: path)
    let file = try PartialFile(path: path)
    try Self.write(header.bytes, to: file)
    self.file = file
    self.tensors = tensors
    alignment = header.alignment
    tensorByteCounts = header.tensorByteCounts
    byteCount = header.fileByteCount
  }

  /// The tensor whose data comes next, or nil when all is written.
  package var nextTensor: Tensor? { current < tensors.count ? tensors[current] : nil }

  /// Writes the next bytes of the current tensor; the tensor after it begins once it is whole.
  /// - Throws: `.wrongDataSize` if the bytes reach beyond the tensor, `.excessData` if there is no
  ///   tensor left, or `.system`.
  package mutating func append(_ bytes: UnsafeRawBufferPointer) throws(CheckpointError) {
    guard !bytes.isEmpty else { return }
    guard current < tensors.count else {
      throw .excessData(path: file.path, byteCount: bytes.count)
    }
    let expected = tensorByteCounts[current]
    guard bytes.count <= expected - currentByteCount else {
      throw .wrongDataSize(
        path: file.path, tensor: tensors[current].name, found: currentByteCount + bytes.count,
        expected: expected)
    }
    try file.write(bytes)
    currentByteCount += bytes.count
    if currentByteCount == expected {
      // `HeaderEncoder` has aligned the same size, so this cannot overflow.
      let padded = GGUFFormat.align(UInt64(expected), to: alignment) ?? UInt64(expected)
      try Self.write([UInt8](repeating: 0, count: Int(padded) - expected), to: file)
      current += 1
      currentByteCount = 0
    }
  }

  /// As `append(_:)` of a buffer.
  package mutating func append(_ bytes: [UInt8]) throws(CheckpointError) {
    let failure = bytes.withUnsafeBytes { buffer -> CheckpointError? in
      do throws(CheckpointError) {
        try append(buffer)
        return nil
      } catch {
        return error
      }
    }
    if let failure { throw failure }
  }

  /// Brings the file to disk and gives it its name, in place of a file that had it.
  /// - Throws: `.wrongDataSize` if a tensor is not whole, or `.system`; the file is removed then.
  package consuming func finish() throws(CheckpointError) {
    guard current == tensors.count else {
      throw .wrongDataSize(
        path: file.path, tensor: tensors[current].name, found: currentByteCount,
        expected: tensorByteCounts[current])
    }
    try file.finish()
  }

  private static func write(
    _ bytes: [UInt8], to file: borrowing PartialFile
  ) throws(CheckpointError) {
    var failure: CheckpointError?
    bytes.withUnsafeBytes { buffer in
      do throws(CheckpointError) { try file.write(buffer) } catch { failure = error }
    }
    if let failure { throw failure }
  }
}

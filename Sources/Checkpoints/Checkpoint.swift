internal import Glibc

/// A checkpoint: its metadata and where each tensor lies. It is GGUF, one file or split over several, a packed
/// file, or a folder of Hugging Face's, whose names and keys have become GGUF's.
///
/// Only headers are read. Everything here has been checked against the files: tensors lie within
/// them, aligned, whole and apart from each other.
package struct Checkpoint: MetadataSource, Sendable {
  /// A file of a checkpoint.
  package struct File: Sendable, Hashable {
    /// As given, or found beside the file that was opened.
    package let path: String
    /// The size of the file.
    package let byteCount: UInt64
    /// Experts of it that lie otherwise than they are computed with.
    var arrangement: Arrangement?
  }

  /// The path that was opened; of a split checkpoint, any of its files; a folder, if it is one.
  package let path: String
  /// The files, in the order of the split, then the copies of any on other drives.
  package private(set) var files: [File]
  /// The copies of each file, itself among them.
  private var copies: [[Int]]
  /// The bytes of all files.
  package let byteCount: UInt64
  /// The GGUF version of the first file; nil for a folder.
  package let version: UInt32?
  /// Whether rows of queries and keys are in the order in which Hugging Face has them, not in that which GGUF
  /// converters make of it for some architectures.
  private(set) var isAsTrained: Bool
  /// The metadata of all files; `split.no` and `general.alignment` are the first file's.
  package let metadata: [String: MetadataValue]
  /// The tensors by name.
  package private(set) var tensors: [String: TensorInfo]
  /// The names of the tensors, by file and offset.
  package private(set) var tensorOrder: [String]
  /// Where each expert lies of those stacks that lie scattered; of the others one follows the other.
  private(set) var stacks: [String: [ExpertSlice]]
  /// Where a packed file has its checksums; nil for any other checkpoint.
  package private(set) var packed: PackedLayout?

  /// Reads the headers of the checkpoint at `path`; any file of a split one finds the others.
  ///
  /// - Parameter folders: other folders with files of it, under the same names: files that are not beside the
  ///   first, and copies, from which experts are read in turn.
  /// - Throws: `CheckpointError` for a file that cannot be read or breaks the format's rules, and for a folder
  ///   without files of the checkpoint or with others of their names.
  package static func open(
    _ path: String, folders: [String] = []
  ) throws(CheckpointError) -> Checkpoint {
    let folders = CheckpointFolders(paths: folders)
    let checkpoint =
      if let folder = HuggingFaceFolder.folder(of: path) {
        try HuggingFaceFolder.open(folder, others: folders)
      } else {
        try openGGUF(path, others: folders).unpacked()
      }
    return folders.paths.isEmpty ? checkpoint : try checkpoint.copied(in: folders)
  }

  private static func openGGUF(
    _ path: String, others: CheckpointFolders
  ) throws(CheckpointError) -> Checkpoint {
    let opened = try GGUFHeader(path: path, file: 0)
    guard let split = try Split(opened), split.count > 1 else {
      return try Checkpoint(path: path, headers: [opened])
    }
    let name = try split.shardName(of: opened)
    var headers: [GGUFHeader] = []
    for index in 0..<split.count {
      let sibling = ShardName(prefix: name.prefix, number: index + 1, count: split.count)
      headers.append(
        try shard(
          at: sibling.path, index: index, count: split.count, openedFrom: path, others: others))
    }
    let tensorCount = headers.reduce(0) { $0 + $1.tensors.count }
    for header in headers {
      let found = try header.integer(GGUFFormat.splitTensorCountKey)
      guard found == tensorCount else {
        throw .splitMismatch(
          path: header.path, key: GGUFFormat.splitTensorCountKey, found: found,
          expected: tensorCount)
      }
    }
    return try Checkpoint(path: path, headers: headers)
  }

  private init(path: String, headers: [GGUFHeader]) throws(CheckpointError) {
    var tensors: [String: TensorInfo] = [:]
    var order: [String] = []
    var metadata = headers[0].metadata
    for header in headers {
      for info in header.tensors.sorted(by: { $0.offset < $1.offset }) {
        guard tensors.updateValue(info, forKey: info.name) == nil else {
          throw .duplicateTensor(path: header.path, tensor: info.name)
        }
        order.append(info.name)
      }
    }
    // Only the first file of a split carries the model's metadata, but others may repeat it.
    let own: Set = [GGUFFormat.splitIndexKey, GGUFFormat.alignmentKey]
    for header in headers.dropFirst() {
      for (key, value) in header.metadata where !own.contains(key) {
        if let first = metadata[key], first != value {
          throw .conflictingMetadata(path: header.path, key: key, firstPath: headers[0].path)
        }
        metadata[key] = value
      }
    }
    byteCount = try Self.sum(headers.map(\.fileByteCount), path: path)
    self.path = path
    stacks = [:]
    packed = nil
    files = headers.map { File(path: $0.path, byteCount: $0.fileByteCount) }
    copies = files.indices.map { [$0] }
    version = headers[0].version
    isAsTrained = false
    self.metadata = metadata
    self.tensors = tensors
    tensorOrder = order
  }

  /// A folder of Hugging Face's.
  init(
    path: String, headers: [SafetensorsHeader], tensors: HuggingFaceTensors,
    metadata: [String: MetadataValue]
  ) throws(CheckpointError) {
    byteCount = try Self.sum(headers.map(\.fileByteCount), path: path)
    self.path = path
    files = headers.enumerated().map { index, header in
      File(
        path: header.path, byteCount: header.fileByteCount,
        arrangement: tensors.arrangements[index])
    }
    copies = files.indices.map { [$0] }
    version = nil
    isAsTrained = true
    self.metadata = metadata
    self.tensors = tensors.tensors
    stacks = tensors.stacks
    packed = nil
    tensorOrder = Self.order(tensors.tensors)
  }

  /// The names of the tensors, by file and offset.
  private static func order(_ tensors: [String: TensorInfo]) -> [String] {
    tensors.values.sorted {
      ($0.file, $0.offset, $0.name) < ($1.file, $1.offset, $1.name)
    }.map(\.name)
  }

  /// The same checkpoint with the records of a packed file taken for stacks.
  func replacing(
    tensors: [String: TensorInfo], stacks: [String: [ExpertSlice]], packed: PackedLayout,
    isAsTrained: Bool
  ) -> Checkpoint {
    var result = self
    result.tensors = tensors
    result.stacks = stacks
    result.packed = packed
    result.isAsTrained = isAsTrained
    result.tensorOrder = Self.order(tensors)
    return result
  }

  /// The same checkpoint with the copies that its files have in other folders.
  private func copied(in folders: CheckpointFolders) throws(CheckpointError) -> Checkpoint {
    let headers = files.indices.map { file in
      tensors.values.lazy.filter { $0.file == file }.map(\.offset).min() ?? 0
    }
    var result = self
    for (index, found) in try folders.copies(of: files, headers: headers).enumerated() {
      result.copies[index] += result.files.count..<result.files.count + found.count
      result.files += found
    }
    return result
  }

  /// The files, copies apart.
  package var fileCount: Int { copies.count }

  /// The n-th of the copies of a file, counted round.
  func copy(_ number: Int, of file: Int) -> Int { copies[file][number % copies[file].count] }

  /// The bytes of all files, so that sums of tensors' bytes cannot overflow: sparse files may claim any size.
  private static func sum(
    _ byteCounts: [UInt64], path: String
  ) throws(CheckpointError) -> UInt64 {
    var total = 0
    for byteCount in byteCounts {
      let (sum, overflow) = total.addingReportingOverflow(Int(clamping: byteCount))
      guard !overflow else { throw .checkpointTooLarge(path: path) }
      total = sum
    }
    return UInt64(total)
  }

  /// The tensor of that name.
  /// - Throws: `CheckpointError.missingTensor`.
  package func tensor(_ name: String) throws(CheckpointError) -> TensorInfo {
    guard let info = tensors[name] else { throw .missingTensor(path: path, tensor: name) }
    return info
  }

  private static func shard(
    at path: String, index: Int, count: Int, openedFrom origin: String, others: CheckpointFolders
  ) throws(CheckpointError) -> GGUFHeader {
    var header: GGUFHeader
    do throws(CheckpointError) {
      header = try GGUFHeader(path: path, file: index)
    } catch .system(_, path, ENOENT) {
      guard let found = others.find(path) else {
        throw .missingShard(path: path, openedFrom: origin)
      }
      header = try GGUFHeader(path: found, file: index)
    }
    let split = try Split(header)
    guard split?.count == count else {
      throw .splitMismatch(
        path: path, key: GGUFFormat.splitCountKey, found: split?.count ?? 0, expected: count)
    }
    guard split?.index == index else {
      throw .splitMismatch(
        path: path, key: GGUFFormat.splitIndexKey, found: split?.index ?? 0, expected: index)
    }
    return header
  }
}

/// What a file says of the split it belongs to.
private struct Split {
  /// Counted from zero.
  let index: Int
  let count: Int

  /// Nil if the file is not part of a split.
  init?(_ header: GGUFHeader) throws(CheckpointError) {
    guard header.metadata[GGUFFormat.splitCountKey] != nil else { return nil }
    count = try header.integer(GGUFFormat.splitCountKey)
    // The key is a uint16, and a name has five digits.
    guard (1...65_535).contains(count) else {
      throw .invalidValue(
        path: header.path, key: GGUFFormat.splitCountKey, found: "\(count)",
        expected: "1 to 65535")
    }
    index = try header.integer(GGUFFormat.splitIndexKey)
    guard (0..<count).contains(index) else {
      throw .invalidValue(
        path: header.path, key: GGUFFormat.splitIndexKey, found: "\(index)",
        expected: "0 to \(count - 1)")
    }
  }

  /// The parts of the file's name, which must agree with its metadata.
  func shardName(of header: GGUFHeader) throws(CheckpointError) -> ShardName {
    let expected = ShardName(prefix: "", number: index + 1, count: count)
    guard let name = ShardName(path: header.path), name.number == expected.number,
      name.count == expected.count
    else {
      throw .invalidSplitName(path: header.path, expected: expected.suffix)
    }
    return name
  }
}

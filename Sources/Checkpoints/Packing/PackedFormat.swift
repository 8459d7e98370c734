internal import Tensors

/// The packed layout: a GGUF file in which the three matrices of each expert lie together.
///
/// It is GGUF, version 3, with the source's metadata and its tensors beside experts, and instead of three
/// stacks a layer one tensor of records, `blk.N.experts`, I8, [record, experts]. A record is an expert's gate,
/// up and down matrix, each from a multiple of 64 bytes on, in whole blocks of 4,096 bytes, so that one
/// direct read gets it. Records of a layer are in the order of `stoker.pack.order`, the most used first where
/// a trace said which these are.
///
/// The tensor `stoker.pack.checksums`, I32, comes first: how many of the sums are valid (all, in a file that is
/// whole), the CRC-32C of all bytes before the first tensor, those of the tensors that hold no expert, and
/// three for every record. A file that is being written has the same form, which is how it is gone on with.
enum PackedFormat {
  static let version: UInt32 = 1
  static let alignment = 4096
  /// What the matrices of a record begin on.
  static let matrixAlignment = 64

  static let versionKey = "stoker.pack.version"
  static let sourceKey = "stoker.pack.source"
  /// Whether queries and keys are as in a folder of Hugging Face's (`Checkpoint.isAsTrained`).
  static let asTrainedKey = "stoker.pack.as_trained"
  static let blocksKey = "stoker.pack.blocks"
  static let typesKey = "stoker.pack.types"
  static let orderKey = "stoker.pack.order"
  static let hiddenKey = "stoker.pack.hidden_size"
  static let feedForwardKey = "stoker.pack.feed_forward_size"
  static let expertCountKey = "stoker.pack.expert_count"
  static let checksumsName = "stoker.pack.checksums"
  /// Sums before those of tensors: their number, and that of the header.
  static let leadingSums = 2

  /// The numbers that `bytes`, little-endian, are.
  static func sums(_ bytes: [UInt8]) -> [UInt32] {
    stride(from: 0, to: bytes.count, by: 4).map { index in
      bytes[index..<index + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
  }

  static func recordsName(block: Int) -> String { "blk.\(block).experts" }

  static func stackNames(block: Int) -> [String] {
    ["gate", "up", "down"].map { "blk.\(block).ffn_\($0)_exps.weight" }
  }
}

/// Where the matrices of an expert lie in its record.
struct PackedRecord {
  /// The first byte of gate, up and down.
  let offsets: [Int]
  /// Whole blocks.
  let byteCount: Int

  /// - Parameter byteCounts: those of gate, up and down; nil if their sum is beyond `Int`.
  init?(byteCounts: [Int]) {
    var offsets: [Int] = []
    var end: UInt64 = 0
    for byteCount in byteCounts {
      guard let start = GGUFFormat.align(end, to: UInt64(PackedFormat.matrixAlignment)) else {
        return nil
      }
      offsets.append(Int(start))
      let (sum, overflow) = start.addingReportingOverflow(UInt64(byteCount))
      guard !overflow, sum < UInt64(Int.max) / 2 else { return nil }
      end = sum
    }
    guard let whole = GGUFFormat.align(end, to: UInt64(PackedFormat.alignment)) else { return nil }
    self.offsets = offsets
    self.byteCount = Int(whole)
  }
}

/// What is known of a packed file beside its tensors: where its checksums are.
package struct PackedLayout: Sendable {
  /// The tensor of sums.
  let checksums: TensorInfo
  /// The tensors that hold no expert, in the file's order.
  let denseTensors: [TensorInfo]
  /// The experts of each layer in the file's order, [layers][experts].
  let order: [[Int]]
  /// Bytes of the header, which one of the sums is of.
  let headerByteCount: UInt64
  /// What it was packed from, in words.
  package let source: String

  /// All sums.
  var sumCount: Int {
    PackedFormat.leadingSums + denseTensors.count + order.reduce(0) { $0 + 3 * $1.count }
  }

  /// The sum of the gate matrix of the first record of `layer`.
  func firstSum(layer: Int) -> Int {
    PackedFormat.leadingSums + denseTensors.count
      + order[..<layer].reduce(0) { $0 + 3 * $1.count }
  }
}

/// The constants of the GGUF format, version 2 and 3 (`docs/gguf.md` of ggml).
enum GGUFFormat {
  /// 'GGUF'.
  static let magic: [UInt8] = [0x47, 0x47, 0x55, 0x46]
  static let alignmentKey = "general.alignment"
  /// The alignment of a file that does not state one.
  static let defaultAlignment: UInt64 = 32
  /// Version 3 only adds big-endian files, which are refused here.
  static let readableVersions: ClosedRange<UInt32> = 2...3
  static let writtenVersion: UInt32 = 3

  static let splitIndexKey = "split.no"
  static let splitCountKey = "split.count"
  static let splitTensorCountKey = "split.tensors.count"

  /// `value` rounded up to `alignment`, a power of two, or nil beyond `UInt64`.
  static func align(_ value: UInt64, to alignment: UInt64) -> UInt64? {
    let (sum, overflow) = value.addingReportingOverflow(alignment - 1)
    return overflow ? nil : sum & ~(alignment - 1)
  }

  /// The alignment that the value of `general.alignment` states. The specification asks for a
  /// uint32 and a multiple of 8, ggml for a power of two.
  static func alignment(
    _ value: MetadataValue, path: String
  ) throws(CheckpointError) -> UInt64 {
    guard case .uint32(let number) = value else {
      throw .wrongType(path: path, key: alignmentKey, found: value.typeName, expected: "uint32")
    }
    let alignment = UInt64(number)
    guard alignment.nonzeroBitCount == 1,
      (GGUFLimits.minimumAlignment...GGUFLimits.maximumAlignment).contains(alignment)
    else {
      throw .invalidAlignment(path: path, found: alignment)
    }
    return alignment
  }
}

/// What is accepted of a header, so that a hostile file costs little.
enum GGUFLimits {
  /// Metadata and tensor infos together. The largest tokenizers take under 32 MiB.
  static let headerByteCount: UInt64 = 128 << 20
  static let keyCount: UInt64 = 65_536
  /// A model of 128 layers with its experts as separate tensors has 50,000.
  static let tensorCount: UInt64 = 262_144
  /// As the specification has it.
  static let keyByteCount = 65_535
  /// The specification says 64, some converters write more.
  static let nameByteCount = 256
  static let nestingDepth = 4
  static let maximumDimensionCount = 4
  static let minimumAlignment: UInt64 = 8
  static let maximumAlignment: UInt64 = 1 << 20
}

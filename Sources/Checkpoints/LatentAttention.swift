/// The sizes of multi-head latent attention (arXiv 2405.04434, section 2.1): keys and values of all heads are
/// made of one compressed row for each position, which is all that is kept of it.
package struct LatentAttention: Sendable, Hashable {
  /// Values that queries are compressed to; nil: they are not.
  package let queryRank: Int?
  /// Values of the compressed row.
  package let keyValueRank: Int
  /// Values of a head's query and key that are not rotated.
  package let plainDimension: Int
  /// Those that are; the keys' are shared by all heads.
  package let rotaryDimension: Int
  /// Values of a head's value.
  package let valueDimension: Int

  package init(
    queryRank: Int?, keyValueRank: Int, plainDimension: Int, rotaryDimension: Int,
    valueDimension: Int
  ) {
    self.queryRank = queryRank
    self.keyValueRank = keyValueRank
    self.plainDimension = plainDimension
    self.rotaryDimension = rotaryDimension
    self.valueDimension = valueDimension
  }

  /// Values of a head's query.
  package var queryDimension: Int { plainDimension + rotaryDimension }

  /// Values that are kept of a position: the compressed row, then the rotated part of its keys.
  package var rowSize: Int { keyValueRank + rotaryDimension }
}

extension ArchitectureKeys {
  /// The sizes as files state them that have the compressed row's matrices apart: as if there were one head
  /// of keys and values, and what they stand for.
  func latentAttention() throws(CheckpointError) -> LatentAttention {
    let (rankKey, rotaryKey) = ("attention.kv_lora_rank", "rope.dimension_count")
    let rank = try count(rankKey, maximum: 65_536)
    let queryKey = "attention.key_length_mla"
    guard let query = try countIfPresent(queryKey, maximum: 65_536) else {
      throw .missingKey(
        path: source.path, key: name(queryKey),
        expected:
          "an integer; files from before April 2025, which lack it, have the matrices of keys and "
          + "values in one: take a newer conversion")
    }
    let rotary = try count(rotaryKey, maximum: 65_536)
    guard rotary < query, rotary % 2 == 0 else {
      throw invalid(rotaryKey, "\(rotary)", "an even number below \(query)")
    }
    try expect("attention.head_count_kv", integer: 1)
    try expect("attention.key_length", integer: rank + rotary)
    try expect("attention.value_length", integer: rank)
    return LatentAttention(
      queryRank: try countIfPresent("attention.q_lora_rank", maximum: 65_536), keyValueRank: rank,
      plainDimension: query - rotary, rotaryDimension: rotary,
      valueDimension: try count("attention.value_length_mla", maximum: 65_536))
  }
}

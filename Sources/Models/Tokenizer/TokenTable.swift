internal import Checkpoints

/// A hash table from byte strings to token ids.
///
/// Open addressing over a power-of-two array of ids, at most half full; the strings stay in the
/// `StringTable` they came from, so an entry costs four bytes.
struct TokenTable: Sendable {
  private let strings: StringTable
  private var slots: [Int32]
  private static let emptySlot: Int32 = -1

  /// Creates an empty table for at most `capacity` of the strings in `strings`.
  init(strings: StringTable, capacity: Int) {
    self.strings = strings
    slots = Array(repeating: Self.emptySlot, count: powerOfTwo(atLeast: 2 * capacity + 2))
  }

  /// Adds the string of token `id`, unless an equal string is there already.
  mutating func insert(_ id: Int32) {
    let slot = strings.withSpan(at: Int(id)) { self.slot(of: $0) }
    if slots[slot] == Self.emptySlot { slots[slot] = id }
  }

  /// The id of the token that reads `bytes`.
  func id(of bytes: Span<UInt8>) -> Int32? {
    let id = slots[slot(of: bytes)]
    return id == Self.emptySlot ? nil : id
  }

  /// The slot that holds `bytes`, or the empty one where they belong.
  private func slot(of bytes: Span<UInt8>) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: hash(bytes)) & mask
    while slots[slot] != Self.emptySlot {
      let isEqual = strings.withSpan(at: Int(slots[slot])) { equal($0, bytes) }
      if isEqual { break }
      slot = (slot + 1) & mask
    }
    return slot
  }
}

/// A hash table from pairs of adjacent tokens to the merge that joins them.
struct MergeTable: Sendable {
  /// What joining a pair gives.
  struct Merge: Sendable {
    /// The place in the list of merges: the lowest one is applied first.
    var rank: UInt32
    /// The id of the joined token.
    var id: Int32
  }

  private struct Slot {
    var pair: UInt64
    var merge: Merge
  }

  private var slots: [Slot]
  /// No pair of ids looks like this one: ids are not negative.
  private static let emptyPair = UInt64.max

  /// Creates an empty table for at most `capacity` merges.
  init(capacity: Int) {
    let empty = Slot(pair: Self.emptyPair, merge: Merge(rank: .max, id: -1))
    slots = Array(repeating: empty, count: powerOfTwo(atLeast: capacity + capacity / 2 + 2))
  }

  /// Adds a merge; of two merges of one pair the first, of lower rank, stays.
  mutating func insert(_ merge: Merge, left: Int32, right: Int32) {
    let pair = Self.pair(left, right)
    let slot = self.slot(of: pair)
    if slots[slot].pair == Self.emptyPair { slots[slot] = Slot(pair: pair, merge: merge) }
  }

  /// The merge that joins `left` and `right`; one of rank `UInt32.max` says that there is none.
  func merge(_ left: Int32, _ right: Int32) -> Merge {
    slots[slot(of: Self.pair(left, right))].merge
  }

  private static func pair(_ left: Int32, _ right: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
  }

  private func slot(of pair: UInt64) -> Int {
    let mask = slots.count - 1
    var slot = Int(truncatingIfNeeded: mixed(pair)) & mask
    while slots[slot].pair != Self.emptyPair && slots[slot].pair != pair {
      slot = (slot + 1) & mask
    }
    return slot
  }
}

private func powerOfTwo(atLeast count: Int) -> Int {
  var size = 16
  while size < count { size *= 2 }
  return size
}

/// FNV-1a with a final mix, as its low bits alone are weak.
private func hash(_ bytes: Span<UInt8>) -> UInt64 {
  var value: UInt64 = 0xcbf2_9ce4_8422_2325
  for index in bytes.indices {
    value = (value ^ UInt64(bytes[index])) &* 0x100_0000_01b3
  }
  return mixed(value)
}

/// The finalizer of MurmurHash3: every input bit reaches every output bit.
private func mixed(_ value: UInt64) -> UInt64 {
  var value = value
  value = (value ^ (value >> 33)) &* 0xff51_afd7_ed55_8ccd
  value = (value ^ (value >> 33)) &* 0xc4ce_b9fe_1a85_ec53
  return value ^ (value >> 33)
}

private func equal(_ left: Span<UInt8>, _ right: Span<UInt8>) -> Bool {
  guard left.count == right.count else { return false }
  for index in left.indices where left[index] != right[index] { return false }
  return true
}

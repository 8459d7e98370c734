/// The merge loop of byte-pair encoding, with its scratch space.
///
/// The pair of lowest rank is joined, the leftmost of equals first, until no adjacent pair has a
/// merge (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units").
struct PieceMerger {
  /// Up to this many bytes a piece is scanned for its best pair; a longer one keeps its pairs in a
  /// heap. Both give the same tokens; the scan is faster for words, the heap bounds the rest to
  /// O(n log n).
  var scanLimit = 24

  private let byteTokenIDs: [Int32]
  /// The tokens that a character of several bytes may begin as; nil: text begins as bytes.
  private let characters: TokenTable?
  private let merges: MergeTable
  private var ids: [Int32] = []
  private var candidates: [MergeTable.Merge] = []
  private var next: [Int32] = []
  private var previous: [Int32] = []
  /// Rank in the high half, place of the left symbol in the low half: the smallest is due.
  private var heap = MinimumHeap()

  private static let noMerge = MergeTable.Merge(rank: .max, id: -1)

  /// Creates a merger for a vocabulary: the id of each byte's token, those of characters, and the merges.
  init(byteTokenIDs: [Int32], characters: TokenTable? = nil, merges: MergeTable) {
    self.byteTokenIDs = byteTokenIDs
    self.characters = characters
    self.merges = merges
  }

  /// Appends the tokens of `piece` to `output`.
  mutating func encode(_ piece: Span<UInt8>, into output: inout [Int32]) {
    ids.removeAll(keepingCapacity: true)
    appendSymbols(of: piece)
    if ids.count > scanLimit && ids.count <= Int(Int32.max) {
      mergeByHeap(into: &output)
    } else {
      mergeByScan()
      output.append(contentsOf: ids)
    }
  }

  /// Appends what the merges of `piece` begin with.
  private mutating func appendSymbols(of piece: Span<UInt8>) {
    guard let characters else {
      for index in piece.indices { ids.append(byteTokenIDs[Int(piece[index])]) }
      return
    }
    var start = 0
    while start < piece.count {
      let end = start + TextSymbol(in: piece, at: start).byteCount
      if end > start + 1, let id = characters.id(of: piece.extracting(start..<end)) {
        ids.append(id)
      } else {
        for index in start..<end { ids.append(byteTokenIDs[Int(piece[index])]) }
      }
      start = end
    }
  }

  private mutating func mergeByScan() {
    candidates.removeAll(keepingCapacity: true)
    for index in ids.indices { candidates.append(candidate(at: index)) }
    while true {
      var best = 0
      for index in candidates.indices where candidates[index].rank < candidates[best].rank {
        best = index
      }
      guard best < ids.count, candidates[best].rank != .max else { return }
      ids[best] = candidates[best].id
      ids.remove(at: best + 1)
      candidates.remove(at: best + 1)
      candidates[best] = candidate(at: best)
      if best > 0 { candidates[best - 1] = candidate(at: best - 1) }
    }
  }

  /// The merge of the symbols at `index` and after it.
  private func candidate(at index: Int) -> MergeTable.Merge {
    index + 1 < ids.count ? merges.merge(ids[index], ids[index + 1]) : Self.noMerge
  }

  /// Works on a linked list of symbols; a joined symbol takes the place of its left part, and the
  /// right part's id becomes -1, which no merge knows. A heap entry whose pair has changed since is
  /// recognized by its rank.
  private mutating func mergeByHeap(into output: inout [Int32]) {
    let count = Int32(ids.count)
    next.removeAll(keepingCapacity: true)
    previous.removeAll(keepingCapacity: true)
    next.append(contentsOf: 1...count)
    previous.append(contentsOf: -1..<(count - 1))
    heap.removeAll()
    for place in 0..<count - 1 { enqueue(place) }
    while let entry = heap.popMinimum() {
      let left = Int(entry & 0xffff_ffff)
      guard ids[left] >= 0, next[left] < count else { continue }
      let right = Int(next[left])
      let merge = merges.merge(ids[left], ids[right])
      guard UInt64(merge.rank) == entry >> 32 else { continue }
      ids[left] = merge.id
      ids[right] = -1
      next[left] = next[right]
      if next[left] < count {
        previous[Int(next[left])] = Int32(left)
        enqueue(Int32(left))
      }
      if previous[left] >= 0 { enqueue(previous[left]) }
    }
    for id in ids where id >= 0 { output.append(id) }
  }

  private mutating func enqueue(_ place: Int32) {
    let merge = merges.merge(ids[Int(place)], ids[Int(next[Int(place)])])
    guard merge.rank != .max else { return }
    heap.push(UInt64(merge.rank) << 32 | UInt64(place))
  }
}

/// A binary heap of integers, smallest first.
private struct MinimumHeap {
  private var entries: [UInt64] = []

  mutating func removeAll() { entries.removeAll(keepingCapacity: true) }

  mutating func push(_ entry: UInt64) {
    var child = entries.count
    entries.append(entry)
    while child > 0 {
      let parent = (child - 1) / 2
      guard entries[parent] > entry else { break }
      entries[child] = entries[parent]
      child = parent
    }
    entries[child] = entry
  }

  mutating func popMinimum() -> UInt64? {
    guard let minimum = entries.first else { return nil }
    let entry = entries.removeLast()
    guard !entries.isEmpty else { return minimum }
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < entries.count else { break }
      if child + 1 < entries.count, entries[child + 1] < entries[child] { child += 1 }
      guard entries[child] < entry else { break }
      entries[parent] = entries[child]
      parent = child
    }
    entries[parent] = entry
    return minimum
  }
}

internal import Checkpoints
internal import DirectIO
package import Residency
internal import Routing

/// Beginning with what earlier runs have used: free slots are filled while the disk has nothing else to do,
/// by the experts first that the last run has ended with, then by the most used. A prompt is left to fill them
/// with what it reads anyway.
extension ExpertRuntime {
  /// Begins with `history`, of a model of the same shape, before anything is executed.
  package func begin(with history: RoutingHistory) {
    guard !holdsEveryExpert, history.tokens >= 1 else { return }
    residents.begin(with: history)
    likely = history.byLikelihood
  }

  /// Fills free slots with the experts that the history has as the likeliest, for a host that has nothing
  /// else to do.
  ///
  /// - Parameter isCancelled: asked before every read.
  package func fillFreeSlots(isCancelled: () -> Bool) {
    while !isCancelled(), fillIdle() { awaitReads() }
  }

  /// Begins a read of the likeliest expert that is not resident, if the disk has nothing to do and there is
  /// a free slot.
  /// - Returns: whether there was anything to read.
  @discardableResult
  func fillIdle() -> Bool {
    guard !likely.isEmpty, flightCount == 0 else { return false }
    while let expert = likely.last {
      if !residents.table.contains(expert) {
        guard residents.admit(expert, pass: events.event.pass) else {
          // There may be room for experts of another size.
          likely.removeLast()
          continue
        }
        claim(residents.slot(of: expert), for: expert)
        statistics.filled.count += 1
      }
      let slot = residents.slot(of: expert)
      // One whose read has failed is read again when it is needed.
      let id = ExpertID(layer: Int(expert) / expertCount, expert: Int(expert) % expertCount)
      guard contents[slot].expert == expert,
        let read = geometry.reads(layer: id.layer).first(where: {
          $0.first.rawValue >= filledMatrices && contents[slot].arrived & $0.set == 0
        })
      else {
        likely.removeLast()
        filledMatrices = 0
        continue
      }
      filledMatrices = read.first.rawValue + read.matrices.count
      statistics.filled.byteCount += enqueue(read, of: id, into: slot, priority: .prefetch)
      submitReads()
      return true
    }
    return false
  }

  /// The expert in `slot` is needed: what is queued of it by history is waited for from now on.
  /// - Returns: the bytes of those reads that had not begun.
  func promoteFill(_ slot: Int) -> Int {
    guard contents[slot].ahead == nil, contents[slot].underWay != 0 else { return 0 }
    let byteCount = byteCount(of: contents[slot].expert, promoteReads(into: slot))
    statistics.filled.byteCount -= byteCount
    return byteCount
  }
}

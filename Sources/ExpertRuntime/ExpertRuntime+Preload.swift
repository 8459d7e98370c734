internal import DirectIO
internal import Residency
internal import Routing

extension ExpertRuntime {
  /// Reads every expert into its slot, in file order. Only for a runtime that holds every expert:
  /// then no later call reads anything.
  ///
  /// - Parameter progress: called with the experts asked for so far and their number in all.
  /// - Throws: `RuntimeError.read` for the first expert that could not be read.
  package func preload(progress: (Int, Int) -> Void) throws(RuntimeError) {
    precondition(holdsEveryExpert, "preloading evicts what it has read")
    residents.fill()
    for layer in 0..<layerCount {
      for expert in 0..<expertCount {
        let slot = residents.slot(of: Int32(layer * expertCount + expert))
        tasks[expert] = ExpertTask(expert: expert, slot: slot)
        statistics.preloadedByteCount += demand(
          ExpertID(layer: layer, expert: expert), into: slot, for: expert)
      }
      engine.submit()
      awaitReads()
      for expert in 0..<expertCount { contents[tasks[expert].slot].task = -1 }
      if let failure = firstFailure {
        firstFailure = nil
        throw readError(failure, layer: layer)
      }
      progress((layer + 1) * expertCount, layerCount * expertCount)
    }
  }
}

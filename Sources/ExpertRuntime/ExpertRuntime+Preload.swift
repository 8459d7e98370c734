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
    for layer in 0..<layerCount {
      var held: [Int] = []
      for expert in 0..<expertCount {
        let id = ExpertID(layer: layer, expert: expert)
        switch cache.access(id) {
        case .hit(let slot):
          held.append(slot)
        case .read(let slot, _):
          tasks[expert] = ExpertTask(slot: slot)
          flights[slot] = Flight(task: expert)
          statistics.preloadedByteCount += enqueueReads(of: id, into: slot)
          held.append(slot)
        case .pending, .full:
          preconditionFailure("a slot is missing or in flight while preloading")
        }
      }
      engine.submit()
      while flightCount > 0 {
        engine.wait()
        harvest()
      }
      let failure = firstFailure
      firstFailure = nil
      for slot in held where !flights[slot].failed { cache.release(slot: slot) }
      if let failure {
        throw readError(failure, layer: layer, expert: flights[failure.slot].task)
      }
      progress((layer + 1) * expertCount, layerCount * expertCount)
    }
  }
}

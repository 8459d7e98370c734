internal import Checkpoints
internal import DirectIO
internal import Residency
package import Routing
internal import Tensors

/// A touched expert of the layer being executed.
struct ExpertTask {
  var slot = -1
  /// A bit for each matrix whose bytes are in the slot.
  var arrived: UInt8 = 0
  /// How many of the three matrices have been multiplied.
  var multiplied = 0
  /// Whether it was read for this layer.
  var wasRead = false

  static let allArrived: UInt8 = 0b111

  func isReady(for matrix: ExpertMatrix) -> Bool {
    slot >= 0 && multiplied == matrix.rawValue && arrived & (1 << UInt8(matrix.rawValue)) != 0
  }
}

/// A slot being filled: the touched expert it is for and the reads still under way.
struct Flight {
  var task: Int
  var remaining = ExpertMatrix.allCases.count
  var failed = false
}

/// A read that failed.
struct ReadFailure {
  let slot: Int
  let matrix: ExpertMatrix
  let error: IOError
}

extension ExpertRuntime {
  /// Computes the layer for the hidden states in `inputRows`; see `execute`.
  package func executeInput(
    layer: Int, routing: borrowing Routing, into output: UnsafeMutablePointer<Float>, phase: Phase
  ) throws(RuntimeError) {
    let tokens = routing.tokenCount
    buffers.group(routing)
    // A token alone is no stream, whatever the phase.
    streaming = phase == .prefill && tokens > 1
    if streaming { orderStream(layer: layer) }
    var next = 0
    var finished = 0
    // Reads first: the disk works while the inputs are quantised.
    next = accessExperts(layer: layer, from: next, phase: phase)
    buffers.input.quantize(0..<tokens, kernels: kernels, pool: pool)
    while finished < buffers.touchedCount, firstFailure == nil {
      var progressed = false
      for matrix in ExpertMatrix.allCases {
        // The disk is seen to before every piece of work, so that it is never idle for longer.
        harvest()
        // After a failure its slot is free, but the expert it was for is still to be named and let
        // go.
        if next < buffers.touchedCount, firstFailure == nil {
          let before = next
          next = accessExperts(layer: layer, from: next, phase: phase)
          if next > before { progressed = true }
        }
        if multiply(matrix, layer: layer, among: next) { progressed = true }
      }
      finished += releaseFinished(among: next)
      if !progressed, finished < buffers.touchedCount { waitForDisk() }
    }
    if let failure = firstFailure { throw recover(from: failure, layer: layer, among: next) }
    sum(routing, into: output)
  }

  // MARK: - Access

  /// Accesses touched experts from the `first`-th on until one finds no slot or, in a stream, the
  /// window is full; returns how many have been accessed in all. Their reads are submitted together.
  private func accessExperts(layer: Int, from first: Int, phase: Phase) -> Int {
    var accesses = RuntimeStatistics.Accesses()
    var index = first
    loop: while index < buffers.touchedCount {
      let id = ExpertID(layer: layer, expert: buffers.expert(index))
      if streaming, !cache.isResident(id), !mayStream(layer: layer) { break }
      switch cache.access(id, as: admission(ofTask: index)) {
      case .hit(let slot):
        tasks[index] = ExpertTask(slot: slot, arrived: ExpertTask.allArrived)
        accesses.hits += 1
      case .read(let slot, let evicted):
        tasks[index] = ExpertTask(slot: slot, wasRead: true)
        flights[slot] = Flight(task: index)
        heldReadCount += 1
        accesses.demandedByteCount += enqueueReads(of: id, into: slot)
        accesses.misses += 1
        if evicted != nil { statistics.evictions += 1 }
      case .pending(let slot):
        preconditionFailure("slot \(slot) is in flight between layers")
      case .full:
        break loop
      }
      index += 1
    }
    if accesses.misses > 0 { engine.submit() }
    switch phase {
    case .prefill: statistics.prefill.add(accesses)
    case .decode: statistics.decode.add(accesses)
    }
    return index
  }

  /// Queues the reads of an expert's matrices in the order they are computed; returns their bytes.
  func enqueueReads(of expert: ExpertID, into slot: Int) -> Int {
    if flightCount == 0 { busySince = monotonicNanoseconds() }
    flightCount += 1
    var byteCount = 0
    for matrix in ExpertMatrix.allCases {
      let place = geometry.placement(matrix, layer: expert.layer, expert: expert.expert)
      engine.enqueue(
        ReadRequest(
          file: place.file, span: place.span,
          destination: memory(ofSlot: slot) + place.slotOffset,
          tag: UInt64(slot) << 2 | UInt64(matrix.rawValue), priority: .demand))
      byteCount += place.span.byteCount
    }
    return byteCount
  }

  // MARK: - Completion

  /// Takes note of the reads that have finished, without waiting for any.
  func harvest() {
    guard flightCount > 0 else { return }
    engine.poll { completion in
      let slot = Int(completion.tag >> 2)
      let matrix = ExpertMatrix(rawValue: Int(completion.tag & 3))!
      flights[slot].remaining -= 1
      if let error = completion.error {
        if firstFailure == nil {
          firstFailure = ReadFailure(slot: slot, matrix: matrix, error: error)
        }
        flights[slot].failed = true
      } else {
        tasks[flights[slot].task].arrived |= 1 << UInt8(matrix.rawValue)
      }
      guard flights[slot].remaining == 0 else { return }
      if flights[slot].failed { cache.failRead(slot: slot) } else { cache.finishRead(slot: slot) }
      flightCount -= 1
      if flightCount == 0 { statistics.diskBusyNanoseconds += monotonicNanoseconds() - busySince }
    }
  }

  func waitForDisk() {
    let start = monotonicNanoseconds()
    engine.wait()
    statistics.diskWaitNanoseconds += monotonicNanoseconds() - start
  }

  // MARK: - Computation

  /// Multiplies `matrix` of the experts among the first `accessed` that are ready for it: all of
  /// them, or of a stream a wave, so that the next reads are not kept waiting. Those accessed last
  /// come first: in a stream they are the ones whose slots the reads wait for.
  private func multiply(_ matrix: ExpertMatrix, layer: Int, among accessed: Int) -> Bool {
    let most = streaming ? wave : accessed
    var first = accessed
    var count = 0
    while first > 0, count < most {
      first -= 1
      guard tasks[first].isReady(for: matrix) else { continue }
      batch.append(product(matrix, layer: layer, index: first))
      count += 1
    }
    guard count > 0 else { return false }
    batch.run()
    for index in first..<accessed where tasks[index].isReady(for: matrix) {
      tasks[index].multiplied += 1
      if matrix == .up {
        buffers.inner.quantize(
          buffers.places(of: buffers.expert(index)), kernels: kernels, pool: pool)
      }
    }
    return true
  }

  private func product(_ matrix: ExpertMatrix, layer: Int, index: Int) -> Product {
    let expert = buffers.expert(index)
    let places = buffers.places(of: expert)
    let first = places.lowerBound
    let offset = geometry.placement(matrix, layer: layer, expert: expert).matrixOffset
    let weights = layout.matrix(
      matrix, layer: layer, bytes: UnsafeRawPointer(memory(ofSlot: tasks[index].slot) + offset))
    switch matrix {
    case .gate:
      return Product(
        weights, activations: buffers.inputs(from: first, for: weights.type),
        outputs: UnsafePointer(buffers.gateRows + first), tokenCount: places.count)
    case .up:
      return Product(
        weights, activations: buffers.inputs(from: first, for: weights.type),
        outputs: UnsafePointer(buffers.innerRows + first),
        gates: UnsafePointer(buffers.gateRows + first), tokenCount: places.count)
    case .down:
      return Product(
        weights, activations: buffers.inner.rows(for: weights.type) + first,
        outputs: UnsafePointer(buffers.outputRows + first), tokenCount: places.count)
    }
  }

  /// Lets go of the slots of finished experts; returns how many there were.
  private func releaseFinished(among accessed: Int) -> Int {
    var count = 0
    for index in 0..<accessed
    where tasks[index].multiplied == ExpertMatrix.allCases.count && tasks[index].slot >= 0 {
      cache.release(slot: tasks[index].slot)
      tasks[index].slot = -1
      if tasks[index].wasRead { heldReadCount -= 1 }
      count += 1
    }
    return count
  }

  // MARK: - Failure

  /// Waits for the reads still in flight, lets go of every slot, and makes the error.
  private func recover(
    from failure: ReadFailure, layer: Int, among accessed: Int
  ) -> RuntimeError {
    let expert = buffers.expert(flights[failure.slot].task)
    while flightCount > 0 {
      waitForDisk()
      harvest()
    }
    for index in 0..<accessed where tasks[index].slot >= 0 {
      // A failed read has already emptied its slot and dropped the hold on it.
      if !flights[tasks[index].slot].failed { cache.release(slot: tasks[index].slot) }
      tasks[index].slot = -1
    }
    heldReadCount = 0
    firstFailure = nil
    return readError(failure, layer: layer, expert: expert)
  }

  /// The error for a read of one of `expert`'s matrices that failed.
  func readError(_ failure: ReadFailure, layer: Int, expert: Int) -> RuntimeError {
    let file = layout.slice(failure.matrix, layer: layer, expert: expert).file
    return .read(
      expert: "\(ExpertID(layer: layer, expert: expert))", matrix: "\(failure.matrix)",
      file: files[file].path, reason: "\(failure.error)")
  }
}

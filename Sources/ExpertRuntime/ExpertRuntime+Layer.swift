internal import Checkpoints
internal import DirectIO
internal import Residency
package import Routing
internal import Tensors

/// An expert of the layer being executed.
struct ExpertTask {
  var expert = -1
  var slot = -1
  /// How many of the three matrices have been multiplied.
  var multiplied = 0
  var isFinished = false
}

/// What is in a slot, and what is being done with it.
struct SlotContent {
  static let allMatrices: UInt8 = 0b111

  /// The expert whose bytes are there or on their way, numbered over the model, or -1.
  var expert: Int32 = -1
  /// A bit for each matrix whose bytes are there.
  var arrived: UInt8 = 0
  /// A bit for each matrix whose read is queued or under way.
  var underWay: UInt8 = 0
  /// The task that computes from it, or -1.
  var task = -1
  /// What it was read ahead for, until that is settled.
  var ahead: ReadAhead?

  /// Whether all of `expert` is there.
  func holds(_ expert: Int32) -> Bool { self.expert == expert && arrived == Self.allMatrices }
}

/// A read that failed.
struct ReadFailure {
  let expert: Int
  let matrix: ExpertMatrix
  let reason: String
}

extension ExpertRuntime {
  /// Computes the layer for the hidden states in `inputRows`; see `execute`.
  ///
  /// - Parameter whileReading: called when the layer's reads have been queued: what comes of it is read
  ///   after them.
  package func executeInput(
    layer: Int, routing: borrowing Routing, into output: UnsafeMutablePointer<Float>, phase: Phase,
    whileReading: () -> Void = {}
  ) throws(RuntimeError) {
    layerStart = monotonicNanoseconds()
    stallStart = 0
    waitedBefore = statistics.diskWaitNanoseconds
    // After the layer the threads are a host's, unless the whole token is computed here.
    let expectedLoops = pool.expectsLoops
    pool.expectsLoops = true
    defer {
      pool.expectsLoops = expectedLoops
      statistics.executionNanoseconds += monotonicNanoseconds() - layerStart
    }
    buffers.group(routing)
    let missedByteCount = prepare(layer: layer, routing: routing, phase: phase)
    var finished = 0
    // Reads first: the disk works while the inputs are quantised.
    startReads(layer: layer, phase: phase)
    whileReading()
    buffers.input.quantize(0..<routing.tokenCount, kernels: kernels, pool: pool)
    while finished < taskCount, firstFailure == nil {
      var progressed = false
      for matrix in ExpertMatrix.allCases {
        // The disk is seen to before every piece of work, so that it is never idle for longer.
        harvest()
        // After a failure the expert it was for is still to be named.
        if firstFailure == nil, startReads(layer: layer, phase: phase) { progressed = true }
        if multiply(matrix, layer: layer) { progressed = true }
      }
      finished += finishTasks()
      if !progressed, finished < taskCount { waitForDisk() }
    }
    if let failure = firstFailure { throw recover(from: failure, layer: layer) }
    judgePrefetch(layer: layer, missedByteCount: missedByteCount)
    sum(routing, into: output)
    if !events.event.isPrompt { fillIdle() }
  }

  // MARK: - Tasks

  /// Decides what is resident, and makes a task of every expert: those whose bytes are there, then
  /// those on their way, then those that are to be read.
  /// - Returns: the bytes of the experts that were not resident.
  private func prepare(layer: Int, routing: borrowing Routing, phase: Phase) -> Int {
    events.form(layer: layer, phase: phase, routing: routing)
    settlePredictions()
    history.note(events.event)
    recentRouting?.note(events.event)
    let served = residents.serve(events.event, missed: &missed)
    streaming = served.isStream
    let base = layer * expertCount
    taskCount = 0
    var accesses = RuntimeStatistics.Accesses()
    for expert in events.event.experts where !missed.contains(expert) {
      let slot = residents.slot(of: expert)
      guard contents[slot].holds(expert) else { continue }
      append(expert - Int32(base), slot: slot)
    }
    accesses.hits = taskCount
    for expert in missed where contents[residents.slot(of: expert)].holds(expert) {
      let slot = residents.slot(of: expert)
      settleInTime(slot)
      append(expert - Int32(base), slot: slot)
    }
    for index in 0..<taskCount { contents[tasks[index].slot].task = index }
    startedCount = taskCount
    for expert in missed where isOnItsWay(expert) {
      append(expert - Int32(base), slot: residents.slot(of: expert))
    }
    if accesses.hits < served.hits {
      // Residents that have not been read whole yet, or whose read failed.
      for expert in events.event.experts
      where !missed.contains(expert) && !contents[residents.slot(of: expert)].holds(expert) {
        append(expert - Int32(base), slot: residents.slot(of: expert))
      }
    }
    for expert in missed
    where !isOnItsWay(expert) && !contents[residents.slot(of: expert)].holds(expert) {
      append(expert - Int32(base), slot: residents.slot(of: expert))
    }
    accesses.misses = taskCount - accesses.hits
    accesses.missedByteCount = accesses.misses * layout.shape(layer: layer).byteCount
    statistics.evictions += served.evictions
    statistics.add(accesses, phase: phase)
    return accesses.missedByteCount
  }

  /// Whether `expert` is in a slot of its own, some of its bytes still under way.
  private func isOnItsWay(_ expert: Int32) -> Bool {
    let content = contents[residents.slot(of: expert)]
    return content.expert == expert && content.underWay != 0
  }

  private func append(_ expert: Int32, slot: Int) {
    tasks[taskCount] = ExpertTask(expert: Int(expert), slot: slot)
    taskCount += 1
  }

  /// Queues reads until one finds its slot in use or, in a stream, a wave is under way: more reads at a
  /// time would only make the first of them later. They are submitted together.
  /// - Returns: whether any was queued.
  @discardableResult
  private func startReads(layer: Int, phase: Phase) -> Bool {
    let first = startedCount
    var accesses = RuntimeStatistics.Accesses()
    while startedCount < taskCount, !(streaming && flightCount >= slotPlan.wave) {
      let task = tasks[startedCount]
      guard contents[task.slot].task < 0 else { break }
      accesses.demandedByteCount += demand(
        ExpertID(layer: layer, expert: task.expert), into: task.slot, for: startedCount)
      startedCount += 1
    }
    guard startedCount > first else { return false }
    submitReads()
    statistics.add(accesses, phase: phase)
    return true
  }

  // MARK: - Computation

  /// Multiplies `matrix` of the experts that are ready for it: all of them, or of a stream a wave, so
  /// that the next reads are not kept waiting. Those read last come first: in a stream they are the ones
  /// whose slots the reads wait for.
  private func multiply(_ matrix: ExpertMatrix, layer: Int) -> Bool {
    let most = streaming ? slotPlan.wave : startedCount
    var first = startedCount
    var count = 0
    while first > 0, count < most {
      first -= 1
      guard isReady(first, for: matrix) else { continue }
      batch.append(product(matrix, layer: layer, task: tasks[first]))
      count += 1
    }
    guard count > 0 else { return false }
    batch.run()
    for index in first..<startedCount where isReady(index, for: matrix) {
      tasks[index].multiplied += 1
      if matrix == .up {
        buffers.inner.quantize(
          buffers.places(of: tasks[index].expert), kernels: kernels, pool: pool)
      }
    }
    return true
  }

  private func isReady(_ index: Int, for matrix: ExpertMatrix) -> Bool {
    tasks[index].multiplied == matrix.rawValue
      && contents[tasks[index].slot].arrived & matrix.bit != 0
  }

  private func product(_ matrix: ExpertMatrix, layer: Int, task: ExpertTask) -> Product {
    let expert = task.expert
    let places = buffers.places(of: expert)
    let first = places.lowerBound
    let offset = geometry.offset(of: matrix, layer: layer, expert: expert)
    var weights = layout.matrix(
      matrix, layer: layer, bytes: UnsafeRawPointer(memory(ofSlot: task.slot) + offset))
    if weights.type.hasScalesApart { weights.scales = scales[layer].scales(matrix, expert) }
    let bias = biases.isEmpty ? nil : biases[layer].row(matrix, expert: expert, count: weights.rows)
    switch matrix {
    case .gate:
      return Product(
        weights, activations: buffers.inputs(from: first, for: weights.type),
        outputs: UnsafePointer(buffers.gateRows + first), bias: bias, tokenCount: places.count)
    case .up:
      return Product(
        weights, activations: buffers.inputs(from: first, for: weights.type),
        outputs: UnsafePointer(buffers.innerRows + first), bias: bias,
        gates: UnsafePointer(buffers.gateRows + first), activation: activation,
        tokenCount: places.count)
    case .down:
      return Product(
        weights, activations: buffers.inner.rows(for: weights.type) + first,
        outputs: UnsafePointer(buffers.outputRows + first), bias: bias, tokenCount: places.count)
    }
  }

  /// Lets go of the slots of finished experts; returns how many there were.
  private func finishTasks() -> Int {
    var count = 0
    for index in 0..<startedCount
    where tasks[index].multiplied == ExpertMatrix.allCases.count && !tasks[index].isFinished {
      tasks[index].isFinished = true
      contents[tasks[index].slot].task = -1
      count += 1
    }
    return count
  }

  // MARK: - Failure

  /// Waits for the reads still in flight, lets go of every slot, and makes the error. A resident whose
  /// bytes did not come is read when it is needed next.
  private func recover(from failure: ReadFailure, layer: Int) -> RuntimeError {
    while flightCount > 0 {
      waitForDisk()
      harvest()
    }
    for index in 0..<startedCount { contents[tasks[index].slot].task = -1 }
    firstFailure = nil
    return readError(failure, layer: layer)
  }

  /// The error for a read of an expert of `layer` that failed.
  func readError(_ failure: ReadFailure, layer: Int) -> RuntimeError {
    let file = layout.slice(failure.matrix, layer: layer, expert: failure.expert).file
    return .read(
      expert: "\(ExpertID(layer: layer, expert: failure.expert))", matrix: "\(failure.matrix)",
      file: files[file].path, reason: failure.reason)
  }
}

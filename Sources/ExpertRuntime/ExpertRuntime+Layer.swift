internal import Checkpoints
internal import DirectIO
internal import Residency
package import Routing
internal import Tensors

/// An expert of the layer being executed.
struct ExpertTask {
  var expert = -1
  var slot = -1
  /// A bit for each matrix whose bytes are in the slot.
  var arrived: UInt8 = 0
  /// How many of the three matrices have been multiplied.
  var multiplied = 0
  var isFinished = false

  static let allArrived: UInt8 = 0b111

  func isReady(for matrix: ExpertMatrix) -> Bool {
    multiplied == matrix.rawValue && arrived & (1 << UInt8(matrix.rawValue)) != 0
  }
}

/// What is in a slot, and what is being done with it.
struct SlotContent {
  /// The expert whose bytes are all there, numbered over the model, or -1.
  var expert: Int32 = -1
  /// The task that reads into it or computes from it, or -1.
  var task = -1
  /// Reads into it that are still under way.
  var remainingReads = 0
  var failed = false
}

/// A read that failed.
struct ReadFailure {
  let expert: Int
  let matrix: ExpertMatrix
  let error: IOError
}

extension ExpertRuntime {
  /// Computes the layer for the hidden states in `inputRows`; see `execute`.
  package func executeInput(
    layer: Int, routing: borrowing Routing, into output: UnsafeMutablePointer<Float>, phase: Phase
  ) throws(RuntimeError) {
    let start = monotonicNanoseconds()
    defer { statistics.executionNanoseconds += monotonicNanoseconds() - start }
    buffers.group(routing)
    prepare(layer: layer, routing: routing, phase: phase)
    var finished = 0
    // Reads first: the disk works while the inputs are quantised.
    startReads(layer: layer, phase: phase)
    buffers.input.quantize(0..<routing.tokenCount, kernels: kernels, pool: pool)
    while finished < taskCount, firstFailure == nil {
      var progressed = false
      for matrix in ExpertMatrix.allCases {
        // The disk is seen to before every piece of work, so that it is never idle for longer.
        harvest(layer: layer)
        // After a failure the expert it was for is still to be named.
        if firstFailure == nil, startReads(layer: layer, phase: phase) { progressed = true }
        if multiply(matrix, layer: layer) { progressed = true }
      }
      finished += finishTasks()
      if !progressed, finished < taskCount { waitForDisk() }
    }
    if let failure = firstFailure { throw recover(from: failure, layer: layer) }
    sum(routing, into: output)
  }

  // MARK: - Tasks

  /// Decides what is resident, and makes a task of every expert.
  private func prepare(layer: Int, routing: borrowing Routing, phase: Phase) {
    events.form(layer: layer, phase: phase, routing: routing)
    let served = residents.serve(events.event, missed: &missed)
    streaming = served.isStream
    let base = layer * expertCount
    taskCount = 0
    for expert in events.event.experts where !missed.contains(expert) {
      let slot = residents.slot(of: expert)
      guard contents[slot].expert == expert else { continue }
      contents[slot].task = taskCount
      append(
        ExpertTask(expert: Int(expert) - base, slot: slot, arrived: ExpertTask.allArrived))
    }
    startedCount = taskCount
    var accesses = RuntimeStatistics.Accesses()
    accesses.hits = taskCount
    if taskCount < served.hits {
      // Residents whose read failed.
      for expert in events.event.experts
      where !missed.contains(expert) && contents[residents.slot(of: expert)].expert != expert {
        append(ExpertTask(expert: Int(expert) - base, slot: residents.slot(of: expert)))
      }
    }
    for expert in missed {
      append(ExpertTask(expert: Int(expert) - base, slot: residents.slot(of: expert)))
    }
    accesses.misses = taskCount - startedCount
    accesses.missedByteCount = accesses.misses * layout.shape(layer: layer).byteCount
    statistics.evictions += served.evictions
    statistics.add(accesses, phase: phase)
  }

  private func append(_ task: ExpertTask) {
    tasks[taskCount] = task
    taskCount += 1
  }

  /// Queues reads until one finds its slot in use or, in a stream, a wave is under way: more reads at a
  /// time would only make the first of them later. They are submitted together.
  /// - Returns: whether any was queued.
  @discardableResult
  private func startReads(layer: Int, phase: Phase) -> Bool {
    let first = startedCount
    var accesses = RuntimeStatistics.Accesses()
    while startedCount < taskCount, !(streaming && flightCount >= wave) {
      let task = tasks[startedCount]
      guard contents[task.slot].task < 0 else { break }
      accesses.demandedByteCount += enqueueReads(
        of: ExpertID(layer: layer, expert: task.expert), into: task.slot, for: startedCount)
      startedCount += 1
    }
    guard startedCount > first else { return false }
    engine.submit()
    statistics.add(accesses, phase: phase)
    return true
  }

  /// Queues the reads of an expert's matrices in the order they are computed; returns their bytes.
  func enqueueReads(of expert: ExpertID, into slot: Int, for task: Int) -> Int {
    if flightCount == 0 { busySince = monotonicNanoseconds() }
    flightCount += 1
    contents[slot] = SlotContent(task: task, remainingReads: ExpertMatrix.allCases.count)
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

  /// Takes note of the reads of experts of `layer` that have finished, without waiting for any.
  func harvest(layer: Int) {
    guard flightCount > 0 else { return }
    engine.poll { completion in
      let slot = Int(completion.tag >> 2)
      let matrix = ExpertMatrix(rawValue: Int(completion.tag & 3))!
      contents[slot].remainingReads -= 1
      let task = contents[slot].task
      if let error = completion.error {
        if firstFailure == nil {
          firstFailure = ReadFailure(expert: tasks[task].expert, matrix: matrix, error: error)
        }
        contents[slot].failed = true
      } else {
        tasks[task].arrived |= 1 << UInt8(matrix.rawValue)
      }
      guard contents[slot].remainingReads == 0 else { return }
      if !contents[slot].failed {
        contents[slot].expert = Int32(layer * expertCount + tasks[task].expert)
      }
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

  /// Multiplies `matrix` of the experts that are ready for it: all of them, or of a stream a wave, so
  /// that the next reads are not kept waiting. Those read last come first: in a stream they are the ones
  /// whose slots the reads wait for.
  private func multiply(_ matrix: ExpertMatrix, layer: Int) -> Bool {
    let most = streaming ? wave : startedCount
    var first = startedCount
    var count = 0
    while first > 0, count < most {
      first -= 1
      guard tasks[first].isReady(for: matrix) else { continue }
      batch.append(product(matrix, layer: layer, task: tasks[first]))
      count += 1
    }
    guard count > 0 else { return false }
    batch.run()
    for index in first..<startedCount where tasks[index].isReady(for: matrix) {
      tasks[index].multiplied += 1
      if matrix == .up {
        buffers.inner.quantize(
          buffers.places(of: tasks[index].expert), kernels: kernels, pool: pool)
      }
    }
    return true
  }

  private func product(_ matrix: ExpertMatrix, layer: Int, task: ExpertTask) -> Product {
    let expert = task.expert
    let places = buffers.places(of: expert)
    let first = places.lowerBound
    let offset = geometry.placement(matrix, layer: layer, expert: expert).matrixOffset
    let weights = layout.matrix(
      matrix, layer: layer, bytes: UnsafeRawPointer(memory(ofSlot: task.slot) + offset))
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
      harvest(layer: layer)
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
      file: files[file].path, reason: "\(failure.error)")
  }
}

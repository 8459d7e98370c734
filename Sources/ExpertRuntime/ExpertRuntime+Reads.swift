internal import Checkpoints
internal import DirectIO
internal import Routing
internal import Tensors

/// The reads of experts into slots: what is queued, what is forgotten, what has come.
extension ExpertRuntime {
  /// Queues the reads of those matrices of `expert` that are neither in `slot` nor under way, in the
  /// order they are computed, and lets those queued ahead wait no longer; returns the bytes demanded.
  func demand(_ expert: ExpertID, into slot: Int, for task: Int) -> Int {
    let id = Int32(expert.layer * expertCount + expert.expert)
    if contents[slot].expert != id { claim(slot, for: id) }
    contents[slot].task = task
    var byteCount = settleLate(slot) + promoteFill(slot)
    for read in geometry.reads(layer: expert.layer)
    where (contents[slot].arrived | contents[slot].underWay) & read.set == 0 {
      byteCount += enqueue(read, of: expert, into: slot, priority: .demand)
    }
    disk.noteDemand(byteCount: byteCount)
    return byteCount
  }

  /// Queues a read of an expert; returns its bytes.
  func enqueue(
    _ read: ExpertRead, of expert: ExpertID, into slot: Int, priority: ReadRequest.Priority
  ) -> Int {
    if contents[slot].underWay == 0 {
      if flightCount == 0 { busySince = monotonicNanoseconds() }
      flightCount += 1
    }
    contents[slot].underWay |= read.set
    let place = geometry.placement(read, layer: expert.layer, expert: expert.expert)
    engine.enqueue(
      ReadRequest(
        file: place.file, span: place.span, destination: memory(ofSlot: slot) + place.slotOffset,
        tag: Self.tag(slot, read), priority: priority))
    return place.span.byteCount
  }

  /// Lets `expert` have `slot`: what is being read into it of another is not begun or else waited for.
  func claim(_ slot: Int, for expert: Int32) {
    _ = cancelReads(into: slot)
    while contents[slot].underWay != 0 {
      engine.wait()
      harvest()
    }
    contents[slot] = SlotContent(expert: expert)
  }

  /// Makes demand reads of those into `slot` that wait behind others and have not begun.
  /// - Returns: the set of their matrices.
  func promoteReads(into slot: Int) -> UInt8 {
    var promoted: UInt8 = 0
    for read in reads(into: slot)
    where contents[slot].underWay & read.set != 0 && engine.promote(tag: Self.tag(slot, read)) {
      promoted |= read.set
    }
    return promoted
  }

  /// Forgets those reads into `slot` that wait behind others and have not begun.
  /// - Returns: the set of their matrices.
  func cancelReads(into slot: Int) -> UInt8 {
    var cancelled: UInt8 = 0
    for read in reads(into: slot).reversed()
    where contents[slot].underWay & read.set != 0 && engine.cancel(tag: Self.tag(slot, read)) {
      cancelled |= read.set
      endRead(of: read.set, into: slot)
    }
    return cancelled
  }

  /// Waits for every read that is queued.
  func awaitReads() {
    while flightCount > 0 {
      engine.wait()
      harvest()
    }
  }

  /// The reads of the expert in `slot`; none if there is none.
  private func reads(into slot: Int) -> [ExpertRead] {
    let expert = Int(contents[slot].expert)
    return expert < 0 ? [] : geometry.reads(layer: expert / expertCount)
  }

  /// What a read's completion is known by.
  static func tag(_ slot: Int, _ read: ExpertRead) -> UInt64 {
    UInt64(slot) << 2 | UInt64(read.first.rawValue)
  }

  /// Lets queued reads begin; what the page cache has is there at once.
  func submitReads() {
    let start = monotonicNanoseconds()
    engine.submit()
    disk.noteHandling(since: start)
    harvest()
  }

  // MARK: - Completion

  /// Takes note of the reads that have finished, without waiting for any.
  func harvest() {
    guard flightCount > 0 else { return }
    let start = monotonicNanoseconds()
    // What took their place may have come from the page cache, at once.
    while flightCount > 0, poll() {}
    disk.noteHandling(since: start)
  }

  /// Takes note of reads that have finished, once; returns whether any had.
  private func poll() -> Bool {
    var progressed = false
    engine.poll { completion in
      progressed = true
      let slot = Int(completion.tag >> 2)
      let matrix = ExpertMatrix(rawValue: Int(completion.tag & 3))!
      let (layer, expert) = Int(contents[slot].expert).quotientAndRemainder(dividingBy: expertCount)
      let read = geometry.read(of: matrix, layer: layer)
      let fault = completion.error.map { "\($0)" } ?? damage(of: read, layer, expert, in: slot)
      if let fault {
        // One that was read ahead is read again if it is needed.
        if contents[slot].task >= 0, firstFailure == nil {
          firstFailure = ReadFailure(expert: expert, matrix: matrix, reason: fault)
        }
      } else {
        contents[slot].arrived |= read.set
      }
      endRead(of: read.set, into: slot)
    }
    return progressed
  }

  /// What is wrong with bytes that have been read, where they are to be compared with their checksums.
  private func damage(of read: ExpertRead, _ layer: Int, _ expert: Int, in slot: Int) -> String? {
    guard let checksums else { return nil }
    let start = monotonicNanoseconds()
    defer { statistics.verificationNanoseconds += monotonicNanoseconds() - start }
    for matrix in read.matrices {
      let bytes = UnsafeRawBufferPointer(
        start: memory(ofSlot: slot) + geometry.offset(of: matrix, layer: layer, expert: expert),
        count: layout.slice(matrix, layer: layer, expert: expert).byteCount)
      guard
        kernels.checksum(bytes)
          == checksums.sum(layer: layer, expert: expert, matrix: matrix.rawValue)
      else { return "the checksum of its \(matrix) matrix is not the one it was written with" }
    }
    return nil
  }

  /// Takes note that no read of the matrices in `set` into `slot` is under way any more.
  func endRead(of set: UInt8, into slot: Int) {
    contents[slot].underWay &= ~set
    guard contents[slot].underWay == 0 else { return }
    let now = monotonicNanoseconds()
    if contents[slot].ahead?.isNeeded == true { settleArrival(slot, at: now) }
    if contents[slot].task >= 0 { demandEnd = now }
    flightCount -= 1
    if flightCount == 0 {
      statistics.diskBusyNanoseconds += now - busySince
      disk.noteBusy(nanoseconds: now - busySince)
    }
  }

  func waitForDisk() {
    let start = monotonicNanoseconds()
    if stallStart == 0 { stallStart = start }
    engine.wait()
    statistics.diskWaitNanoseconds += monotonicNanoseconds() - start
  }
}

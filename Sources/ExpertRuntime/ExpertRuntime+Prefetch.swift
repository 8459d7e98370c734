internal import Checkpoints
internal import DirectIO
internal import Residency
internal import Routing
internal import Tensors

/// What became of an expert that was read ahead, until it is settled.
struct ReadAhead {
  /// When its reads were queued.
  let start: UInt64
  /// Whether its layer is still to come.
  var isAwaited = true
  /// Whether it was needed before all of it was there, and it is being read on.
  var isNeeded = false
  /// The bytes that had been read or were being read then.
  var byteCount = 0
}

/// What the disk had done for a layer when its router decided.
struct HeadStart {
  /// When the last read before it that was waited for had ended: what is read ahead waits behind those.
  private let freeSince: UInt64
  /// When the first of what is needed was queued.
  private var queued: UInt64 = .max
  /// Bytes read ahead that are needed, and of these, those that were there.
  private var byteCount = 0
  private var arrivedByteCount = 0

  init(freeSince: UInt64 = 0) { self.freeSince = freeSince }

  mutating func note(_ ahead: ReadAhead, byteCount: Int, arrived: Int) {
    queued = min(queued, ahead.start)
    self.byteCount += byteCount
    arrivedByteCount += arrived
  }

  /// Seconds by which the layer's reads end earlier: those of what was there, or, as what is under way is
  /// done in part, for which the disk had been at it. When they arrived says less: reads demanded since
  /// have shared the disk with them.
  func seconds(until start: UInt64, on disk: DiskLoad) -> Float {
    guard byteCount > 0 else { return 0 }
    let begun = max(queued, freeSince)
    let passed = start > begun ? Float(start - begun) / 1e9 : 0
    return max(
      disk.readSeconds(byteCount: arrivedByteCount),
      min(passed, disk.readSeconds(byteCount: byteCount)))
  }
}

extension ExpertRuntime {
  /// The farthest that is read ahead for, in layers.
  public static let farthestPrediction = PrefetchPlanner.farthest

  /// Reads ahead what pays of the experts that `layer` is predicted to need, behind every read that is
  /// waited for. Nothing that is predicted changes what `execute` computes, nor what becomes resident.
  ///
  /// A prediction is made of the state at hand, as by the router of the later layer on the input of this
  /// one, and is worth the most just before `execute`, which then computes while the disk reads. Every
  /// layer's predictions are compared with what `execute` is asked for: what has not come true is not
  /// trusted, and while reading ahead does not pay none is done, so that each can be passed on as it is.
  ///
  /// - Parameters:
  ///   - layer: the layer predicted, as `execute` counts them.
  ///   - distance: layers from here to there, 1 to `farthestPrediction`; 0 is before the attention of the
  ///     layer itself.
  ///   - scores: the router's scores as predicted, [experts], in any unit that ascends with likelihood.
  /// - Throws: `RuntimeError.routing` if layer, distance or size do not fit the model, or a score is no
  ///   number.
  public func predict(layer: Int, distance: Int, scores: Span<Float>) throws(RuntimeError) {
    guard (0..<layerCount).contains(layer), scores.count == expertCount,
      (0...Self.farthestPrediction).contains(distance)
    else {
      throw .routing(
        reason:
          "a prediction of \(scores.count) scores for layer \(layer) at distance \(distance), "
          + "expected \(expertCount) for one of \(layerCount) layers at 0 to \(Self.farthestPrediction)"
      )
    }
    for index in scores.indices where scores[index].isNaN {
      throw .routing(reason: "the score predicted for expert \(index) is no number")
    }
    guard wantsPredictions else { return }
    predict(layer: layer, distance: distance, scores: scores, since: monotonicNanoseconds())
  }

  /// Whether experts can be read ahead: there are slots to stage them in.
  package var canPrefetch: Bool { slotPlan.stagingCount > 0 }

  /// Whether a prediction for this pass would be made use of: to read ahead, or to see whether that
  /// would pay again.
  package var wantsPredictions: Bool { canPrefetch && planner.wantsPredictions }

  /// Reads ahead what pays of the experts that `layer` is predicted to need, behind every read that is
  /// waited for, and forgets those reads for it that have not begun and pay no longer.
  ///
  /// - Parameters:
  ///   - layer: the layer predicted, counted over the whole model.
  ///   - distance: layers from here to there, 0 to `PrefetchPlanner.farthest`; 0 is before the attention
  ///     of the layer itself.
  ///   - scores: the router's scores as predicted, [experts], in any unit.
  ///   - start: when the making of the prediction was begun, in `monotonicNanoseconds`.
  package func predict(layer: Int, distance: Int, scores: Span<Float>, since start: UInt64) {
    guard canPrefetch else { return }
    planner.predict(
      layer: layer, distance: distance, scores: scores, residents: residents.table,
      utilisation: disk.utilisation)
    notePrediction(since: start)
    for expert in staged(layer: layer)
    where isStaged(expert, for: layer) && !planner.wanted.contains(expert) {
      withdraw(expert)
    }
    var byteCount = 0
    for expert in planner.wanted {
      guard let slot = stagingSlot(for: expert) else { break }
      byteCount += readAhead(expert, into: slot)
    }
    guard byteCount > 0 else { return }
    disk.noteAhead(byteCount: byteCount)
    submitReads()
  }

  /// Takes note that time since `start` was spent on what predictions need.
  package func notePrediction(since start: UInt64) {
    statistics.predictionNanoseconds += monotonicNanoseconds() - start
  }

  /// Whether the disk has nothing to do.
  package var diskIsIdle: Bool { flightCount == 0 }

  /// Takes note of reads that have finished and lets queued ones begin. To be called between pieces of
  /// other work, so that the disk is not idle while there is something to read ahead.
  public func advanceReads() {
    harvest()
    if !events.event.isPrompt { fillIdle() }
  }

  /// The staged experts that share slots with those of `layer`: a copy in memory that is kept, since
  /// staging changes while they are gone through.
  private func staged(layer: Int) -> [Int32] {
    stagedExperts.removeAll(keepingCapacity: true)
    stagedExperts += residents.staged(layer: layer)
    return stagedExperts
  }

  /// Whether `expert` is staged because a pass that is under way is to need it at `layer`.
  private func isStaged(_ expert: Int32, for layer: Int) -> Bool {
    guard Int(expert) / expertCount == layer, let slot = residents.stagedSlot(of: expert) else {
      return false
    }
    return contents[slot].ahead?.isAwaited == true
  }

  /// The staging slot of `expert`, a new one if need be; nil if all have something to wait for.
  private func stagingSlot(for expert: Int32) -> Int? {
    if let slot = residents.stagedSlot(of: expert) ?? residents.stage(expert) { return slot }
    let layer = Int(expert) / expertCount
    for old in staged(layer: layer) {
      let slot = residents.stagedSlot(of: old)!
      guard contents[slot].underWay == 0, contents[slot].ahead?.isAwaited != true else { continue }
      drop(old, from: slot)
      return residents.stage(expert)
    }
    return nil
  }

  /// Queues the reads of what is not there yet of `expert`; returns their bytes.
  private func readAhead(_ expert: Int32, into slot: Int) -> Int {
    let id = ExpertID(layer: Int(expert) / expertCount, expert: Int(expert) % expertCount)
    if contents[slot].expert != expert || contents[slot].ahead == nil {
      claim(slot, for: expert)
      statistics.prefetch[id.layer].issued.count += 1
    }
    contents[slot].ahead = ReadAhead(start: contents[slot].ahead?.start ?? monotonicNanoseconds())
    var byteCount = 0
    for read in geometry.reads(layer: id.layer)
    where (contents[slot].arrived | contents[slot].underWay) & read.set == 0 {
      byteCount += enqueue(read, of: id, into: slot, priority: .prefetch)
    }
    statistics.prefetch[id.layer].issued.byteCount += byteCount
    return byteCount
  }

  // MARK: - What becomes of it

  /// The layer of the event is about to be executed: its predictions are judged, and what was wrong is
  /// not read any further.
  func settlePredictions() {
    guard canPrefetch else { return }
    disk.beginLayer(at: layerStart)
    let event = events.event
    outcome = event.isPrompt ? nil : planner.settle(event)
    headStart = HeadStart(freeSince: demandEnd)
    for expert in staged(layer: event.layer)
    where isStaged(expert, for: event.layer)
      && (event.isPrompt || !event.experts.contains(expert))
    {
      withdraw(expert)
    }
  }

  /// The layer has been executed: the planner is told whether prefetching paid.
  func judgePrefetch(layer: Int, missedByteCount: Int) {
    guard canPrefetch, let outcome else { return }
    let waited = Float(statistics.diskWaitNanoseconds - waitedBefore) / 1e9
    defer { wastedSeconds = 0 }
    if stallStart > 0 { disk.noteStall(after: stallStart - layerStart) }
    let saved: Float
    if planner.isOpen {
      let seconds = headStart.seconds(until: layerStart, on: disk)
      saved = min(seconds, disk.stallSeconds(byteCount: missedByteCount)) - wastedSeconds
    } else {
      // Not more than there is to save, and of that half: some would be late.
      let byteCount = layout.shape(layer: layer).byteCount
      saved = min(waited, disk.stallSeconds(byteCount: outcome.right * byteCount)) / 2
    }
    planner.note(
      layer: layer, saved: saved,
      spent: Float(statistics.predictionNanoseconds - predictedBefore) / 1e9,
      elapsed: disk.layerSeconds)
    predictedBefore = statistics.predictionNanoseconds
  }

  /// Cancels what has not begun of the reads of `expert`, staged for a layer that does not need it.
  private func withdraw(_ expert: Int32) {
    let slot = residents.stagedSlot(of: expert)!
    let layer = Int(expert) / expertCount
    statistics.prefetch[layer].cancel(byteCount(of: expert, cancelReads(into: slot)))
    contents[slot].ahead?.isAwaited = false
    wastedSeconds +=
      disk.utilisation
      * disk.readSeconds(
        byteCount: byteCount(of: expert, contents[slot].arrived | contents[slot].underWay))
    guard contents[slot].arrived | contents[slot].underWay == 0 else { return }
    statistics.prefetch[layer].issued.count -= 1
    contents[slot] = SlotContent()
    residents.discard(expert)
  }

  /// The expert in `slot` is needed and all of it is there.
  func settleInTime(_ slot: Int) {
    guard let ahead = contents[slot].ahead else { return }
    let expert = contents[slot].expert
    let byteCount = byteCount(of: expert, SlotContent.allMatrices)
    statistics.prefetch[Int(expert) / expertCount].inTime.add(byteCount)
    headStart.note(ahead, byteCount: byteCount, arrived: byteCount)
    contents[slot].ahead = nil
  }

  /// The expert in `slot` is needed: what is queued of it is waited for from now on.
  /// - Returns: the bytes of reads that had been queued ahead and had not begun: they are demanded now.
  func settleLate(_ slot: Int) -> Int {
    guard let ahead = contents[slot].ahead else { return 0 }
    let expert = contents[slot].expert
    let layer = Int(expert) / expertCount
    let promoted = promoteReads(into: slot)
    let byteCount = byteCount(of: expert, promoted)
    statistics.prefetch[layer].cancel(byteCount)
    let begun = contents[slot].underWay & ~promoted
    if contents[slot].arrived | begun == 0 {
      statistics.prefetch[layer].issued.count -= 1
      contents[slot].ahead = nil
    } else {
      let arrived = self.byteCount(of: expert, contents[slot].arrived)
      let read = arrived + self.byteCount(of: expert, begun)
      headStart.note(ahead, byteCount: read, arrived: arrived)
      contents[slot].ahead?.isNeeded = true
      contents[slot].ahead?.byteCount = read
    }
    return byteCount
  }

  /// The last bytes of the expert in `slot`, needed since before `now`, have come: late if there was
  /// nothing left to compute without them.
  func settleArrival(_ slot: Int, at now: UInt64) {
    let layer = Int(contents[slot].expert) / expertCount
    let byteCount = contents[slot].ahead?.byteCount ?? 0
    contents[slot].ahead = nil
    if stallStart == 0 {
      statistics.prefetch[layer].inTime.add(byteCount)
    } else {
      statistics.prefetch[layer].late.add(byteCount)
      statistics.prefetch[layer].lateNanoseconds += now - stallStart
    }
  }

  /// Gives up `expert`, read ahead and never needed.
  private func drop(_ expert: Int32, from slot: Int) {
    statistics.prefetch[Int(expert) / expertCount].unused.add(
      byteCount(of: expert, contents[slot].arrived))
    contents[slot] = SlotContent()
    residents.discard(expert)
  }

  /// Waits for every read under way, and forgets what was read ahead or to fill free slots.
  func giveUpReads() {
    awaitReads()
    for layer in 0..<layerCount {
      for expert in staged(layer: layer) { drop(expert, from: residents.stagedSlot(of: expert)!) }
    }
    filledMatrices = 0
  }

  /// The bytes read for a set of the matrices of `expert`.
  func byteCount(of expert: Int32, _ set: UInt8) -> Int {
    let (layer, number) = (Int(expert) / expertCount, Int(expert) % expertCount)
    return geometry.reads(layer: layer).reduce(0) { sum, read in
      guard set & read.set != 0 else { return sum }
      return sum + geometry.placement(read, layer: layer, expert: number).span.byteCount
    }
  }
}

/// A trace in memory: 2 bytes per routed expert, 4 more with weights.
public struct RoutingTrace: Sendable {
  private struct Record: Sendable {
    var sequence: Int32
    var step: Int32
    var layer: UInt16
    var isPrefill: Bool
    var first: Int
    var firstPrediction: Int
  }

  /// What the trace says of itself.
  public private(set) var header: TraceHeader
  /// Bytes at the end of the file it was read from that were no whole block and were left out, as a
  /// recording leaves that was cut short.
  public private(set) var tornByteCount = 0
  private var records: [Record] = []
  private var experts: [UInt16] = []
  private var weights: [Float] = []
  private var scores: [UInt8] = []
  private var predictions: [UInt8] = []
  /// What was read ahead, by event, where anything was.
  private var ledgers: [Int: PrefetchLedger] = [:]

  /// A trace without events.
  public init(header: TraceHeader) { self.header = header }

  /// Reads the whole .moetrace file at `path`, but for a torn end: see `tornByteCount`.
  /// - Parameter progress: called with the bytes read so far and in all.
  /// - Throws: `TraceError`.
  public init(
    path: String, progress: TraceProgress = { _, _ in }
  ) throws(TraceError) {
    var reader = try TraceReader(path: path)
    self.init(header: reader.header)
    let byteCount = try reader.byteCount()
    var event = TraceEvent()
    while try reader.next(into: &event) {
      append(event)
      if records.count % 4096 == 0 { progress(reader.readByteCount, byteCount) }
    }
    tornByteCount = reader.tornByteCount
  }

  /// Says how large the experts are, and the slots of the runtime that is to hold them.
  /// - Parameters:
  ///   - expertByteCounts: bytes of an expert, [layers], as many as the trace has.
  ///   - slotByteCounts: bytes of its slot, [layers], or none where unknown.
  public mutating func setSizes(expertByteCounts: [Int], slotByteCounts: [Int]) {
    let geometry = header.geometry
    precondition(expertByteCounts.count == geometry.layerCount, "sizes of other layers")
    header.geometry = RoutingGeometry(
      expertCount: geometry.expertCount, topK: geometry.topK, expertByteCounts: expertByteCounts)
    header.slotByteCounts = slotByteCounts
  }

  /// The number of events.
  public var eventCount: Int { records.count }

  /// The number of routed experts, duplicates within an event included.
  public var accessCount: Int { experts.count }

  /// Appends `event`, which must fit the header's geometry.
  public mutating func append(_ event: borrowing TraceEvent) {
    precondition(
      event.experts.count % header.geometry.topK == 0 && !event.experts.isEmpty,
      "an event of partial tokens")
    precondition(
      event.weights.count == (header.hasWeights ? event.experts.count : 0),
      "weights do not match the experts")
    precondition(
      event.scores.count == (header.hasScores ? scoreCount(event.experts.count) : 0),
      "scores do not match the experts")
    precondition(
      event.predictions.isEmpty || event.predictions.count == header.predictionByteCount,
      "predictions do not match the header")
    if !event.prefetch.isEmpty { ledgers[records.count] = event.prefetch }
    records.append(
      Record(
        sequence: event.sequence, step: event.step, layer: UInt16(event.layer),
        isPrefill: event.phase == .prefill, first: experts.count,
        firstPrediction: predictions.count))
    experts += event.experts
    weights += event.weights
    scores += event.scores
    predictions += event.predictions
  }

  /// Forgets the events and keeps the storage.
  mutating func removeAll() {
    records.removeAll(keepingCapacity: true)
    experts.removeAll(keepingCapacity: true)
    weights.removeAll(keepingCapacity: true)
    scores.removeAll(keepingCapacity: true)
    predictions.removeAll(keepingCapacity: true)
    ledgers.removeAll(keepingCapacity: true)
  }

  /// The scores that belong to so many expert ids.
  private func scoreCount(_ accesses: Int) -> Int {
    accesses / header.geometry.topK * header.geometry.expertCount
  }

  /// Copies event `index` into `event`.
  public func read(_ index: Int, into event: inout TraceEvent) {
    let record = records[index]
    event.removeAll()
    event.sequence = record.sequence
    event.step = record.step
    event.layer = Int(record.layer)
    event.phase = record.isPrefill ? .prefill : .decode
    let places = accesses(of: index)
    event.experts += experts[places]
    if header.hasWeights { event.weights += weights[places] }
    event.scores += scores(of: index)
    event.predictions += predictions(of: index)
    event.prefetch = prefetch(of: index)
  }

  /// The layer of event `index`.
  public func layer(of index: Int) -> Int { Int(records[index].layer) }
  /// The sequence of event `index`.
  public func sequence(of index: Int) -> Int32 { records[index].sequence }
  /// The step of event `index`.
  public func step(of index: Int) -> Int32 { records[index].step }
  /// The phase of event `index`.
  public func phase(of index: Int) -> Phase { records[index].isPrefill ? .prefill : .decode }
  /// The expert ids of event `index`, [tokens, topK].
  public func experts(of index: Int) -> ArraySlice<UInt16> { experts[accesses(of: index)] }
  /// The gate weights of event `index`, [tokens, topK]; empty where the trace has none.
  public func weights(of index: Int) -> ArraySlice<Float> {
    header.hasWeights ? weights[accesses(of: index)] : []
  }

  /// The router's scores of event `index` as `TraceScore` codes them, [tokens, experts]; empty where the
  /// trace has none.
  public func scores(of index: Int) -> ArraySlice<UInt8> {
    guard header.hasScores else { return [] }
    let places = accesses(of: index)
    return scores[scoreCount(places.lowerBound)..<scoreCount(places.upperBound)]
  }

  /// The scores that event `index` was predicted to have, as `TraceScore` codes them, [distances,
  /// experts]; empty where it has none.
  public func predictions(of index: Int) -> ArraySlice<UInt8> {
    let end =
      index + 1 < records.count ? records[index + 1].firstPrediction : predictions.count
    return predictions[records[index].firstPrediction..<end]
  }

  /// What became of experts read ahead until event `index`, as `TraceEvent.prefetch` has it.
  public func prefetch(of index: Int) -> PrefetchLedger {
    ledgers.isEmpty ? PrefetchLedger() : ledgers[index] ?? PrefetchLedger()
  }

  /// The number of expert ids of event `index`: tokens * topK.
  public func accessCount(of index: Int) -> Int { accesses(of: index).count }

  /// Appends the expert ids of event `index`, each plus `base`, and its gate weights.
  public func append(
    _ index: Int, base: Int32, to experts: inout [Int32], weights: inout [Float]
  ) {
    for access in accesses(of: index) { experts.append(base + Int32(self.experts[access])) }
    if header.hasWeights {
      for access in accesses(of: index) { weights.append(self.weights[access]) }
    }
  }

  private func accesses(of index: Int) -> Range<Int> {
    let end = index + 1 < records.count ? records[index + 1].first : experts.count
    return records[index].first..<end
  }
}

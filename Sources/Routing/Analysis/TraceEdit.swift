extension TraceSource {
  /// Writes the events for which `isKept` holds to `path`, whole or not at all.
  ///
  /// - Parameter header: what the new trace says of itself; nil for what this one does.
  /// - Returns: the events and the routed experts written; without any event nothing is.
  /// - Throws: `TraceError`.
  public func write(
    to path: String, header: TraceHeader? = nil,
    where isKept: (_ sequence: Int, _ step: Int, _ phase: Phase) -> Bool = { _, _, _ in true }
  ) throws -> (events: Int, accesses: Int) {
    let writer = try TraceWriter(creating: path, header: header ?? self.header)
    var written = (events: 0, accesses: 0)
    try forEachEvent { event in
      guard isKept(Int(event.sequence), Int(event.step), event.phase) else { return }
      try writer.append(event)
      written.events += 1
      written.accesses += event.experts.count
    }
    if written.events > 0 { try writer.finish() }
    return written
  }

  /// Writes the events of `sources` one after the other to `path`, whole or not at all; their sequences
  /// are numbered anew.
  ///
  /// - Parameter names: what errors call each of them.
  /// - Returns: the events and the routed experts written.
  /// - Throws: `TraceError`; `.mismatch` if they are not of the same model and shape.
  public static func merge(
    _ sources: [TraceSource], names: [String], to path: String
  ) throws -> (events: Int, accesses: Int) {
    precondition(!sources.isEmpty && names.count == sources.count, "no traces")
    for (index, source) in sources.enumerated() {
      let (a, b) = (sources[0].header, source.header)
      guard a.geometry == b.geometry, a.hasWeights == b.hasWeights,
        a.hasScores == b.hasScores, a.predictionDistances == b.predictionDistances
      else {
        throw TraceError.mismatch(
          path: names[index], other: names[0],
          reason:
            "their numbers of layers, experts or bytes differ, or one has no weights, scores or predictions"
        )
      }
    }
    let writer = try TraceWriter(creating: path, header: sources[0].header)
    var firstSequence: Int32 = 0
    for source in sources {
      var highest: Int32 = -1
      try source.forEachEvent { event in
        highest = max(highest, event.sequence)
        var numbered = event
        numbered.sequence += firstSequence
        try writer.append(numbered)
      }
      firstSequence += highest + 1
    }
    try writer.finish()
    return (
      sources.reduce(0) { $0 + $1.eventCount }, sources.reduce(0) { $0 + $1.accessCount }
    )
  }

  /// Calls `body` with every event in its order.
  /// - Throws: what `body` throws; `TraceError` if the trace cannot be read any more.
  public func forEachEvent(_ body: (TraceEvent) throws -> Void) throws {
    var event = TraceEvent()
    try forEachPart { trace, _ in
      for index in 0..<trace.eventCount {
        trace.read(index, into: &event)
        try body(event)
      }
    }
  }
}

extension RoutingTrace {
  /// The same decoded tokens in random order, each with its experts at all layers: the control that
  /// shows how much of a policy's success lies in the order of time (arXiv 2608.07911).
  ///
  /// Prompts come first and stay as they are; the decoded tokens of all sequences change places.
  public func permuted(seed: UInt64) -> RoutingTrace {
    var generator = SplitMix64(state: seed)
    let (prompts, passes) = passes
    let order = passes.shuffled(using: &generator)
    var result = RoutingTrace(header: header)
    for place in prompts { result.append(place, of: self) }
    for (slot, pass) in order.enumerated() {
      for place in pass {
        result.append(place, of: self) { event in
          event.sequence = sequence(of: passes[slot].lowerBound)
          event.step = step(of: passes[slot].lowerBound)
        }
      }
    }
    return result
  }

  /// The same decoded tokens as those of `count` sequences: each has as many that followed each other, and
  /// those that are left over go. Prompts stay the first sequence's.
  /// - Returns: the trace as it is if it has as many sequences; nil if it has too few tokens to make them of.
  package func cut(into count: Int) -> RoutingTrace? {
    let sequences = count > 1 ? Set((0..<eventCount).lazy.map(sequence(of:))).count : count
    guard sequences < count else { return self }
    let (prompts, passes) = passes
    let size = passes.count / count
    guard size > 0 else { return nil }
    var result = RoutingTrace(header: header)
    for place in prompts { result.append(place, of: self) { $0.sequence = 0 } }
    for (slot, pass) in passes.prefix(size * count).enumerated() {
      for place in pass {
        result.append(place, of: self) { $0.sequence = Int32(slot / size) }
      }
    }
    return result
  }

  /// The events of prompts, and those of each decoded token.
  private var passes: (prompts: [Int], decoded: [Range<Int>]) {
    var passes: [Range<Int>] = []
    var prompts: [Int] = []
    for place in 0..<eventCount {
      if phase(of: place) == .prefill {
        prompts.append(place)
      } else if let last = passes.last, last.upperBound == place,
        sequence(of: place) == sequence(of: last.lowerBound),
        step(of: place) == step(of: last.lowerBound)
      {
        passes[passes.count - 1] = last.lowerBound..<place + 1
      } else {
        passes.append(place..<place + 1)
      }
    }
    return (prompts, passes)
  }

  /// Appends an event of `other`, changed.
  private mutating func append(
    _ place: Int, of other: RoutingTrace, _ change: (inout TraceEvent) -> Void = { _ in }
  ) {
    var event = TraceEvent()
    other.read(place, into: &event)
    change(&event)
    append(event)
  }
}

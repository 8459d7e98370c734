extension RoutingTrace {
  /// The events of `traces` one after the other; their sequences are numbered anew.
  /// - Parameter names: what errors call each of them.
  /// - Throws: `TraceError.mismatch` if they are not of the same model and shape.
  public static func merged(
    _ traces: [RoutingTrace], names: [String]
  ) throws(TraceError) -> RoutingTrace {
    precondition(!traces.isEmpty && names.count == traces.count, "no traces")
    var result = RoutingTrace(header: traces[0].header)
    var event = TraceEvent()
    var firstSequence: Int32 = 0
    for (index, trace) in traces.enumerated() {
      let (a, b) = (traces[0].header, trace.header)
      guard a.geometry == b.geometry, a.hasWeights == b.hasWeights,
        a.hasScores == b.hasScores, a.predictionDistances == b.predictionDistances
      else {
        throw .mismatch(
          path: names[index], other: names[0],
          reason:
            "their numbers of layers, experts or bytes differ, or one has no weights, scores or predictions"
        )
      }
      var highest: Int32 = -1
      for place in 0..<trace.eventCount {
        trace.read(place, into: &event)
        highest = max(highest, event.sequence)
        event.sequence += firstSequence
        result.append(event)
      }
      firstSequence += highest + 1
    }
    return result
  }

  /// The events for which `isKept` holds.
  public func filtered(_ isKept: (_ sequence: Int, _ step: Int, _ phase: Phase) -> Bool)
    -> RoutingTrace
  {
    var result = RoutingTrace(header: header)
    var event = TraceEvent()
    for place in 0..<eventCount
    where isKept(Int(sequence(of: place)), Int(step(of: place)), phase(of: place)) {
      read(place, into: &event)
      result.append(event)
    }
    return result
  }

  /// The same decoded tokens in random order, each with its experts at all layers: the control that
  /// shows how much of a policy's success lies in the order of time (arXiv 2608.07911).
  ///
  /// Prompts come first and stay as they are; the decoded tokens of all sequences change places.
  public func permuted(seed: UInt64) -> RoutingTrace {
    var generator = SplitMix64(state: seed)
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
    let order = passes.shuffled(using: &generator)
    var result = RoutingTrace(header: header)
    var event = TraceEvent()
    for place in prompts {
      read(place, into: &event)
      result.append(event)
    }
    for (slot, pass) in order.enumerated() {
      for place in pass {
        read(place, into: &event)
        event.sequence = sequence(of: passes[slot].lowerBound)
        event.step = step(of: passes[slot].lowerBound)
        result.append(event)
      }
    }
    return result
  }
}

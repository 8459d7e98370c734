package import Routing

/// The order in which a trace's events are replayed, with `batch` sequences at a time.
///
/// Decoded tokens of as many sequences go through a layer together. A sequence that ends makes room for
/// the next; its prompt goes through the layers alone.
package struct EventSchedule: Sendable {
  /// Indices of events, group by group: those of a group are at the same layer and go through it
  /// together.
  private var events: [Int32] = []
  private var groupEnds: [Int32] = []

  package var groupCount: Int { groupEnds.count }

  package func group(_ index: Int) -> ArraySlice<Int32> {
    events[(index > 0 ? Int(groupEnds[index - 1]) : 0)..<Int(groupEnds[index])]
  }

  /// - Parameters:
  ///   - batch: sequences at a time, at least 1.
  ///   - layers: whether each layer is replayed, [layers]; nil replays all.
  package init(_ trace: RoutingTrace, batch: Int = 1, layers: [Bool]? = nil) {
    precondition(batch > 0, "an empty batch")
    group(trace, batch: batch)
    guard let layers else { return }
    let groups = (0..<groupCount).map { Array(group($0)) }
    (events, groupEnds) = ([], [])
    for group in groups where layers[trace.layer(of: Int(group[0]))] { append(group) }
  }

  private mutating func group(_ trace: RoutingTrace, batch: Int) {
    if batch == 1 {
      events = Array(0..<Int32(trace.eventCount))
      groupEnds = trace.eventCount == 0 ? [] : Array(1...Int32(trace.eventCount))
      return
    }
    var waiting = Self.sequences(of: trace)[...]
    var lanes: [ArraySlice<Int32>] = []
    while true {
      lanes.removeAll { $0.isEmpty }
      while lanes.count < batch, var next = waiting.popFirst() {
        while let event = next.first, trace.phase(of: Int(event)) == .prefill {
          append([next.removeFirst()])
        }
        if !next.isEmpty { lanes.append(next) }
      }
      guard !lanes.isEmpty else { return }
      runPass(of: &lanes, trace: trace)
    }
  }

  private mutating func append(_ group: [Int32]) {
    events += group
    groupEnds.append(Int32(events.count))
  }

  /// One token of every lane, layer by layer.
  private mutating func runPass(of lanes: inout [ArraySlice<Int32>], trace: RoutingTrace) {
    let steps = lanes.map { trace.step(of: Int($0.first!)) }
    for layer in 0..<trace.header.geometry.layerCount {
      var group: [Int32] = []
      for lane in lanes.indices {
        guard let event = lanes[lane].first, trace.layer(of: Int(event)) == layer,
          trace.step(of: Int(event)) == steps[lane], trace.phase(of: Int(event)) == .decode
        else { continue }
        group.append(lanes[lane].removeFirst())
      }
      if !group.isEmpty { append(group) }
    }
    // A prompt in the middle of a sequence (a second turn) goes alone.
    for lane in lanes.indices {
      while let event = lanes[lane].first, trace.phase(of: Int(event)) == .prefill {
        append([lanes[lane].removeFirst()])
      }
    }
  }

  /// The events of each sequence, in the order of the sequences' first events.
  private static func sequences(of trace: RoutingTrace) -> [ArraySlice<Int32>] {
    var places: [Int32: Int] = [:]
    var sequences: [[Int32]] = []
    for event in 0..<trace.eventCount {
      let sequence = trace.sequence(of: event)
      if let place = places[sequence] {
        sequences[place].append(Int32(event))
      } else {
        places[sequence] = sequences.count
        sequences.append([Int32(event)])
      }
    }
    return sequences.map { $0[...] }
  }
}

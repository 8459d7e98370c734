internal import Foundation
internal import Placement
internal import Residency
internal import Routing

/// Bytes that a replay read ahead.
package struct PrefetchAccount: Encodable, Hashable, Sendable {
  package var issuedBytes = 0.0
  /// Of these, the bytes of experts that were needed.
  package var neededBytes = 0.0
  /// And of these, those of experts that were there when the router decided.
  package var inTimeBytes = 0.0
}

/// Prefetching in simulated time: the runtime's planner decides, the disk reads while it has nothing else
/// to do, and what it has not begun when the router decides is demanded or forgotten.
struct PrefetchReplay {
  /// Experts staged at a time, beside the memory that is replayed.
  private let stagedCount: Int

  private struct Staged {
    var expert: Int32
    /// Seconds until the disk has read it, with nothing else to do.
    let seconds: Double
    /// Of these, those that are left; all of them until it has begun.
    var left: Double
    /// Whether its layer is still to come.
    var isAwaited = true

    var hasBegun: Bool { left < seconds }
  }

  private let header: TraceHeader
  private let profile: HardwareProfile
  private var planner: PrefetchPlanner
  private var predictions: TracePredictions
  private var staged: [Staged] = []
  private var busySeconds = 0.0
  private var seconds = 0.0
  private(set) var account = PrefetchAccount()

  init(
    _ predictor: ReplayPredictor, header: TraceHeader, profile: HardwareProfile, stagedCount: Int
  ) {
    self.stagedCount = stagedCount
    self.header = header
    self.profile = profile
    var parameters = PrefetchPlanner.Parameters()
    parameters.isGoverned = false
    parameters.depth = stagedCount
    planner = PrefetchPlanner(geometry: header.geometry, parameters: parameters)
    predictions = TracePredictions(predictor, header: header)
  }

  private func readSeconds(layer: Int) -> Double {
    Double(header.geometry.expertByteCounts[layer]) / profile.readBytesPerSecond
  }

  /// The router has decided: what was read ahead is settled.
  /// - Returns: the seconds that are left of reading each missed expert that was begun ahead.
  mutating func begin(_ event: borrowing RoutingEvent, missed: [Int32]) -> [Double] {
    planner.settle(event)
    let full = readSeconds(layer: event.layer)
    let bytes = Double(header.geometry.expertByteCounts[event.layer])
    var ahead: [Double] = []
    var kept: [Staged] = []
    for var expert in staged {
      guard Int(expert.expert) / header.geometry.expertCount == event.layer else {
        kept.append(expert)
        continue
      }
      guard expert.hasBegun else { continue }
      let read = bytes * (1 - min(1, expert.left / full))
      if expert.isAwaited { account.issuedBytes += read }
      if missed.contains(expert.expert) {
        account.neededBytes += read
        if expert.left == 0 { account.inTimeBytes += bytes }
        ahead.append(expert.left)
      } else if expert.left == 0 {
        // It may be needed by a later token, unless its slot is.
        expert.isAwaited = false
        kept.append(expert)
      }
    }
    staged = kept
    return ahead
  }

  /// The layer of `event` has been executed in `time`: reads ahead until the router of the next one, that
  /// of event `next` of `trace`, decides.
  /// - Returns: the seconds by which what is computed meanwhile takes longer for it.
  mutating func end(
    _ event: borrowing RoutingEvent, time: LayerTime, next: Int, of trace: RoutingTrace,
    residents: ResidentTable
  ) -> Double {
    seconds += time.seconds + profile.layerSeconds
    busySeconds += time.readSeconds
    let first = event.layer * header.geometry.expertCount
    predictions.observe(
      layer: event.layer, experts: event.experts.lazy.map { Int($0) - first },
      next: trace.sequence(of: next))
    guard trace.phase(of: next) == .decode else { return 0 }
    let layer = trace.layer(of: next)
    var delay = 0.0
    if layer == event.layer + 1 {
      // Predicted when the layer's own reads have been handed in: where it waits for those, that is for free.
      delay = max(0, predict(next, of: trace, 1, residents) - time.stallSeconds)
    }
    delay += read(during: max(0, time.seconds - time.readSeconds) + delay)
    let spent = predict(next, of: trace, 0, residents)
    delay += spent + read(during: profile.layerSeconds + spent)
    seconds += delay
    return delay
  }

  /// Decides anew what is worth reading for event `next`.
  /// - Returns: the seconds for which that keeps the processor.
  private mutating func predict(
    _ next: Int, of trace: RoutingTrace, _ distance: Int, _ residents: ResidentTable
  ) -> Double {
    guard let scores = predictions.scores(of: next, in: trace, distance: distance) else { return 0 }
    let layer = trace.layer(of: next)
    var count = 0
    planner.predict(
      layer: layer, distance: distance, scores: scores.span, residents: residents,
      utilisation: Float(busySeconds / max(seconds, .leastNormalMagnitude)))
    let full = readSeconds(layer: layer)
    let wanted = planner.wanted
    let experts = header.geometry.expertCount
    staged.removeAll {
      Int($0.expert) / experts == layer && $0.isAwaited && !$0.hasBegun
        && !wanted.contains($0.expert)
    }
    for expert in wanted where !staged.contains(where: { $0.expert == expert }) {
      if staged.count == stagedCount {
        guard let old = staged.firstIndex(where: { !$0.isAwaited }) else { break }
        staged.remove(at: old)
      }
      // Reads behind others begin while those are under way.
      let isFirst = !staged.contains { $0.isAwaited && $0.left > 0 }
      let seconds = full + (isFirst ? profile.readLatencySeconds : 0)
      staged.append(Staged(expert: expert, seconds: seconds, left: seconds))
      count += 1
    }
    return (profile.predictionSeconds ?? 0) + profile.handInSeconds(experts: count)
  }

  /// Lets the disk read what is staged, one after the other, while something is computed.
  ///
  /// - Parameter computing: the seconds that computing takes alone.
  /// - Returns: the seconds that it takes longer.
  private mutating func read(during computing: Double) -> Double {
    let awaited = staged.reduce(0) { $0 + ($1.isAwaited ? $1.left : 0) }
    let both = profile.contention.overlap(computing: computing, reading: awaited)
    var left = both.read
    for index in staged.indices where staged[index].isAwaited && left > 0 {
      let spent = min(left, staged[index].left)
      staged[index].left -= spent
      left -= spent
    }
    return both.seconds - both.computed
  }
}

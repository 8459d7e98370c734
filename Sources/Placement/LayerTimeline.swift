/// What a layer's experts take in time.
public struct LayerTime: Hashable, Sendable {
  /// From the router's decision to the last expert's output.
  public var seconds = 0.0
  /// Of these, those in which nothing could be computed until bytes arrived.
  public var stallSeconds = 0.0
  /// Of these, those for an expert that was read ahead, too late.
  public var lateSeconds = 0.0
  /// Those in which reads were under way.
  public var readSeconds = 0.0
}

/// The time of one token's experts at one layer, by a discrete-event simulation of the disk's queue and
/// of the processor, which do what `ExpertRuntime` makes them do.
///
/// All reads are handed in at once, which keeps the processor for a while; the disk serves them in order, an expert's gate, up and down matrix one
/// after the other: the n-th byte arrives at latency + n / bandwidth (behind what was read ahead, at the end of
/// that if it is later than the latency), and those of matrices that are one read with the last of them. The
/// processor goes over gate, up and down in turn and multiplies at once all experts that are ready for each,
/// residents from the start and the others as their matrices land, at its rate in bytes; with nothing to
/// multiply it waits for the next matrix. While both are at work each has its share of its rate. Where reading
/// keeps the processor, all is read before anything is multiplied.
public struct LayerTimeline: Sendable {
  private let profile: HardwareProfile
  /// Matrices that are there when the read has ended that each is part of, [3].
  private let landed: [Int]
  private var done: [Int] = []

  /// - Parameter profile: without `fault`.
  public init(_ profile: HardwareProfile) {
    precondition(profile.fault == nil, "an impossible profile")
    self.profile = profile
    switch profile.readsPerExpert {
    case 1: landed = [3, 3, 3]
    case 2: landed = [2, 2, 3]
    default: landed = [1, 2, 3]
    }
  }

  /// - Parameters:
  ///   - hits: experts that are resident.
  ///   - misses: experts that are read.
  ///   - ahead: experts that were read ahead, beside the hits and misses: the seconds that are left of
  ///     reading each, in the order in which they are read; none of the misses is read before them.
  ///   - byteCount: bytes of an expert.
  public mutating func run(
    hits: Int, misses: Int, ahead: [Double] = [], byteCount: Int
  ) -> LayerTime {
    let matrix = Double(byteCount) / 3
    let readTime = matrix / profile.readBytesPerSecond
    let computeTime = matrix / profile.computeBytesPerSecond
    var time = LayerTime()
    let aheadSeconds = ahead.reduce(0, +)
    /// When the first byte that was not read ahead arrives, with nothing computed meanwhile.
    let firstDemanded = max(aheadSeconds, misses > 0 ? profile.readLatencySeconds : 0)
    /// Seconds of reading, with nothing computed meanwhile, in all and of what has been read.
    let reading = firstDemanded + Double(3 * misses) * readTime
    var read = 0.0
    if profile.readsOccupyProcessor == true {
      time.readSeconds = reading
      time.stallSeconds = time.readSeconds
      time.lateSeconds = aheadSeconds
      time.seconds = time.readSeconds + Double(3 * (hits + ahead.count + misses)) * computeTime
      return time
    }
    /// The seconds of reading after which the last byte of each expert read ahead is there.
    var ends: [Double] = []
    for left in ahead { ends.append((ends.last ?? 0) + left) }
    let early = hits + ahead.count
    /// Matrices that have been multiplied, by expert: the residents, then the others as they are read.
    done.removeAll(keepingCapacity: true)
    done.append(contentsOf: repeatElement(0, count: early + misses))
    func arrival(_ expert: Int, _ matrix: Int) -> Double {
      if expert < hits { return 0 }
      if expert < early { return ends[expert - hits] - Double(3 - landed[matrix]) * readTime }
      return firstDemanded + Double(3 * (expert - early) + landed[matrix]) * readTime
    }
    let contention = profile.contention
    func compute(_ seconds: Double) {
      let both = contention.overlap(computing: seconds, reading: reading - read)
      read += both.read
      time.readSeconds += both.seconds
      time.seconds += both.seconds + seconds - both.computed
    }
    compute(profile.handInSeconds(experts: misses))
    var remaining = 3 * (early + misses)
    while remaining > 0 {
      var progressed = false
      for matrix in 0..<3 {
        var count = 0
        for expert in done.indices
        where done[expert] == matrix && arrival(expert, matrix) <= read {
          done[expert] += 1
          count += 1
        }
        guard count > 0 else { continue }
        progressed = true
        remaining -= count
        compute(Double(count) * computeTime)
      }
      if progressed { continue }
      var next = (time: Double.infinity, isAhead: false)
      for expert in done.indices where done[expert] < 3 {
        let time = arrival(expert, done[expert])
        if time < next.time { next = (time, expert < early) }
      }
      let waiting = next.time - read
      time.stallSeconds += waiting
      if next.isAhead { time.lateSeconds += waiting }
      time.readSeconds += waiting
      time.seconds += waiting
      read = next.time
    }
    return time
  }
}

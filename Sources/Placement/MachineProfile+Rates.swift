internal import Glibc

extension MachineProfile {
  /// What is not possible in the profile, in words; nil if all is.
  public var fault: String? {
    guard version == Self.currentVersion else {
      return "version \(version), expected \(Self.currentVersion)"
    }
    func positive(_ name: String, _ figure: Figure) -> String? {
      figure.value > 0 && figure.value.isFinite && figure.spread >= 0
        ? nil : "\(name) is \(figure.value), expected a number above 0"
    }
    func time(_ name: String, _ figure: Figure) -> String? {
      figure.value >= 0 && figure.value.isFinite
        ? nil : "\(name) is \(figure.value), expected a number from 0 on"
    }
    guard disk.contains(where: { $0.kind == .direct || $0.kind == .buffered }), !memory.isEmpty,
      products.contains(where: { $0.kernels == machine.kernels }), machine.threads > 0
    else { return "a figure of disk, memory, products or threads is missing" }
    var faults = disk.flatMap {
      [
        $0.blockBytes > 0 && $0.depth > 0 ? nil : "a block or depth of disk is not above 0",
        positive("disk.bytes_per_second", $0.bytesPerSecond),
        positive("disk.burst_seconds", $0.burstSeconds),
      ]
    }
    faults += memory.map { positive("memory.bytes_per_second", $0.bytesPerSecond) }
    faults += products.flatMap {
      [
        $0.tokens > 0 ? nil : "tokens of products is not above 0",
        positive("products.bytes_per_second", $0.bytesPerSecond),
      ]
    }
    faults += [
      time("layer_seconds", layerSeconds), time("token_seconds", tokenSeconds),
      time("sampling_seconds", samplingSeconds),
      time("prompt_value_seconds", promptValueSeconds),
      time("hand_in_seconds", handInSeconds), time("read_hand_in_seconds", readHandInSeconds),
      time("prediction_seconds", predictionSeconds),
      positive("context_bytes_per_second", contextBytesPerSecond),
      positive("prompt_context_bytes_per_second", promptContextBytesPerSecond),
      positive("decode_efficiency", decodeEfficiency),
      positive("prompt_efficiency", promptEfficiency),
      positive("contention.read_share", contention.readShare),
      positive("contention.compute_share", contention.computeShare),
      positive("prompt_contention.read_share", promptContention.readShare),
      positive("prompt_contention.compute_share", promptContention.computeShare),
    ]
    faults += devices.map { device in
      [
        device.bytesPerSecond, device.operationsPerSecond, device.linkBytesPerSecond,
        Double(device.memoryBytes),
      ].allSatisfy { $0 > 0 && $0.isFinite } ? nil : "a figure of '\(device.name)' is not above 0"
    }
    return faults.lazy.compactMap { $0 }.first
  }

  /// The kinds of reads there are figures of.
  public var readKinds: [ReadKind] {
    ReadKind.allCases.filter { kind in disk.contains { $0.kind == kind } }
  }

  /// The seconds of `count` reads of `blockBytes` each, handed in at once: between the measured blocks
  /// and depths straight in the logarithms, beyond them with the rate of the nearest.
  ///
  /// - Returns: nil if nothing was measured of `kind`.
  public func burstSeconds(_ kind: ReadKind, blockBytes: Int, count: Int) -> Double? {
    let rates = disk.filter { $0.kind == kind }
    let depths = Set(rates.map(\.depth)).sorted()
    let points = depths.map { depth in
      let row = rates.filter { $0.depth == depth }.sorted { $0.blockBytes < $1.blockBytes }
      // Of one depth, the bytes per second of a burst by the size of its reads.
      return (
        Double(depth),
        interpolate(
          row.map { (Double($0.blockBytes), $0.burstBytesPerSecond) }, at: Double(blockBytes))
      )
    }
    guard !points.isEmpty else { return nil }
    return Double(blockBytes * count) / interpolate(points, at: Double(count))
  }

  /// Bytes of weights of `type` per second with `tokens` vectors at once. Where the type was not measured,
  /// the slowest of all, which promises too little rather than too much.
  public func productBytesPerSecond(_ type: String, tokens: Double, isCached: Bool) -> Double {
    let own = products.filter { $0.kernels == machine.kernels }
    let kind = own.contains { $0.isCached == isCached } ? isCached : !isCached
    let rates = own.filter { $0.isCached == kind }
    let known = rates.filter { $0.type == type }
    let types = known.isEmpty ? Array(Set(rates.map(\.type))) : [type]
    return types.map { type in
      let row = rates.filter { $0.type == type }.sorted { $0.tokens < $1.tokens }
      return interpolate(row.map { (Double($0.tokens), $0.bytesPerSecond.value) }, at: tokens)
    }.min() ?? 0
  }

  /// Bytes of memory that all threads read per second.
  public var memoryBytesPerSecond: Double {
    memory.max { $0.threads < $1.threads }?.bytesPerSecond.value ?? 0
  }

  /// The same profile with another disk: every rate times `factor`.
  public func scalingDisk(by factor: Double) -> MachineProfile {
    var scaled = self
    for index in scaled.disk.indices where scaled.disk[index].kind != .cached {
      scaled.disk[index].bytesPerSecond.value *= factor
      scaled.disk[index].burstSeconds.value /= factor
    }
    return scaled
  }

  /// The same profile with a processor and memory that are faster by `factor`.
  ///
  /// - Parameter rest: the same for what layers and tokens take beside products; nil: as much.
  public func scalingCompute(by factor: Double, rest: Double? = nil) -> MachineProfile {
    let rest = rest ?? factor
    var scaled = self
    for index in scaled.products.indices { scaled.products[index].bytesPerSecond.value *= factor }
    for index in scaled.disk.indices where scaled.disk[index].kind == .cached {
      scaled.disk[index].bytesPerSecond.value *= factor
      scaled.disk[index].burstSeconds.value /= factor
    }
    scaled.contextBytesPerSecond.value *= factor
    scaled.promptContextBytesPerSecond.value *= factor
    scaled.promptValueSeconds.value /= factor
    scaled.layerSeconds.value /= rest
    scaled.tokenSeconds.value /= rest
    scaled.samplingSeconds.value /= rest
    scaled.handInSeconds.value /= rest
    scaled.readHandInSeconds.value /= rest
    scaled.predictionSeconds.value /= rest
    return scaled
  }
}

extension DiskRate {
  /// Bytes per second from handing in the reads until the last is done.
  var burstBytesPerSecond: Double { Double(blockBytes * depth) / burstSeconds.value }
}

/// The value at `x` of what goes through `points`, which ascend: straight lines between the logarithms of
/// both; beyond the ends, the end's.
func interpolate(_ points: [(x: Double, y: Double)], at x: Double) -> Double {
  guard let first = points.first, let last = points.last else { return 0 }
  if x <= first.x { return first.y }
  if x >= last.x { return last.y }
  let index = points.firstIndex { $0.x >= x }!
  let (low, high) = (points[index - 1], points[index])
  let share = (log(x) - log(low.x)) / (log(high.x) - log(low.x))
  return exp(log(low.y) * (1 - share) + log(high.y) * share)
}

internal import Checkpoints
internal import ExpertRuntime
internal import Models
public import Placement
internal import Routing
internal import Tensors

extension MoEModel {
  /// Measures what decoding with this model takes here, in some seconds: it decodes tokens whose experts
  /// are chosen so that some layers find all of theirs resident, some miss one and some miss all, and
  /// looks for the figures with which the simulation takes as long.
  ///
  /// Afterwards other experts are resident than before.
  ///
  /// - Parameters:
  ///   - options: those the model was made with.
  ///   - positions: the positions of the context that a measured token looks back on.
  /// - Throws: `RuntimeError.read` or what `ModelFile.measureDisk` throws.
  public func measureProfile(
    _ options: ModelOptions, positions: Int = 64
  ) throws -> HardwareProfile {
    let byteCounts = file.layout.shapes.map(\.byteCount)
    var profile = HardwareProfile(
      name: "\(configuration.threads) threads, \(configuration.kernels), "
        + "\(configuration.engine), of '\(file.path)'",
      readBytesPerSecond: try file.measureDisk(options).bytesPerSecond, readLatencySeconds: 0,
      computeBytesPerSecond: 1, layerSeconds: 0, tokenSeconds: 0)
    let sampler = RoutingSampler(transformer)
    transformer.forceRouting = { layer, routing in sampler.route(layer, &routing) }
    defer { transformer.forceRouting = nil }
    let position = min(positions, transformer.cache.capacity) - 1
    var rest: (layers: [Double], whole: [Double]) = ([], [])
    for token in 0..<Self.measuredTokenCount {
      sampler.begin(token: token)
      let isWhole = token % 2 == 0
      let seconds = try timedToken(at: position, logits: isWhole ? .last : .none)
      let beside = seconds - sampler.end()
      if isWhole { rest.whole.append(beside) } else { rest.layers.append(beside) }
    }
    let layers = mean(rest.layers)!
    profile.layerSeconds = layers / Double(transformer.runtime.layerCount)
    profile.tokenSeconds = max(0, mean(rest.whole)! - layers)
    let expert = byteCounts.reduce(0, +) / byteCounts.count
    sampler.fit(&profile, expertByteCount: expert)
    return profile
  }

  /// Five rounds of every number of misses, with and without the output head.
  private static var measuredTokenCount: Int { 5 * 2 * RoutingSampler.kindCount }
}

/// The mean, as tokens per second are a mean too: what disturbs a machine now and then counts.
private func mean(_ values: [Double]) -> Double? {
  values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
}

/// Chooses experts so that a layer misses as many as wanted, and notes how long it took.
private final class RoutingSampler {
  /// All experts resident, one missed, half, all.
  static let kindCount = 4

  private let runtime: ExpertRuntime
  private var random = SplitMix64(state: 1)
  private var kind = 0
  private var before = RuntimeStatistics()
  private var tokenStart: UInt64 = 0
  private var isFirst = true
  /// Seconds of layers by their number of misses, [0...topK].
  private var seconds: [[Double]]

  init(_ transformer: MoETransformer) {
    runtime = transformer.runtime
    seconds = Array(repeating: [], count: runtime.topK + 1)
  }

  func begin(token: Int) {
    kind = token / 2 % Self.kindCount
    isFirst = true
    tokenStart = runtime.statistics.executionNanoseconds
  }

  /// Chooses the experts of `layer`; the layer before it is done.
  func route(_ layer: Int, _ routing: inout Routing) {
    note()
    let topK = runtime.topK
    let wanted = [0, 1, (topK + 1) / 2, topK][kind]
    let offset = Int(random.next() % UInt64(runtime.expertCount))
    var chosen: (missing: [Int], resident: [Int]) = ([], [])
    for step in 0..<runtime.expertCount {
      let expert = (step + offset) % runtime.expertCount
      if runtime.isResident(ExpertID(layer: layer, expert: expert)) {
        chosen.resident.append(expert)
      } else {
        chosen.missing.append(expert)
      }
    }
    let missing = max(min(wanted, chosen.missing.count), topK - chosen.resident.count)
    routing.removeAll()
    for expert in chosen.missing.prefix(missing) + chosen.resident.prefix(topK - missing) {
      routing.append(expert: expert, weight: 1 / Float(topK))
    }
    before = runtime.statistics
    isFirst = false
  }

  /// The token is done; returns the seconds that its experts took.
  func end() -> Double {
    note()
    return Double(runtime.statistics.executionNanoseconds - tokenStart) / 1e9
  }

  private func note() {
    guard !isFirst else { return }
    let spent = runtime.statistics.subtracting(before)
    seconds[spent.decode.misses].append(Double(spent.executionNanoseconds) / 1e9)
  }

  /// Finds the rates and the latency with which `LayerTimeline` takes as long as was measured: products
  /// from layers without a miss, bandwidth from those that missed all, latency from those that missed
  /// one. What no layer did keeps its value.
  func fit(_ profile: inout HardwareProfile, expertByteCount: Int) {
    let topK = runtime.topK
    func time(_ profile: HardwareProfile, misses: Int) -> Double {
      var timeline = LayerTimeline(profile)
      return timeline.run(hits: topK - misses, misses: misses, byteCount: expertByteCount).seconds
    }
    if let whole = mean(seconds[0]) {
      profile.computeBytesPerSecond = Double(topK * expertByteCount) / whole
    } else {
      // With no room for a layer's experts beside another's, products hide behind reads.
      profile.computeBytesPerSecond = 1e11
    }
    // Each figure is sought with the other as it was found last.
    for _ in 0..<4 {
      if let lone = mean(seconds[1]), topK > 1 {
        profile.readLatencySeconds = Self.seek(0...0.1) { latency in
          var trial = profile
          trial.readLatencySeconds = latency
          return time(trial, misses: 1) < lone
        }
      }
      if let all = mean(seconds[topK]) {
        let secondsPerByte = Self.seek(1e-12...1e-6) { cost in
          var trial = profile
          trial.readBytesPerSecond = 1 / cost
          return time(trial, misses: topK) < all
        }
        profile.readBytesPerSecond = 1 / secondsPerByte
      }
    }
  }

  /// The largest value in `range` for which `isTooSmall` holds, which holds below it.
  private static func seek(
    _ range: ClosedRange<Double>, isTooSmall: (Double) -> Bool
  ) -> Double {
    var (low, high) = (range.lowerBound, range.upperBound)
    for _ in 0..<50 {
      let middle = (low + high) / 2
      if isTooSmall(middle) { low = middle } else { high = middle }
    }
    return low
  }
}

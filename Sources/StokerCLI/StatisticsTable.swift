import Stoker

/// The account of a generation, for people.
struct StatisticsTable {
  private let statistics: RunStatistics

  init(_ statistics: RunStatistics) { self.statistics = statistics }

  var text: String {
    rows.map { name, value in
      name.padding(to: 18) + value
    }.joined(separator: "\n")
  }

  private var rows: [(String, String)] {
    let s = statistics
    var rows: [(String, String)] = [
      ("prompt", "\(s.promptTokens) tokens, first token after \(seconds(s.timeToFirstToken))"),
      (
        "decode",
        "\(s.decodeSeconds.count) tokens, \(rate(s.tokensPerSecond)); per token mean "
          + "\(milliseconds(s.meanDecodeSeconds)), p50 "
          + "\(milliseconds(s.decodeSeconds(atPercentile: 0.5))), p95 "
          + milliseconds(s.decodeSeconds(atPercentile: 0.95))
      ),
      ("experts, prefill", accesses(s.experts.prefill)),
      ("experts, decode", accesses(s.experts.decode) + perToken),
      ("disk", disk),
      (
        "time",
        "\(seconds(s.totalSeconds)): compute \(share(s.computeSeconds)), waiting for disk "
          + "\(share(s.diskWaitSeconds)), other \(share(s.otherSeconds))"
          + (s.experts.verificationNanoseconds == 0
            ? ""
            : "; of these \(share(Double(s.experts.verificationNanoseconds) / 1e9)) comparing checksums")
      ),
      ("memory", "peak \(formatBytes(s.peakResidentByteCount)) of \(formatBytes(s.memoryBudget))"),
    ]
    for entry in s.memory { rows.append(("  \(entry.name)", formatBytes(entry.byteCount))) }
    let c = s.configuration
    rows += [
      (
        "slots",
        "\(c.slots) for \(c.experts) experts, \(c.slotMemory) bytes\(c.hugePages ? ", huge pages" : "")"
      ),
      ("policy", c.policy),
      ("prefetch", prefetch),
      ("history", history),
      ("kernels", "\(c.kernels), \(c.threads) \(c.threads == 1 ? "thread" : "threads")"),
      (
        "read engine",
        "\(c.engine), \(c.direct ? "direct" : "buffered")"
          + (c.registeredBuffers ? ", registered buffers" : "")
          + (c.registeredFiles ? ", registered files" : "")
      ),
      ("context", "\(c.context) tokens, \(c.keyValueType) keys and values"),
      ("fallbacks", c.fallbacks.isEmpty ? "none" : c.fallbacks.joined(separator: "; ")),
    ]
    if s.experts.totalPrefetch.issued.byteCount > 0 {
      let place = rows.firstIndex { $0.0 == "prefetch" }!
      rows.insert(("  needed, by layer", byLayer(\.accuracy)), at: place + 1)
      rows.insert(("  in time of that", byLayer(\.timeliness)), at: place + 2)
    }
    if s.cancelled { rows.append(("ended", "on request, before it was done")) }
    return rows
  }

  private var perToken: String {
    statistics.readBytesPerToken.map { "; \(formatBytes(Int($0))) read per token" } ?? ""
  }

  private var prefetch: String {
    let c = statistics.configuration
    guard let predictor = c.predictor else { return "off" }
    let ledger = statistics.experts.totalPrefetch
    func share(_ value: Double?) -> String { value.map(percent) ?? "-" }
    guard ledger.issued.byteCount > 0 else {
      return "\(predictor.rawValue), \(c.stagingSlots) staging slots; nothing read ahead"
    }
    return "\(predictor.rawValue), \(c.stagingSlots) staging slots; "
      + "\(formatBytes(ledger.issued.byteCount)) read ahead, \(share(ledger.accuracy)) needed, "
      + "\(share(ledger.timeliness)) of that in time"
  }

  /// A share of each layer's ledger, in percent.
  private func byLayer(_ share: (PrefetchLedger) -> Double?) -> String {
    statistics.experts.prefetch.map { ledger in
      share(ledger).map { formatFixed(100 * $0, digits: 0) } ?? "-"
    }.joined(separator: " ") + " %"
  }

  private var history: String {
    let c = statistics.configuration
    guard let tokens = c.historyTokens else { return "none" }
    let filled = statistics.experts.filled
    return
      "of \(Int(tokens)) tokens; \(filled.count) experts, \(formatBytes(filled.byteCount)), read into "
      + "free slots while the disk was idle"
  }

  private var disk: String {
    guard let bandwidth = statistics.experts.diskBandwidth else {
      return statistics.experts.preloadedByteCount > 0 ? "every expert resident" : "nothing read"
    }
    return "\(formatBytes(Int(bandwidth)))/s while reading"
  }

  private func accesses(_ value: RuntimeStatistics.Accesses) -> String {
    guard let rate = value.hitRate else { return "none" }
    return "\(value.hits) hits, \(value.misses) misses "
      + "(\(formatFixed(100 * rate, digits: 1)) % hit), "
      + "\(formatBytes(value.demandedByteCount)) demanded"
  }

  private func seconds(_ value: Double?) -> String {
    value.map { "\(formatFixed($0, digits: 3)) s" } ?? "-"
  }

  private func rate(_ value: Double?) -> String {
    value.map { "\(formatFixed($0, digits: 2)) tokens/s" } ?? "-"
  }

  private func share(_ value: Double) -> String {
    guard statistics.totalSeconds > 0 else { return "-" }
    return "\(formatFixed(100 * value / statistics.totalSeconds, digits: 1)) %"
  }
}

extension String {
  /// The string, followed by spaces up to `width`.
  func padding(to width: Int) -> String {
    self + String(repeating: " ", count: max(1, width - count))
  }
}

/// The account of a generation as JSON: the statistics and what follows from them.
struct StatisticsReport: Encodable {
  let run: RunStatistics
  let tokensPerSecond: Double?
  let tpotMeanSeconds: Double?
  let tpotP50Seconds: Double?
  let tpotP95Seconds: Double?
  let decodeHitRate: Double?
  let prefillHitRate: Double?
  let readBytesPerToken: Double?
  let diskBytesPerSecond: Double?
  let otherSeconds: Double

  init(_ run: RunStatistics) {
    self.run = run
    tokensPerSecond = run.tokensPerSecond
    tpotMeanSeconds = run.meanDecodeSeconds
    tpotP50Seconds = run.decodeSeconds(atPercentile: 0.5)
    tpotP95Seconds = run.decodeSeconds(atPercentile: 0.95)
    decodeHitRate = run.experts.decode.hitRate
    prefillHitRate = run.experts.prefill.hitRate
    readBytesPerToken = run.readBytesPerToken
    diskBytesPerSecond = run.experts.diskBandwidth
    otherSeconds = run.otherSeconds
  }
}

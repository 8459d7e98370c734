extension Report {
  /// Two tables, ready for Benchmarks/README.md.
  var markdown: String {
    let threadsText = threads == 1 ? "1 thread" : "\(threads) threads"
    var lines = [
      "Processor: \(processor), \(threadsText); medians of \(rounds) interleaved repetitions.", "",
      "Decode: GB/s of weights, and their share of what reading the same memory reaches.", "",
    ]
    lines += decodeTable
    lines += [
      "",
      "Prefill: GFLOP/s by tokens multiplied together, \(threadsText); bold: the best of its type. "
        + "sgemm is OpenBLAS on float weights, one BLAS thread for each slice of rows, a slice "
        + "for each thread\(squareText).", "",
    ]
    lines += prefillTable
    return lines.joined(separator: "\n")
  }

  private var squareText: String {
    squareSgemm.map {
      "; of \($0.rows) x \($0.columns) by \($0.tokens) tokens it reaches "
        + "\(fixed($0.operationsPerSecond.median / 1e9, digits: 0)) GFLOP/s"
    }.joined()
  }

  private var decodeTable: [String] {
    let threadCounts = threads == 1 ? [1] : [1, threads]
    let columns = threadCounts.flatMap { count -> [String] in
      let name = count == 1 ? "1 thread" : "\(count) threads"
      return ["\(name): GB/s", "memory reads GB/s", "share"]
    }
    var lines = table(header: ["type", "kernels"] + columns)
    for type in unique(decode.map(\.type)) {
      for set in kernelSets {
        var cells = [type, set]
        for count in threadCounts {
          guard
            let row = decode.first(where: {
              $0.type == type && $0.kernels == set && $0.threads == count
            }),
            let read = memoryReads.first(where: { $0.type == type && $0.threads == count })
          else { continue }
          cells += [
            fixed(row.bytesPerSecond.median / 1e9, digits: 1),
            fixed(read.bytesPerSecond.median / 1e9, digits: 1), fixed(row.shareOfRead, digits: 2),
          ]
        }
        lines.append(line(cells))
      }
    }
    return lines
  }

  private var prefillTable: [String] {
    let tokenCounts = unique(prefill.map(\.tokens))
    var lines = table(header: ["type", "kernels"] + tokenCounts.map { "\($0)" })
    for type in unique(prefill.map(\.type)) {
      let rows = prefill.filter { $0.type == type }
      for kernels in unique(rows.map(\.kernels)) {
        var cells = [type, kernels]
        for tokens in tokenCounts {
          let rivals = rows.filter { $0.tokens == tokens }
          let rate = rivals.first { $0.kernels == kernels }?.operationsPerSecond.median ?? 0
          // sgemm reads weights that somebody has already made floats: no choice but for F32.
          let best = rivals.filter { type == "F32" || $0.kernels != "sgemm" }
            .map(\.operationsPerSecond.median).max()
          let text = fixed(rate / 1e9, digits: rate < 1e10 ? 1 : 0)
          cells.append(rate == best ? "**\(text)**" : text)
        }
        lines.append(line(cells))
      }
    }
    return lines
  }
}

private func table(header: [String]) -> [String] {
  [line(header), "|" + String(repeating: "---|", count: header.count)]
}

private func line(_ cells: [String]) -> String { "| " + cells.joined(separator: " | ") + " |" }

/// The different values, in the order of their first occurrence.
private func unique<Value: Hashable>(_ values: [Value]) -> [Value] {
  var seen: Set<Value> = []
  return values.filter { seen.insert($0).inserted }
}

/// A number of at least 0 with `digits` places after the point.
private func fixed(_ value: Double, digits: Int) -> String {
  var scale = 1
  for _ in 0..<digits { scale *= 10 }
  let units = Int((value * Double(scale)).rounded())
  guard digits > 0 else { return "\(units)" }
  let fraction = "\(units % scale)"
  return "\(units / scale)." + String(repeating: "0", count: digits - fraction.count) + fraction
}

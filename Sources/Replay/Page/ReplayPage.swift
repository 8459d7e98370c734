package import Routing

/// A replay as one page of HTML that needs nothing else: no script, no network.
package struct ReplayPage {
  private var sections = ""

  package init() {}

  /// Adds what a comparison over `trace`, which users call `name`, came to.
  ///
  /// - Parameter machine: the machine that tokens were timed on, in words.
  package mutating func append(
    _ rows: [ReplayRow], of trace: TraceSource, name: String, machine: String? = nil
  ) throws {
    let header = trace.header
    let geometry = header.geometry
    let gibibyte = Double(1 << 30)
    let isSmall = Double(geometry.totalByteCount) < gibibyte
    let unit = isSmall ? (name: "MiB", bytes: Double(1 << 20)) : (name: "GiB", bytes: gibibyte)
    let profile = try ReuseProfile(trace)
    sections += "<section><h2>\(escaped(name))</h2><p class=\"lead\">"
    sections +=
      "\(escaped(header.model)): \(geometry.layerCount) layers of \(geometry.expertCount) experts, "
      + "top-\(geometry.topK); all experts take "
      + "\(figure(Double(geometry.totalByteCount) / unit.bytes, digits: 2)) \(unit.name), those of one "
      + "token \(figure(Double(geometry.tokenByteCount) / unit.bytes, digits: 2)) \(unit.name)."
    if let workload = header.workload.isEmpty ? nil : header.workload {
      sections += " Workload: \(escaped(workload))."
    }
    sections += "</p><div class=\"charts\">"
    func lines(_ value: (ReplayRow) -> Double?) -> [LineChart.Line] {
      var policies: [String] = []
      for row in rows where !policies.contains(row.policy) { policies.append(row.policy) }
      return policies.enumerated().map { index, policy in
        let points = rows.filter { $0.policy == policy }.compactMap { row in
          value(row).map { (x: Double(row.capacityBytes) / unit.bytes, y: $0) }
        }
        return LineChart.Line(
          name: policy, color: policy == "min" ? 0 : 1 + index % 9, isCeiling: policy == "min",
          points: points.sorted { $0.x < $1.x })
      }.filter { !$0.points.isEmpty }
    }
    let xLabel = "\(unit.name) of memory for experts"
    sections +=
      LineChart(
        title: "Hit rate", xLabel: xLabel,
        yLabel: "Needed experts that were in memory; MIN, which knows the future, is the ceiling.",
        unit: "%", lines: lines { 100 * $0.hitRate }
      ).html
    if rows.contains(where: { $0.times != nil }) {
      sections +=
        LineChart(
          title: "Predicted tokens per second", xLabel: xLabel,
          yLabel: "Decoding, simulated on \(machine ?? "a given machine").", unit: "",
          lines: lines { $0.times?.tokensPerSecond }
        ).html
    } else {
      sections +=
        LineChart(
          title: "Read per token", xLabel: xLabel,
          yLabel: "MiB of missed experts per token; give a machine to see tokens per second.",
          unit: "", lines: lines { $0.bytesPerToken / Double(1 << 20) }
        ).html
    }
    let uses = profile.distances.reduce(profile.firstUses, +)
    sections +=
      BarChart(
        title: "Reuse distance",
        subtitle: "How many tokens ago an expert was used last at its layer; share of all uses.",
        xLabel: "tokens since the last use",
        bars: profile.distances.enumerated().map { index, count in
          (ReuseProfile.label(ofBin: index), Double(count) / Double(max(1, uses)))
        } + [("first", Double(profile.firstUses) / Double(max(1, uses)))]
      ).html
    sections +=
      HeatMap(
        title: "Use of experts",
        subtitle: "Each layer's own scale: dark is its most used expert, empty was never used.",
        uses: profile.uses
      ).html
    sections += "</div>\(Self.table(rows, unit: unit))</section>"
  }

  private static func table(
    _ rows: [ReplayRow], unit: (name: String, bytes: Double)
  ) -> String {
    let isTimed = rows.contains { $0.times != nil }
    var head = ["policy", "memory (\(unit.name))", "hit rate", "MiB per token", "gap to MIN"]
    if isTimed { head += ["tokens/s", "TPOT p50 (ms)", "p95", "p99", "stall"] }
    var text = "<div class=\"scroll\"><table><thead><tr>"
    text += head.map { "<th>\($0)</th>" }.joined() + "</tr></thead><tbody>"
    for row in rows {
      var cells = [
        row.policy, fixed(Double(row.capacityBytes) / unit.bytes, digits: 2),
        fixed(100 * row.hitRate, digits: 1) + " %",
        fixed(row.bytesPerToken / Double(1 << 20), digits: 2),
        row.gapToMIN.map { fixed($0, digits: 3) } ?? "–",
      ]
      if isTimed {
        cells += [
          row.times.map { fixed($0.tokensPerSecond, digits: 2) },
          row.times.map { fixed(1e3 * $0.tpotP50Seconds, digits: 2) },
          row.times.map { fixed(1e3 * $0.tpotP95Seconds, digits: 2) },
          row.times.map { fixed(1e3 * $0.tpotP99Seconds, digits: 2) },
          row.stallShare.map { fixed(100 * $0, digits: 1) + " %" },
        ].map { $0 ?? "–" }
      }
      text += "<tr>" + cells.map { "<td>\(escaped($0))</td>" }.joined() + "</tr>"
    }
    return text + "</tbody></table></div>"
  }

  /// The page.
  package var html: String {
    """
    <!DOCTYPE html>
    <html lang="en"><head><meta charset="utf-8"/>
    <meta name="viewport" content="width=device-width, initial-scale=1"/>
    <title>Stoker replay</title><style>\(Self.style)</style></head>
    <body><header><h1>Routing traces through cache policies</h1>
    <p>Simulated by <code>stoker replay</code>. Residency is settled when a layer begins: needed \
    experts are classified, read, kept, and only then do others make room.</p></header>
    \(sections)</body></html>

    """
  }

  static let style = """
    :root{--ink:#1c2430;--soft:#5d6b7c;--rule:#dfe4ea;--paper:#fff;--cold:#f1f4f7;
    --c0:#1c2430;--c1:#c2410c;--c2:#1d6fb8;--c3:#2e8540;--c4:#7c3aed;--c5:#b8860b;--c6:#0e8a92;
    --c7:#c02670;--c8:#6b7280;--c9:#84500f;--heat:194,65,12}
    @media(prefers-color-scheme:dark){:root{--ink:#e8ecf1;--soft:#9aa7b6;--rule:#313a46;
    --paper:#161b22;--cold:#1d242d;--c0:#e8ecf1;--c1:#fb8a4c;--c2:#5eb0f0;--c3:#63c477;--c4:#b196ff;
    --c5:#e3b341;--c6:#45c5ce;--c7:#f27bb0;--c8:#a3acb8;--c9:#d29b5a;--heat:251,138,76}}
    *{box-sizing:border-box}
    body{margin:0 auto;max-width:1180px;padding:24px 16px 48px;background:var(--paper);
    color:var(--ink);font:16px/1.5 system-ui,sans-serif}
    h1{font-size:1.6rem;line-height:1.2;margin:0 0 8px}h2{font-size:1.2rem;margin:40px 0 4px;
    overflow-wrap:anywhere}h3{font-size:1rem;margin:0}
    header p,.lead{color:var(--soft);margin:0 0 16px;max-width:70ch;overflow-wrap:anywhere}
    .charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:28px}
    figure{margin:0;min-width:0}figcaption p{margin:0 0 8px;color:var(--soft);font-size:.875rem}
    svg{display:block;width:100%;height:auto}
    .grid{stroke:var(--rule);fill:none}.tick,.axis{fill:var(--soft);font-family:inherit}
    svg .tick:not([font-size]),svg .axis:not([font-size]){font-size:12px}
    .line{fill:none;stroke:var(--c);stroke-width:2}.line.ceiling{stroke-dasharray:5 4;stroke-width:1.5}
    .dot{fill:var(--c)}.bar{fill:var(--c2)}.cold{fill:var(--cold)}
    \((0...9).map { ".c\($0){--c:var(--c\($0))}" }.joined())
    \((0..<8).map { ".h\($0){fill:rgba(var(--heat),\(figure(0.16 + 0.12 * Double($0), digits: 2)))}" }.joined())
    .legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;margin:8px 0 0;padding:0;
    font-size:.875rem}.legend i{display:inline-block;width:18px;border-top:3px solid var(--c);
    margin-right:6px;vertical-align:middle}.legend .ceiling i{border-top-style:dashed}
    .scroll{overflow-x:auto;margin-top:28px}table{border-collapse:collapse;font-size:.875rem;
    font-variant-numeric:tabular-nums;min-width:100%}th,td{padding:4px 12px 4px 0;text-align:right;
    border-bottom:1px solid var(--rule);white-space:nowrap}th:first-child,td:first-child{text-align:left}
    """
}

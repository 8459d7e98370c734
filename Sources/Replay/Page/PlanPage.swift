/// A sweep of plans as one page of HTML that needs nothing else.
package struct PlanPage {
  /// A plan at one value of what is swept.
  package struct Point: Sendable {
    let x: Double
    let tokensPerSecond: Double
    let bound: Double
    let hitRate: Double
    let firstTokenSeconds: Double
    let isKnee: Bool

    package init(
      x: Double, tokensPerSecond: Double, bound: Double, hitRate: Double,
      firstTokenSeconds: Double, isKnee: Bool
    ) {
      self.x = x
      self.tokensPerSecond = tokensPerSecond
      self.bound = bound
      self.hitRate = hitRate
      self.firstTokenSeconds = firstTokenSeconds
      self.isKnee = isKnee
    }
  }

  private let title: String
  private let lead: String
  private let xLabel: String
  private let points: [Point]
  private let table: (head: [String], rows: [[String]])

  /// - Parameters:
  ///   - lead: the machine and where the hits come from, in words.
  ///   - xLabel: the unit of the points' x.
  package init(
    title: String, lead: String, xLabel: String, points: [Point],
    table: (head: [String], rows: [[String]])
  ) {
    self.title = title
    self.lead = lead
    self.xLabel = xLabel
    self.points = points
    self.table = table
  }

  private func line(
    _ name: String, _ color: Int, isCeiling: Bool = false, _ value: (Point) -> Double
  ) -> LineChart.Line {
    LineChart.Line(
      name: name, color: color, isCeiling: isCeiling, points: points.map { ($0.x, value($0)) })
  }

  /// The page.
  package var html: String {
    var lines = [
      line("if all overlapped", 0, isCeiling: true, \.bound),
      line("predicted", 1, \.tokensPerSecond),
    ]
    if let knee = points.first(where: \.isKnee) {
      lines.append(
        LineChart.Line(
          name: "the knee: beyond, more brings less", color: 4, isCeiling: false,
          points: [(knee.x, 0), (knee.x, knee.tokensPerSecond)]))
    }
    let charts = [
      LineChart(
        title: "Tokens per second", xLabel: xLabel, yLabel: "Decoding, predicted.", unit: "",
        lines: lines),
      LineChart(
        title: "Hit rate", xLabel: xLabel, yLabel: "Experts of a token that are in memory.",
        unit: "%", lines: [line("predicted", 2) { 100 * $0.hitRate }]),
      LineChart(
        title: "First token", xLabel: xLabel,
        yLabel: "Seconds until the first token after the prompt.",
        unit: " s", lines: [line("predicted", 3, \.firstTokenSeconds)]),
    ]
    let head = table.head.map { "<th>\(escaped($0))</th>" }.joined()
    let rows = table.rows.map { row in
      "<tr>" + row.map { "<td>\(escaped($0))</td>" }.joined() + "</tr>"
    }.joined()
    return """
      <!DOCTYPE html>
      <html lang="en"><head><meta charset="utf-8"/>
      <meta name="viewport" content="width=device-width, initial-scale=1"/>
      <title>Stoker plan</title><style>\(ReplayPage.style)</style></head>
      <body><header><h1>\(escaped(title))</h1><p>\(escaped(lead)) Made by <code>stoker plan</code>.</p>
      </header><div class="charts">\(charts.map(\.html).joined())</div>
      <div class="scroll"><table><thead><tr>\(head)</tr></thead><tbody>\(rows)</tbody></table></div>
      </body></html>

      """
  }
}

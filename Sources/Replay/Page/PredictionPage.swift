/// Recall of predictors by layer as one page of HTML that needs nothing else.
package struct PredictionPage {
  /// A predictor at a distance.
  package struct Row: Sendable {
    let name: String
    let distance: Int
    let recall: Double?
    /// [layers]; nil where nothing is predicted.
    let layers: [Double?]

    package init(name: String, distance: Int, recall: Double?, layers: [Double?]) {
      self.name = name
      self.distance = distance
      self.recall = recall
      self.layers = layers
    }
  }

  private let subject: String
  private let rows: [Row]

  /// - Parameter subject: what was predicted, in words.
  package init(subject: String, rows: [Row]) {
    self.subject = subject
    self.rows = rows
  }

  /// The page.
  package var html: String {
    let layerCount = rows.map(\.layers.count).max() ?? 0
    var table = "<div class=\"scroll\"><table class=\"heat\"><thead><tr><th>predictor</th>"
    table += "<th>distance</th><th>all</th>"
    table += (0..<layerCount).map { "<th>\($0)</th>" }.joined() + "</tr></thead><tbody>"
    for row in rows {
      table += "<tr><td>\(escaped(row.name))</td><td>\(row.distance)</td>\(Self.cell(row.recall))"
      table += row.layers.map(Self.cell).joined() + "</tr>"
    }
    return """
      <!DOCTYPE html>
      <html lang="en"><head><meta charset="utf-8"/>
      <meta name="viewport" content="width=device-width, initial-scale=1"/>
      <title>Stoker predict-eval</title><style>\(ReplayPage.style)\(Self.style)</style></head>
      <body><header><h1>Predicted routing: \(escaped(subject))</h1>
      <p>The share of the experts that the router chose among as many likeliest predicted, by layer, in \
      percent. Distance 0 is before the attention of the layer itself; the control is the router on its \
      true input. Made by <code>stoker predict-eval</code>.</p></header>
      \(table)</tbody></table></div></body></html>

      """
  }

  private static func cell(_ value: Double?) -> String {
    guard let value else { return "<td></td>" }
    // Half of the scale is below one half: the differences are above.
    let shade = figure(max(0.04, min(0.85, value * value * 0.85)), digits: 2)
    return
      "<td style=\"background:rgba(var(--heat),\(shade))\">\(fixed(100 * value, digits: 0))</td>"
  }

  private static let style = """
    .heat td,.heat th{padding:4px 6px;text-align:right}
    .heat td:first-child,.heat th:first-child{padding-right:12px;text-align:left}
    """
}

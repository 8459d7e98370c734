/// Numbers in pages: few digits, no exponent.
func figure(_ value: Double, digits: Int = 1) -> String {
  guard value.isFinite, abs(value) < 1e15 else { return "–" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let scaled = (value * scale).rounded() / scale
  return scaled == scaled.rounded() ? "\(Int(scaled))" : "\(scaled)"
}

/// A number with as many digits as the others of its column.
func fixed(_ value: Double, digits: Int) -> String {
  var text = figure(value, digits: digits)
  guard text.last?.isNumber == true, digits > 0 else { return text }
  if !text.contains(".") { text += "." }
  let present = text.distance(from: text.firstIndex(of: ".")!, to: text.endIndex) - 1
  return text + String(repeating: "0", count: max(0, digits - present))
}

/// Text as HTML shows it.
func escaped(_ text: String) -> String {
  var result = ""
  for character in text {
    switch character {
    case "&": result += "&amp;"
    case "<": result += "&lt;"
    case ">": result += "&gt;"
    case "\"": result += "&quot;"
    default: result.append(character)
    }
  }
  return result
}

/// Lines over a common axis, as SVG.
struct LineChart {
  struct Line {
    let name: String
    /// A colour of the page's palette.
    let color: Int
    /// A ceiling is dashed and thin.
    let isCeiling: Bool
    let points: [(x: Double, y: Double)]
  }

  let title: String
  let xLabel: String
  let yLabel: String
  /// Added to the numbers on the y axis.
  let unit: String
  let lines: [Line]

  private static let (width, height) = (460.0, 300.0)
  private static let (left, right, top, bottom) = (48.0, 12.0, 14.0, 42.0)

  var svg: String {
    let xTop = Self.niceLimit(lines.flatMap(\.points).map(\.x).max() ?? 1)
    let yTop = unit == "%" ? 100 : Self.niceLimit(lines.flatMap(\.points).map(\.y).max() ?? 1)
    func place(_ x: Double, _ y: Double) -> (String, String) {
      (
        figure(Self.left + x / xTop * (Self.width - Self.left - Self.right)),
        figure(Self.height - Self.bottom - y / yTop * (Self.height - Self.top - Self.bottom))
      )
    }
    var text =
      "<svg viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" role=\"img\" "
      + "aria-label=\"\(escaped(title))\">"
    for step in 0...4 {
      let value = yTop * Double(step) / 4
      let (x, y) = place(0, value)
      let (end, _) = place(xTop, value)
      text += "<path class=\"grid\" d=\"M\(x) \(y)H\(end)\"/>"
      text +=
        "<text class=\"tick\" text-anchor=\"end\" x=\"\(figure(Self.left - 6))\" y=\"\(y)\" "
        + "dy=\"4\">\(figure(value, digits: yTop < 4 ? 2 : 1))\(unit)</text>"
    }
    for step in 0...4 {
      let value = xTop * Double(step) / 4
      let (x, y) = place(value, 0)
      text +=
        "<text class=\"tick\" text-anchor=\"middle\" x=\"\(x)\" y=\"\(y)\" dy=\"16\">"
        + "\(figure(value, digits: xTop < 4 ? 2 : 1))</text>"
    }
    text +=
      "<text class=\"axis\" text-anchor=\"middle\" x=\"\(figure((Self.left + Self.width) / 2))\" "
      + "y=\"\(figure(Self.height - 6))\">\(escaped(xLabel))</text>"
    for line in lines {
      let path = line.points.enumerated().map { index, point in
        let (x, y) = place(point.x, point.y)
        return "\(index == 0 ? "M" : "L")\(x) \(y)"
      }.joined()
      let style = line.isCeiling ? "line ceiling" : "line"
      text += "<path class=\"\(style) c\(line.color)\" d=\"\(path)\"/>"
      for point in line.points {
        let (x, y) = place(point.x, point.y)
        text +=
          "<circle class=\"dot c\(line.color)\" cx=\"\(x)\" cy=\"\(y)\" r=\"3\"><title>"
          + "\(escaped(line.name)), \(figure(point.x, digits: 2)) \(escaped(xLabel)): "
          + "\(figure(point.y, digits: 2))\(unit)</title></circle>"
      }
    }
    return text + "</svg>"
  }

  /// The figure: heading, chart and legend.
  var html: String {
    let legend = lines.map { line in
      "<li class=\"c\(line.color)\(line.isCeiling ? " ceiling" : "")\"><i></i>"
        + "\(escaped(line.name))</li>"
    }.joined()
    return "<figure><figcaption><h3>\(escaped(title))</h3><p>\(escaped(yLabel))</p></figcaption>"
      + svg + "<ul class=\"legend\">\(legend)</ul></figure>"
  }

  /// 1, 2 or 5 times a power of ten, or a step between, no less than `value`.
  private static func niceLimit(_ value: Double) -> Double {
    guard value > 0, value.isFinite else { return 1 }
    var unit = 1.0
    while unit * 10 <= value { unit *= 10 }
    while unit > value { unit /= 10 }
    return [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10].map { $0 * unit }.first { $0 >= value }
      ?? 10 * unit
  }
}

/// Bars side by side, as SVG.
struct BarChart {
  let title: String
  let subtitle: String
  let xLabel: String
  /// Shares, from 0 to 1.
  let bars: [(label: String, share: Double)]

  var html: String {
    let (width, height, base, top) = (460.0, 260.0, 46.0, 20.0)
    let most = max(bars.map(\.share).max() ?? 0, 1e-9)
    let step = (width - 16) / Double(max(1, bars.count))
    var svg =
      "<svg viewBox=\"0 0 \(Int(width)) \(Int(height))\" role=\"img\" "
      + "aria-label=\"\(escaped(title))\">"
    for (index, bar) in bars.enumerated() {
      let tall = bar.share / most * (height - base - top)
      let x = 8 + Double(index) * step
      let y = height - base - tall
      svg +=
        "<rect class=\"bar\" x=\"\(figure(x + step * 0.1))\" y=\"\(figure(y))\" "
        + "width=\"\(figure(step * 0.8))\" height=\"\(figure(tall))\"/>"
        + "<text class=\"tick\" text-anchor=\"middle\" x=\"\(figure(x + step / 2))\" "
        + "y=\"\(figure(y - 5))\">\(figure(100 * bar.share, digits: bar.share < 0.1 ? 1 : 0))%</text>"
        + "<text class=\"tick\" text-anchor=\"middle\" x=\"\(figure(x + step / 2))\" "
        + "y=\"\(figure(height - base + 15))\">\(escaped(bar.label))</text>"
    }
    svg +=
      "<text class=\"axis\" text-anchor=\"middle\" x=\"\(figure(width / 2))\" "
      + "y=\"\(figure(height - 8))\">\(escaped(xLabel))</text></svg>"
    return "<figure><figcaption><h3>\(escaped(title))</h3><p>\(escaped(subtitle))</p></figcaption>"
      + svg + "</figure>"
  }
}

/// A cell for every expert of every layer, the darker the more it is used.
struct HeatMap {
  let title: String
  let subtitle: String
  /// [layers][experts].
  let uses: [[Int]]

  private static let levels = 8

  var html: String {
    let experts = uses.first?.count ?? 0
    let cellHeight = max(1, min(6, experts / max(1, uses.count)))
    let (margin, foot) = (Double(experts) * 0.06, Double(experts) * 0.07)
    let height = Double(uses.count * cellHeight)
    var paths = Array(repeating: "", count: Self.levels)
    for (layer, row) in uses.enumerated() {
      let most = row.max() ?? 0
      guard most > 0 else { continue }
      for (expert, count) in row.enumerated() where count > 0 {
        // The root spreads the many little used ones.
        let level = (Double(count) / Double(most)).squareRoot() * Double(Self.levels)
        paths[min(Self.levels - 1, Int(level))] +=
          "M\(expert) \(layer * cellHeight)h1v\(cellHeight)h-1z"
      }
    }
    let top = Double(experts) * 0.03
    let font = "font-size=\"\(figure(Double(experts) * 0.03, digits: 2))\""
    var svg =
      "<svg viewBox=\"\(figure(-margin, digits: 2)) 0 \(figure(Double(experts) + margin, digits: 2)) "
      + "\(figure(height + foot, digits: 2))\" role=\"img\" aria-label=\"\(escaped(title))\">"
      + "<rect class=\"cold\" width=\"\(experts)\" height=\"\(Int(height))\"/>"
    for (level, path) in paths.enumerated() where !path.isEmpty {
      svg += "<path class=\"h\(level)\" d=\"\(path)\"/>"
    }
    for (label, layer) in [("0", top), ("\(uses.count - 1)", height)] {
      svg +=
        "<text class=\"tick\" \(font) text-anchor=\"end\" x=\"\(figure(-margin * 0.2, digits: 2))\" "
        + "y=\"\(figure(layer, digits: 2))\">\(label)</text>"
    }
    svg +=
      "<text class=\"axis\" \(font) text-anchor=\"middle\" x=\"\(experts / 2)\" "
      + "y=\"\(figure(height + foot * 0.7, digits: 2))\">experts 0 to \(experts - 1); layers downward"
      + "</text></svg>"
    return "<figure class=\"wide\"><figcaption><h3>\(escaped(title))</h3><p>\(escaped(subtitle))"
      + "</p></figcaption>\(svg)</figure>"
  }
}

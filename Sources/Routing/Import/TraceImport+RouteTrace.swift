extension TraceImport {
  private static let columns: [Substring] = [
    "turn", "phase", "step", "layer", "slot", "expert", "weight",
  ]

  /// Reads `route_trace v1`: a preamble of `# name=value` lines, a line of column names, one row per
  /// (turn, phase, step, layer, slot).
  static func importRouteTrace(_ file: TextFile) throws(TraceError) -> RoutingTrace {
    var facts: [Substring: Substring] = [:]
    var byteCounts: [Int: Int] = [:]
    var reader = RowReader(path: file.path)
    var sawColumns = false
    for (index, bytes) in file.lines.enumerated() where !bytes.isEmpty {
      let line = Substring(decoding: bytes, as: UTF8.self)
      reader.line = index + 1
      if line.first == "#" {
        try readPreamble(line, facts: &facts, byteCounts: &byteCounts, reader: reader)
      } else if !sawColumns {
        let names = line.split(separator: ",", omittingEmptySubsequences: false)
        guard names.starts(with: columns) else {
          throw reader.fail("the column names", String(line), columns.joined(separator: ","))
        }
        reader.columnCount = names.count
        reader.topK = try reader.integer("n_expert_used", facts["n_expert_used"] ?? "")
        sawColumns = true
      } else {
        try reader.read(line)
      }
    }
    return try reader.finish(facts: facts, byteCounts: byteCounts)
  }

  private static func readPreamble(
    _ line: Substring, facts: inout [Substring: Substring], byteCounts: inout [Int: Int],
    reader: RowReader
  ) throws(TraceError) {
    var layer: Int?
    for word in line.dropFirst().split(separator: " ") {
      let pair = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2 else { continue }
      switch pair[0] {
      case "layer": layer = try reader.integer("layer", pair[1])
      case "expert_bytes":
        guard let layer else { throw reader.fail("expert_bytes", "no layer", "layer= before it") }
        let byteCount = try reader.integer("expert_bytes", pair[1])
        guard (1...RoutingGeometry.maximumExpertByteCount).contains(byteCount) else {
          throw reader.fail(
            "expert_bytes", "\(byteCount)", "1 to \(RoutingGeometry.maximumExpertByteCount)")
        }
        byteCounts[layer] = byteCount
      default: facts[pair[0]] = pair[1]
      }
    }
  }

  /// Gathers the rows of a token at a layer, which follow each other in the order of their slots.
  private struct RowReader {
    let path: String
    var line = 0
    var columnCount = 0
    var topK = 0
    private var rows: [(key: [Int], expert: Int, weight: Float, line: Int)] = []

    init(path: String) { self.path = path }

    func fail(_ field: String, _ found: String, _ expected: String) -> TraceError {
      .malformed(path: path, line: line, field: field, found: found, expected: expected)
    }

    func integer(_ field: String, _ text: Substring) throws(TraceError) -> Int {
      guard let value = Int(text), value >= 0 else {
        throw fail(field, "'\(text)'", "a whole number from 0 on")
      }
      return value
    }

    mutating func read(_ line: Substring) throws(TraceError) {
      let fields = line.split(separator: ",", omittingEmptySubsequences: false)
      guard fields.count == columnCount else {
        throw fail("the row", "\(fields.count) columns", "\(columnCount)")
      }
      var key: [Int] = []
      for index in 0..<5 { key.append(try integer(String(columns[index]), fields[index])) }
      guard key[1] < 2 else { throw fail("phase", "\(key[1])", "0 (prefill) or 1 (decode)") }
      let expert = try integer("expert", fields[5])
      guard let weight = Float(fields[6]) else {
        throw fail("weight", "'\(fields[6])'", "a number")
      }
      let slot = key.removeLast()
      let begins = rows.count % max(1, topK) == 0
      guard slot == rows.count % max(1, topK), begins || rows[rows.count - 1].key == key else {
        throw fail("slot", "\(slot)", "slots 0 to \(topK - 1) of each token in order")
      }
      rows.append((key, expert, weight, self.line))
    }

    mutating func finish(
      facts: [Substring: Substring], byteCounts: [Int: Int]
    ) throws(TraceError) -> RoutingTrace {
      let expertCount = try integer("n_expert", facts["n_expert"] ?? "")
      guard (1...RoutingGeometry.maximumExpertCount).contains(expertCount),
        (1...expertCount).contains(topK)
      else { throw fail("n_expert_used", "\(topK) of \(expertCount)", "at most n_expert") }
      guard rows.count % topK == 0 else {
        throw fail("slot", "the end of the file", "slot \(rows.count % topK)")
      }
      let layers = byteCounts.keys.sorted()
      guard (1...RoutingGeometry.maximumLayerCount).contains(layers.count) else {
        throw fail("expert_bytes", "\(layers.count) layers", "a line for each MoE layer")
      }
      var builder = TraceBuilder(path: path, topK: topK, hasWeights: true)
      for first in stride(from: 0, to: rows.count, by: topK) {
        let token = rows[first..<first + topK]
        let (key, line) = (rows[first].key, rows[first].line)
        guard let layer = layers.firstIndex(of: key[3]) else {
          throw .malformed(
            path: path, line: line, field: "layer", found: "\(key[3])",
            expected: "a layer that the preamble gives the expert_bytes of")
        }
        for row in token where row.expert >= expertCount {
          throw .malformed(
            path: path, line: row.line, field: "expert", found: "\(row.expert)",
            expected: "below \(expertCount)")
        }
        try builder.add(
          sequence: key[0], phase: key[1] == 0 ? .prefill : .decode, step: key[2], layer: layer,
          experts: token.map(\.expert), weights: token.map(\.weight), line: line)
      }
      let model = facts["model"].map { String($0.split(separator: "/").last ?? $0) } ?? "unknown"
      let geometry = RoutingGeometry(
        expertCount: expertCount, topK: topK,
        expertByteCounts: layers.map { byteCounts[$0]! })
      return try builder.trace(
        header: TraceHeader(
          model: model, geometry: geometry, provenance: "imported from route_trace v1",
          hasWeights: true))
    }
  }
}

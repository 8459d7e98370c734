extension TraceImport {
  /// Reads ESFT's files, one per MoE layer: a line is a sequence, its tokens' ids tab-separated, then an
  /// empty field, then as many scores (deepseek-ai/ESFT; arXiv 2407.01906). The layers are taken in the
  /// order of the numbers in the files' names, and every token is taken as decoded.
  ///
  /// How many ids are of one token is not in the format: it is 6, DeepSeek-V2-Lite's.
  static func importESFT(
    _ files: [TextFile], options: TraceImportOptions
  ) throws(TraceError) -> RoutingTrace {
    let ordered = files.sorted { layerNumber($0.path) < layerNumber($1.path) }
    var builder = TraceBuilder(path: ordered[0].path, topK: 6, hasWeights: true)
    var tokenCounts: [Int] = []
    for (layer, file) in ordered.enumerated() {
      var sequence = 0
      for (index, bytes) in file.lines.enumerated() where !bytes.isEmpty {
        let tokens = try readSequence(
          bytes, file: file, line: index + 1, layer: layer, sequence: sequence, into: &builder)
        if layer == 0 { tokenCounts.append(tokens) }
        guard sequence < tokenCounts.count, tokenCounts[sequence] == tokens else {
          throw .mismatch(
            path: file.path, other: ordered[0].path,
            reason: "line \(index + 1) has \(tokens) tokens, the same sequence there has not")
        }
        sequence += 1
      }
      guard sequence == tokenCounts.count else {
        throw .mismatch(
          path: file.path, other: ordered[0].path,
          reason: "\(sequence) sequences against \(tokenCounts.count)")
      }
    }
    return try finish(
      builder, model: "DeepSeek-V2-Lite", layerCount: ordered.count, hasWeights: true,
      format: "ESFT", options: options)
  }

  private static func layerNumber(_ path: String) -> Int {
    let name = path.split(separator: "/").last ?? ""
    let digits = name.drop { !$0.isNumber }.prefix { $0.isNumber }
    return Int(digits) ?? 0
  }

  /// Adds the tokens of one line; returns how many there are.
  private static func readSequence(
    _ bytes: ArraySlice<UInt8>, file: TextFile, line: Int, layer: Int, sequence: Int,
    into builder: inout TraceBuilder
  ) throws(TraceError) -> Int {
    let fields = Substring(decoding: bytes, as: UTF8.self)
      .split(separator: "\t", omittingEmptySubsequences: false)
    func fail(_ field: String, _ found: String, _ expected: String) -> TraceError {
      .malformed(path: file.path, line: line, field: field, found: found, expected: expected)
    }
    guard let gap = fields.firstIndex(of: "") else {
      throw fail("the line", "no double tab", "one between ids and scores")
    }
    let scores = gap + 1
    guard gap > 0, gap % builder.topK == 0, fields.count - scores == gap else {
      throw fail(
        "the line", "\(gap) ids and \(fields.count - scores) scores",
        "as many scores as ids, \(builder.topK) of each per token")
    }
    for first in stride(from: 0, to: gap, by: builder.topK) {
      var experts: [Int] = []
      var weights: [Float] = []
      for place in first..<first + builder.topK {
        guard let expert = Int(fields[place]) else {
          throw fail("field \(place + 1)", "'\(fields[place])'", "an expert id")
        }
        guard let weight = Float(fields[scores + place]) else {
          throw fail("field \(scores + place + 1)", "'\(fields[scores + place])'", "a score")
        }
        experts.append(expert)
        weights.append(weight)
      }
      try builder.add(
        sequence: sequence, phase: .decode, step: first / builder.topK, layer: layer,
        experts: experts, weights: weights, line: line)
    }
    return gap / builder.topK
  }
}

internal import Foundation

extension TraceImport {
  /// A token of `{"tok", "layers"}` or `{"seq", "pos", "phase", "experts", "weights"}` lines.
  private struct TokenLine: Decodable {
    let tok: Int?
    let layers: [[Int]]?
    let seq: Int?
    let pos: Int?
    let phase: Phase?
    let experts: [[Int]]?
    let weights: [[Float]]?
  }

  /// Reads JSON lines of one token each.
  static func importLines(
    _ file: TextFile, options: TraceImportOptions
  ) throws(TraceError) -> RoutingTrace {
    let decoder = JSONDecoder()
    var builder: TraceBuilder?
    var layerCount = 0
    var hasWeights = false
    for (index, bytes) in file.lines.enumerated() where !bytes.isEmpty {
      let line = index + 1
      let token: TokenLine = try decode(bytes, with: decoder, file: file, line: line)
      guard let layers = token.experts ?? token.layers, let step = token.pos ?? token.tok,
        let first = layers.first, !first.isEmpty
      else {
        throw .malformed(
          path: file.path, line: line, field: "the object", found: "no experts or position",
          expected: "\"tok\" and \"layers\", or \"pos\" and \"experts\"")
      }
      if builder == nil {
        hasWeights = token.weights != nil
        layerCount = layers.count
        builder = TraceBuilder(path: file.path, topK: first.count, hasWeights: hasWeights)
      }
      guard layers.count == layerCount, (token.weights?.count ?? layerCount) == layerCount else {
        throw .malformed(
          path: file.path, line: line, field: token.experts == nil ? "layers" : "experts",
          found: "\(layers.count) layers", expected: "\(layerCount), as before")
      }
      for (layer, experts) in layers.enumerated() {
        try builder!.add(
          sequence: token.seq ?? 0, phase: token.phase ?? .decode, step: step, layer: layer,
          experts: experts, weights: token.weights?[layer] ?? [], line: line)
      }
    }
    guard let builder else { throw .unknownFormat(path: file.path) }
    return try finish(
      builder, model: "unknown", layerCount: layerCount, hasWeights: hasWeights,
      format: "JSON lines", options: options)
  }

  private struct Fingerprint: Decodable {
    struct Layer: Decodable {
      let experts: [Int]
      let probabilities: [Float]

      enum CodingKeys: String, CodingKey {
        case experts = "selected_experts"
        case probabilities = "selected_probs"
      }
    }

    let tokens: [[String: [String: Layer]]]

    enum CodingKeys: String, CodingKey {
      case tokens = "router_data"
    }
  }

  /// Reads the object of GPT-OSS-MoE-ExpertFingerprinting; its text fields are not looked at.
  static func importFingerprint(
    _ file: TextFile, options: TraceImportOptions
  ) throws(TraceError) -> RoutingTrace {
    let object: Fingerprint = try decode(
      file.bytes[...], with: JSONDecoder(), file: file, line: 1)
    var builder: TraceBuilder?
    for (index, tokens) in object.tokens.enumerated() {
      for (name, layers) in tokens {
        let step = try number(after: "token_", in: name, index: index, file: file)
        for (layerName, layer) in layers {
          if builder == nil {
            builder = TraceBuilder(
              path: file.path, topK: max(1, layer.experts.count), hasWeights: true)
          }
          try builder!.add(
            sequence: 0, phase: .decode, step: step,
            layer: try number(after: "layer_", in: layerName, index: index, file: file),
            experts: layer.experts, weights: layer.probabilities, line: 1)
        }
      }
    }
    guard let builder else {
      throw .malformed(
        path: file.path, line: 1, field: "router_data", found: "no token",
        expected: "at least one")
    }
    return try finish(
      builder, model: "unknown", layerCount: builder.neededLayerCount, hasWeights: true,
      format: "an expert fingerprint", options: options)
  }

  private static func number(
    after prefix: String, in name: String, index: Int, file: TextFile
  ) throws(TraceError) -> Int {
    guard name.hasPrefix(prefix), let number = Int(name.dropFirst(prefix.count)) else {
      throw .malformed(
        path: file.path, line: 1, field: "router_data[\(index)]", found: "'\(name)'",
        expected: "\(prefix)N")
    }
    return number
  }

  /// Decodes one JSON value; an error names the line and the field.
  static func decode<Value: Decodable>(
    _ bytes: ArraySlice<UInt8>, with decoder: JSONDecoder, file: TextFile, line: Int
  ) throws(TraceError) -> Value {
    func fail(_ context: DecodingError.Context, _ expected: String) -> TraceError {
      let field = context.codingPath.map {
        $0.intValue.map { "[\($0)]" } ?? ".\($0.stringValue)"
      }.joined()
      return .malformed(
        path: file.path, line: line,
        field: field.isEmpty ? "the object" : String(field.drop { $0 == "." }),
        found: context.debugDescription, expected: expected)
    }
    do {
      return try decoder.decode(Value.self, from: Data(bytes))
    } catch let error as DecodingError {
      switch error {
      case .typeMismatch(let type, let context), .valueNotFound(let type, let context):
        throw fail(context, "\(type)")
      case .keyNotFound(let key, let context): throw fail(context, "the key \(key.stringValue)")
      case .dataCorrupted(let context): throw fail(context, "JSON")
      @unknown default: throw .unknownFormat(path: file.path)
      }
    } catch {
      throw .unknownFormat(path: file.path)
    }
  }
}

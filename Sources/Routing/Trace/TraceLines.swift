internal import Foundation

/// A trace as JSON lines: the header, then an object for each event; `traces/README.md` has the keys.
public enum TraceLines {
  /// The first line.
  public static func header(_ header: TraceHeader) -> [UInt8] {
    encode(HeaderLine(moetrace: Int(TraceFrame.version), header: TraceFrame.HeaderText(header)))
  }

  /// The line of `event`.
  ///
  /// - Parameters:
  ///   - topK: experts of a token.
  ///   - experts: experts of a layer.
  public static func line(_ event: TraceEvent, topK: Int, experts: Int) -> [UInt8] {
    func rows<Value>(_ values: [Value], of count: Int? = nil) -> [[Value]] {
      let count = count ?? topK
      return stride(from: 0, to: values.count, by: count).map { Array(values[$0..<$0 + count]) }
    }
    return encode(
      EventLine(
        seq: Int(event.sequence), phase: event.phase, pos: Int(event.step), layer: event.layer,
        experts: rows(event.experts.map(Int.init)),
        weights: event.weights.isEmpty ? nil : rows(event.weights),
        scores: event.scores.isEmpty
          ? nil
          : rows(event.scores.map(Int.init), of: event.scores.count * topK / event.experts.count),
        predictions: event.predictions.isEmpty
          ? nil : rows(event.predictions.map(Int.init), of: experts),
        prefetch: event.prefetch.isEmpty ? nil : event.prefetch.figures))
  }

  private static func encode(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Only strings and finite numbers: these always encode.
    return Array(try! encoder.encode(value)) + [0x0a]
  }

  struct HeaderLine: Codable {
    let moetrace: Int
    let header: TraceFrame.HeaderText
  }

  struct EventLine: Codable {
    let seq: Int
    let phase: Phase
    let pos: Int
    let layer: Int
    let experts: [[Int]]
    let weights: [[Float]]?
    let scores: [[Int]]?
    let predictions: [[Int]]?
    let prefetch: [Int]?
  }
}

extension TraceImport {
  /// Reads what `TraceLines` writes.
  static func importTraceLines(_ file: TextFile) throws(TraceError) -> RoutingTrace {
    let decoder = JSONDecoder()
    var trace: RoutingTrace?
    var event = TraceEvent()
    for (index, bytes) in file.lines.enumerated() where !bytes.isEmpty {
      func fail(_ field: String, _ found: String, _ expected: String) -> TraceError {
        .malformed(
          path: file.path, line: index + 1, field: field, found: found, expected: expected)
      }
      guard let geometry = trace?.header.geometry else {
        let line: TraceLines.HeaderLine = try decode(
          bytes, with: decoder, file: file, line: index + 1)
        guard line.moetrace == Int(TraceFrame.version) else {
          throw fail("moetrace", "\(line.moetrace)", "\(TraceFrame.version)")
        }
        guard let header = line.header.header else {
          throw fail("header", "a model that cannot be", "positive counts of experts and bytes")
        }
        trace = RoutingTrace(header: header)
        continue
      }
      let line: TraceLines.EventLine = try decode(bytes, with: decoder, file: file, line: index + 1)
      guard (0..<geometry.layerCount).contains(line.layer) else {
        throw fail("layer", "\(line.layer)", "0 to \(geometry.layerCount - 1)")
      }
      guard (0..<Int(Int32.max)).contains(line.seq), (0..<Int(Int32.max)).contains(line.pos) else {
        throw fail("seq, pos", "\(line.seq), \(line.pos)", "0 to \(Int32.max - 1)")
      }
      guard !line.experts.isEmpty, line.experts.count <= TraceCodec.maximumTokenCount,
        line.experts.allSatisfy({ $0.count == geometry.topK && Set($0).count == geometry.topK }),
        line.experts.joined().allSatisfy({ (0..<geometry.expertCount).contains($0) })
      else {
        throw fail(
          "experts", "\(line.experts.prefix(1))",
          "for each token \(geometry.topK) different ids below \(geometry.expertCount)")
      }
      let weights = line.weights?.joined().map { $0 } ?? []
      guard weights.count == (trace!.header.hasWeights ? line.experts.count * geometry.topK : 0),
        weights.allSatisfy({ $0 >= 0 && $0 < 65504 })
      else {
        throw fail("weights", "\(weights.count) of them", "a number from 0 on for each expert id")
      }
      let scores = line.scores?.joined().map { $0 } ?? []
      guard
        scores.count
          == (trace!.header.hasScores ? line.experts.count * geometry.expertCount : 0),
        scores.allSatisfy({ (0...255).contains($0) })
      else {
        throw fail("scores", "\(scores.count) of them", "a number to 255 for each expert")
      }
      let predictions = line.predictions?.joined().map { $0 } ?? []
      guard
        predictions.isEmpty
          || line.experts.count == 1 && predictions.count == trace!.header.predictionByteCount,
        predictions.allSatisfy({ (0...255).contains($0) })
      else {
        throw fail(
          "predictions", "\(predictions.count) of them",
          "of one token a number to 255 for each distance and expert")
      }
      let ledger = line.prefetch.map { PrefetchLedger(figures: $0) } ?? PrefetchLedger()
      guard let ledger, ledger.figures.allSatisfy({ abs($0) < 1 << 30 }) else {
        throw fail(
          "prefetch", "\(line.prefetch ?? [])",
          "\(PrefetchLedger.figureCount) whole numbers, the last from 0 on")
      }
      event.removeAll()
      event.prefetch = ledger
      event.predictions = predictions.map(UInt8.init)
      event.scores = scores.map(UInt8.init)
      event.sequence = Int32(line.seq)
      event.phase = line.phase
      event.step = Int32(line.pos)
      event.layer = line.layer
      event.experts = line.experts.joined().map(UInt16.init)
      event.weights = weights
      trace!.append(event)
    }
    guard let trace, trace.eventCount > 0 else {
      throw .malformed(
        path: file.path, line: 0, field: "the file", found: "no event", expected: "at least one")
    }
    return trace
  }
}

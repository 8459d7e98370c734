internal import Checkpoints
internal import ExpertRuntime
internal import Foundation
internal import Models
internal import Tensors

/// What a fit of predictor heads came to.
public struct PredictorFit: Sendable, Codable {
  /// Where the heads are.
  public let path: String
  public let byteCount: Int
  /// Tokens fitted to.
  public let tokens: Int
  /// How far predicted scores are from the router's on tokens held out, by distance.
  public let heldOut: [Distance]

  /// One distance.
  public struct Distance: Sendable, Codable {
    public let distance: Int
    /// The mean squared error over all layers, of gate reuse and of the heads.
    public let gateReuseError: Double
    public let fittedError: Double
    /// The share of the chosen experts that gate reuse and the heads name among as many.
    public let gateReuseRecall: Double
    public let fittedRecall: Double
  }
}

extension MoEModel {
  /// Tokens of a context; each begins anew.
  static let fitWindow = 512

  /// Fits linear heads to the routing of `tokens` and writes them beside the model.
  ///
  /// Ridge regression of the router's scores on the state a number of layers before, divided by its root
  /// mean square, and on the layer's scores for the token before. The ridge draws towards gate reuse
  /// (arXiv 2411.01433), so that few tokens do no harm; its size is chosen on every eighth window, or
  /// on one of fewer, which is held out.
  ///
  /// - Parameters:
  ///   - distances: layers from the state to the scores predicted; 0 is from before the layer's own
  ///     attention.
  ///   - memory: bytes for the sums of the fit; with less, the text passes through the model more often.
  ///   - isCancelled: asked before every window and head; nothing is written when it says so.
  ///   - progress: called with the work done so far and in all.
  /// - Returns: nil if it was cancelled.
  /// - Throws: `StokerError.tooShort`, `.option`; `CheckpointError` if the file cannot be written.
  public func fitPredictor(
    to tokens: [Int32], distances: [Int] = [0, 1, 2], memory: Int = 2 << 30,
    isCancelled: () -> Bool = { false }, progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
  ) throws -> PredictorFit? {
    let window = min(Self.fitWindow, transformer.cache.capacity)
    guard tokens.count >= 2 * window else {
      throw StokerError.tooShort(tokens: tokens.count, needed: 2 * window)
    }
    for distance in distances {
      guard (0...RouterPredictor.farthest).contains(distance) else {
        throw StokerError.option(
          name: "the distance", found: "\(distance)", expected: "0 to \(RouterPredictor.farthest)")
      }
    }
    try checkVocabulary(of: tokens)
    let shape = transformer.description
    let heads = (0..<shape.expertLayerCount).flatMap { layer in
      distances.filter { $0 <= layer }.map { FittedHead(layer: layer, distance: $0) }
    }
    let each =
      2
      * NormalEquations.byteCount(
        inputs: shape.hiddenSize + shape.expertCount + 1, outputs: shape.expertCount)
      + 4 * FitSums.judgedTokens * (shape.hiddenSize + 2 * shape.expertCount + 1)
    let groupSize = min(heads.count, max(1, memory / each))
    let groups = stride(from: 0, to: heads.count, by: groupSize).map {
      Array(heads[$0..<min(heads.count, $0 + groupSize)])
    }
    // Solving takes about as long as the text.
    let total = 2 * groups.count * tokens.count
    let period = min(8, tokens.count / window)
    var fitted: [FittedHead] = []
    defer { transformer.onState = nil }
    for (index, group) in groups.enumerated() {
      let sums = FitSums(group, model: shape)
      transformer.onState = { sums.take($0, layer: $1, rows: Array($2)) }
      for first in stride(from: 0, to: tokens.count - 1, by: window) {
        if isCancelled() { return nil }
        sums.isHeldOut = first / window % period == period - 1
        let part = tokens[first..<min(tokens.count, first + window)]
        _ = try prefill(part, at: 0, logits: .none, isCancelled: { false }, { _, _ in })
        progress(2 * index * tokens.count + first + part.count, total)
      }
      transformer.onState = nil
      for place in group.indices {
        if isCancelled() { return nil }
        let layer = group[place].layer
        fitted.append(
          sums.solve(
            place, router: transformer.foldedRouter(layer: layer),
            bias: transformer.routerBias(layer: layer),
            order: { transformer.makeChoiceScores(of: $0, layer: layer) }))
        let solved = tokens.count * (place + 1) / group.count
        progress((2 * index + 1) * tokens.count + solved, total)
      }
    }
    let path = PredictorFile.path(ofModel: file.path)
    func found(
      _ distance: Int, _ found: KeyPath<FittedHead, FoundExperts>
    ) -> PredictionRecall {
      fitted.filter { $0.distance == distance }.reduce(into: FoundExperts()) {
        $0.append($1[keyPath: found])
      }.recall ?? PredictionRecall(ofChoices: 0, ofExperts: 0)
    }
    let byteCount = try write(
      fitted, distances: distances, recall: distances.map { found($0, \.found) }, to: path)
    return PredictorFit(
      path: path, byteCount: byteCount, tokens: tokens.count,
      heldOut: distances.map { distance in
        let heads = fitted.filter { $0.distance == distance }
        func mean(_ error: (FittedHead) -> Double) -> Double {
          heads.map(error).reduce(0, +) / Double(max(1, heads.count))
        }
        return .init(
          distance: distance, gateReuseError: mean(\.gateReuseError),
          fittedError: mean(\.error),
          gateReuseRecall: found(distance, \.gateReuseFound).ofChoices,
          fittedRecall: found(distance, \.found).ofChoices)
      })
  }

  private func write(
    _ heads: [FittedHead], distances: [Int], recall: [PredictionRecall], to path: String
  ) throws -> Int {
    let order = distances.indices.sorted { distances[$0] < distances[$1] }
    let shape = transformer.description
    let columns = shape.hiddenSize + shape.expertCount
    let type = columns % ElementType.q8_0.blockSize == 0 ? ElementType.q8_0 : .f16
    var writer = try GGUFWriter(
      path: path,
      metadata: [
        ("general.architecture", .string(PredictorFile.architecture)),
        (PredictorFile.versionKey, .uint32(UInt32(PredictorFile.currentVersion))),
        (PredictorFile.distancesKey, .array(.int32(order.map { Int32(distances[$0]) }))),
        (
          PredictorFile.recallOfChoicesKey,
          .array(.float32(order.map { Float(recall[$0].ofChoices) }))
        ),
        (
          PredictorFile.recallOfExpertsKey,
          .array(.float32(order.map { Float(recall[$0].ofExperts) }))
        ),
        (PredictorFile.routersKey, .string(transformer.routerFingerprint)),
      ],
      tensors: heads.flatMap { head in
        [
          GGUFWriter.Tensor(
            name: PredictorFile.weight(head.layer, head.distance), type: type,
            shape: [columns, shape.expertCount]),
          GGUFWriter.Tensor(
            name: PredictorFile.bias(head.layer, head.distance), type: .f32,
            shape: [shape.expertCount]),
        ]
      })
    for head in heads {
      var bytes: [UInt8] = []
      for expert in 0..<shape.expertCount {
        let row = (0..<columns).map { head.weights[$0 * shape.expertCount + expert] }
        bytes += type == .q8_0 ? blocks(of: row) : row.flatMap(encode)
      }
      try writer.append(bytes)
      bytes = []
      for bias in head.weights[(columns * shape.expertCount)...] {
        withUnsafeBytes(of: bias.bitPattern.littleEndian) { bytes += $0 }
      }
      try writer.append(bytes)
    }
    let byteCount = Int(writer.byteCount)
    try writer.finish()
    return byteCount
  }
}

/// A value as F16.
private func encode(_ value: Float) -> [UInt8] {
  withUnsafeBytes(of: Float16(value).bitPattern.littleEndian) { Array($0) }
}

/// Values as blocks of Q8_0: the scale of 32, F16, and their multiples of it.
private func blocks(of values: [Float]) -> [UInt8] {
  var bytes: [UInt8] = []
  for first in stride(from: 0, to: values.count, by: 32) {
    let block = values[first..<first + 32]
    let scale = (block.map(\.magnitude).max() ?? 0) / 127
    bytes += encode(scale)
    bytes += block.map {
      scale == 0 ? 0 : UInt8(bitPattern: Int8(max(-127, min(127, ($0 / scale).rounded()))))
    }
  }
  return bytes
}

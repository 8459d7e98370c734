package import Checkpoints
package import DirectIO
package import ExpertRuntime
package import Tensors

/// Linear heads fitted to a model, in a file beside it: a GGUF file, so that it is read, checked and
/// written as models are.
///
/// A head gives the router scores of a layer from the state a number of layers before and from the
/// layer's own scores for the token before:
///
///     scores = weight * (state / rms(state), latest scores) + bias
///
/// For each distance D and layer L there are `head.D.L.weight`, Q8_0 or, where a row is no whole number of
/// its blocks, F16, [hidden + experts, experts] in GGML's order, and `head.D.L.bias`, F32, [experts].
package struct PredictorFile: Sendable {
  package static let architecture = "stoker-predictor"
  package static let currentVersion = 1
  package static let versionKey = "stoker-predictor.version"
  package static let distancesKey = "stoker-predictor.distances"
  package static let routersKey = "stoker-predictor.routers"
  package static let recallOfChoicesKey = "stoker-predictor.recall-of-choices"
  package static let recallOfExpertsKey = "stoker-predictor.recall-of-experts"

  package let path: String
  /// The distances there are heads for, ascending.
  package let distances: [Int]
  /// What the routers of the model are known by that the heads were fitted to.
  package let routers: String
  /// What the heads were found to name, by distance; nothing where an earlier version has fitted them.
  package let recall: [Int: PredictionRecall]
  let tensors: [String: TensorInfo]

  /// The path of the heads of the model at `path`.
  package static func path(ofModel path: String) -> String { path + ".predictor" }

  /// Reads the header of the file at `path`.
  /// - Throws: `CheckpointError` for a file that cannot be read, or is no such file.
  package init(path: String) throws(CheckpointError) {
    let checkpoint = try Checkpoint.open(path)
    let architecture = try checkpoint.string("general.architecture")
    guard architecture == Self.architecture else {
      throw .unsupportedArchitecture(
        path: path, found: architecture, supported: [Self.architecture])
    }
    let version = try checkpoint.integer(Self.versionKey)
    guard version == Self.currentVersion else {
      throw .invalidValue(
        path: path, key: Self.versionKey, found: "\(version)", expected: "\(Self.currentVersion)")
    }
    self.path = path
    distances = try checkpoint.integers(Self.distancesKey)
    routers = try checkpoint.string(Self.routersKey)
    tensors = checkpoint.tensors
    let choices = try checkpoint.floatsIfPresent(Self.recallOfChoicesKey) ?? []
    let experts = try checkpoint.floatsIfPresent(Self.recallOfExpertsKey) ?? []
    var recall: [Int: PredictionRecall] = [:]
    if choices.count == distances.count, experts.count == distances.count {
      for (place, distance) in distances.enumerated() {
        recall[distance] = PredictionRecall(
          ofChoices: Double(choices[place]), ofExperts: Double(experts[place]))
      }
    }
    self.recall = recall
  }

  /// Checks that the heads are of `model`, whose routers are known by `routers`.
  /// - Throws: `CheckpointError` that names what is not as expected.
  package func validate(_ model: ModelDescription, routers: String) throws(CheckpointError) {
    guard self.routers == routers else {
      throw .invalidValue(
        path: path, key: Self.routersKey, found: self.routers,
        expected: "\(routers), the model's: remove the file, or make it with 'stoker fit-predictor'"
      )
    }
    for distance in distances {
      guard (0...RouterPredictor.farthest).contains(distance) else {
        throw .invalidValue(
          path: path, key: Self.distancesKey, found: "\(distance)",
          expected: "0 to \(RouterPredictor.farthest)")
      }
      for layer in distance..<max(distance, model.expertLayerCount) {
        try require(
          Self.weight(layer, distance), [.q8_0, .f16],
          [model.hiddenSize + model.expertCount, model.expertCount])
        try require(Self.bias(layer, distance), [.f32], [model.expertCount])
      }
    }
  }

  private func require(
    _ name: String, _ types: [ElementType], _ shape: [Int]
  ) throws(CheckpointError) {
    guard let tensor = tensors[name] else { throw .missingTensor(path: path, tensor: name) }
    guard tensor.shape == shape else {
      throw .wrongShape(path: path, tensor: name, found: tensor.shape, expected: shape)
    }
    guard types.contains(tensor.type) else { throw .unsupportedTensor(path: path, tensor: name) }
  }

  package static func weight(_ layer: Int, _ distance: Int) -> String {
    "head.\(distance).\(layer).weight"
  }
  package static func bias(_ layer: Int, _ distance: Int) -> String {
    "head.\(distance).\(layer).bias"
  }

  /// The bytes of the heads in memory.
  package func byteCount(in file: DataFile) -> Int {
    DenseWeights.byteCount(of: Array(tensors.values), files: [file])
  }
}

/// The heads of a `PredictorFile` in memory.
package final class PredictorHeads {
  package let distances: [Int]
  private let weights: DenseWeights
  private let matrices: [[Matrix?]]
  private let biases: [[UnsafePointer<Float>?]]

  /// Reads the heads, which have been validated.
  package init(
    _ file: PredictorFile, data: DataFile, layerCount: Int, kernels: Kernels,
    ledger: MemoryLedger
  ) throws {
    let engine = try makeReadEngine(kind: .auto, files: [data], arenas: [], capacity: 64)
    let tensors = file.tensors.values.sorted { $0.offset < $1.offset }
    let weights = try DenseWeights(
      tensors, files: [data], engine: engine, kernels: kernels,
      into: try ledger.allocate("predictor heads", byteCount: file.byteCount(in: data)))
    self.weights = weights
    distances = file.distances
    func table<Value>(_ value: (_ layer: Int, _ distance: Int) -> Value) -> [[Value?]] {
      (0...RouterPredictor.farthest).map { distance in
        (0..<layerCount).map { layer in
          file.distances.contains(distance) && layer >= distance ? value(layer, distance) : nil
        }
      }
    }
    matrices = table { weights.matrix(PredictorFile.weight($0, $1)) }
    biases = table { weights.vector(PredictorFile.bias($0, $1)) }
  }

  /// The matrix of a head, [experts, hidden + experts].
  func matrix(layer: Int, distance: Int) -> Matrix { matrices[distance][layer]! }

  /// The bias of a head, [experts].
  func bias(layer: Int, distance: Int) -> UnsafePointer<Float> { biases[distance][layer]! }
}

extension MoETransformer {
  /// The bias of the router of `layer`, [experts]; nil if it has none.
  package func routerBias(layer: Int) -> [Float]? {
    expertLayer(layer).mixture.routerBias.map {
      Array(UnsafeBufferPointer(start: $0, count: description.expertCount))
    }
  }

  /// Brings the scores of a token at `layer`, as its router or fitted heads give them, in place into the order
  /// in which the layer chooses.
  package func makeChoiceScores(of scores: UnsafeMutableBufferPointer<Float>, layer: Int) {
    makeChoiceScores(of: scores, expertLayer(layer).mixture)
  }

  /// What the routers are known by: a hash of their bytes and those of the norms before them (FNV-1a,
  /// 64 bits, over 8 bytes at a time).
  package var routerFingerprint: String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    func add(_ bytes: UnsafeRawPointer, _ count: Int) {
      for offset in stride(from: 0, to: count / 8 * 8, by: 8) {
        hash =
          (hash ^ bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
          &* 0x100_0000_01b3
      }
    }
    for layer in layers.dropFirst(description.denseLayerCount) {
      let router = layer.mixture.router
      add(router.bytes, router.rows * router.type.byteCount(valueCount: router.columns)!)
      add(layer.feedForwardNorm.weight, description.hiddenSize * 4)
    }
    return String(hash, radix: 16)
  }

  /// The router of `layer` with the norm before it folded in, on a state divided by its root mean square:
  /// what gate reuse computes, [experts][hidden].
  package func foldedRouter(layer: Int) -> [[Float]] {
    let weights = expertLayer(layer)
    let (router, norm) = (weights.mixture.router, weights.feedForwardNorm)
    let rowByteCount = router.type.byteCount(valueCount: router.columns)!
    return (0..<router.rows).map { row in
      var values = [Float](repeating: 0, count: router.columns)
      values.withUnsafeMutableBufferPointer { buffer in
        kernels.dequantize(
          type: router.type, blocks: router.bytes + row * rowByteCount, count: router.columns,
          into: buffer.baseAddress!)
      }
      for index in values.indices { values[index] *= norm.weight[index] }
      guard norm.bias != nil else { return values }
      // It takes the mean away first; what its bias adds is left to the fitted ones.
      let mean = values.reduce(0, +) / Float(values.count)
      return values.map { $0 - mean }
    }
  }
}

internal import Checkpoints
internal import ExpertRuntime
internal import Models
public import Placement
internal import Tensors

extension ModelFile {
  /// What the model asks of a machine when it runs with `options`.
  /// - Throws: `StokerError.option`, or an error that names the file that could not be opened.
  public func work(_ options: ModelOptions = ModelOptions()) throws -> ModelWork {
    let shape = try shape(options)
    let headName = description.tiedOutput ? "token_embd.weight" : "output.weight"
    var dense: [String: Int] = [:]
    var head = ModelWork.Weights(type: "F32", bytes: 0)
    // Of experts' biases a token reads a few rows.
    for tensor in layout.denseTensors
    where tensor.shape.count > 1 && !tensor.name.hasSuffix(".bias") {
      if tensor.name == headName {
        head = ModelWork.Weights(type: tensor.type.name, bytes: tensor.byteCount)
      } else if tensor.name != "token_embd.weight" {
        dense[tensor.type.name, default: 0] += tensor.byteCount
      }
    }
    return ModelWork(
      name: description.name, layers: description.expertLayerCount,
      experts: description.expertCount,
      topK: description.expertsPerToken, hiddenSize: description.hiddenSize,
      vocabulary: description.vocabularySize,
      dense: dense.sorted { $0.key < $1.key }.map { .init(type: $0.key, bytes: $0.value) },
      head: head,
      expertMatrices: layout.shapes.map { shape in
        [
          .init(type: shape.gateType.name, bytes: shape.gateByteCount),
          .init(type: shape.upType.name, bytes: shape.upByteCount),
          .init(type: shape.downType.name, bytes: shape.downByteCount),
        ]
      },
      keyValueBytesPerPosition: KeyValueCache.byteCount(
        description, capacity: 1, type: shape.keyValueType),
      lookBacks: description.lookBacks(type: shape.keyValueType),
      chunkTokens: shape.tokenCapacity, readsPerExpert: shape.readsPerExpert)
  }
}

extension RunShape {
  /// The reads of an expert, in most layers; nil: one for each matrix.
  fileprivate var readsPerExpert: Int? {
    let counts = (0..<layout.layerCount).map { geometry.reads(layer: $0).count }.sorted()
    let usual = counts[counts.count / 2]
    return usual == ExpertMatrix.allCases.count ? nil : usual
  }
}

extension ModelDescription {
  /// What attention goes through, by window.
  fileprivate func lookBacks(type: KeyValueType) -> [ModelWork.LookBack] {
    let values = latent.map { $0.rowSize + $0.keyValueRank } ?? 2 * headDimension
    let windows = (0..<layerCount).filter { !isLinear(layer: $0) }.map(window(ofLayer:))
    let parts = Set(windows).map { window in
      ModelWork.LookBack(
        bytesPerPosition: windows.count { $0 == window } * headCount * values * type.byteCount,
        window: window)
    }.sorted { $0.window ?? .max < $1.window ?? .max }
    // A token reads and writes the matrices of a recurrent state, however many there were before.
    guard let linear else { return parts }
    return [
      ModelWork.LookBack(bytesPerPosition: 8 * linear.layers.count * linear.matrixSize, window: 1)
    ] + parts
  }
}

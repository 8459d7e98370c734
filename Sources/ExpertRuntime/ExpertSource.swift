internal import Checkpoints
internal import DirectIO
public import Routing
public import Tensors

/// Experts that are in no file that Stoker reads: in memory, or wherever a function gets them from.
public struct ExpertSource: Sendable {
  /// Writes all bytes of one matrix of an expert: rows one after the other, in blocks of its type. Gate and up
  /// have `feedForwardSize` rows of `hiddenSize` values, down has `hiddenSize` rows of `feedForwardSize`.
  ///
  /// It is called from threads of the runtime's own, from several at a time, and may take its time: others are
  /// computed meanwhile. What it throws becomes the `RuntimeError.read` of the layer that needs the expert.
  public typealias Reader =
    @Sendable (_ expert: ExpertID, _ matrix: ExpertMatrix, _ bytes: inout MutableRawSpan) throws ->
    Void

  /// The matrices of one expert, as bytes in the blocks of their types.
  public struct Matrices: Sendable {
    public var gate: [UInt8]
    public var up: [UInt8]
    public var down: [UInt8]

    public init(gate: [UInt8], up: [UInt8], down: [UInt8]) {
      self.gate = gate
      self.up = up
      self.down = down
    }
  }

  let layout: ExpertLayout
  let file: DataFile
  let topK: Int

  /// Bytes between two matrices, so that no read is of several.
  private static let gap = 4096

  /// Experts that `read` gets.
  ///
  /// - Parameters:
  ///   - name: what errors call the source.
  ///   - layerCount: layers with experts, at most 1,024.
  ///   - expertCount: experts of each, at most 4,096.
  ///   - topK: experts of a token at one layer.
  ///   - hiddenSize: values of a hidden state, whole blocks of the types of gate and up.
  ///   - feedForwardSize: rows of gate and up, whole blocks of the type of down.
  ///   - types: of gate, up and down; types that `isComputable`.
  /// - Throws: `RuntimeError.argument` for numbers that make no model.
  public init(
    name: String = "the expert source", layerCount: Int, expertCount: Int, topK: Int,
    hiddenSize: Int, feedForwardSize: Int,
    types: (gate: ElementType, up: ElementType, down: ElementType), read: @escaping Reader
  ) throws(RuntimeError) {
    try ExpertRuntime.require(
      layerCount, in: 1...RoutingGeometry.maximumLayerCount, "the number of layers")
    try ExpertRuntime.require(
      expertCount, in: 1...RoutingGeometry.maximumExpertCount, "the number of experts")
    try ExpertRuntime.require(topK, in: 1...expertCount, "the number of experts per token")
    let rows = [feedForwardSize, feedForwardSize, hiddenSize]
    let columns = [hiddenSize, hiddenSize, feedForwardSize]
    var byteCounts: [Int] = []
    for (index, type) in [types.gate, types.up, types.down].enumerated() {
      guard type.isComputable else {
        throw .argument(
          name: "the type of the \(ExpertMatrix.allCases[index]) matrices (\(type))",
          found: Int(type.rawValue), expected: "that of a type that isComputable")
      }
      guard (1...1 << 24).contains(columns[index]), (1...1 << 24).contains(rows[index]),
        let row = type.byteCount(valueCount: columns[index]),
        // Quantized weights take activations in blocks of 32.
        !type.wantsQuantizedActivations || columns[index].isMultiple(of: 32)
      else {
        throw .argument(
          name: "a row of the \(ExpertMatrix.allCases[index]) matrices", found: columns[index],
          expected: "whole blocks of \(type) (\(type.blockSize) values), at most \(1 << 24)")
      }
      byteCounts.append(row * rows[index])
    }
    // 2^10 layers of 2^12 experts of 3 * 2^48 values could not be counted.
    let stride = byteCounts.reduce(0) { $0 + $1 + Self.gap }
    let (byteCount, overflow) = stride.multipliedReportingOverflow(by: layerCount * expertCount)
    guard !overflow, byteCount < Int.max / 2 else {
      throw .argument(name: "the bytes of all experts", found: .max, expected: "what fits an Int")
    }
    let starts = [
      0, byteCounts[0] + Self.gap, byteCounts[0] + byteCounts[1] + 2 * Self.gap,
    ]
    let experts = (0..<layerCount).map { layer in
      (0..<expertCount).map { expert in
        let start = (layer * expertCount + expert) * stride
        func slice(_ matrix: Int) -> ExpertSlice {
          ExpertSlice(
            file: 0, offset: UInt64(start + starts[matrix]), byteCount: byteCounts[matrix])
        }
        return ExpertSlices(gate: slice(0), up: slice(1), down: slice(2))
      }
    }
    layout = ExpertLayout(
      shape: ExpertShape(
        hidden: hiddenSize, feedForward: feedForwardSize, gateType: types.gate,
        upType: types.up, downType: types.down, gateByteCount: byteCounts[0],
        upByteCount: byteCounts[1], downByteCount: byteCounts[2]),
      experts: experts)
    self.topK = topK
    file = DataFile(name: name, byteCount: byteCount) { offset, bytes in
      let (number, within) = Int(offset).quotientAndRemainder(dividingBy: stride)
      // Reads are of whole matrices.
      let matrix = ExpertMatrix(rawValue: starts.lastIndex { $0 <= within }!)!
      let id = ExpertID(layer: number / expertCount, expert: number % expertCount)
      var span = bytes.mutableBytes
      do {
        try read(id, matrix, &span)
        return nil
      } catch {
        return "\(error)"
      }
    }
  }

  /// Experts in memory; the runtime copies those it computes with into its slots.
  ///
  /// - Parameters:
  ///   - experts: [layers][experts], as many in each layer.
  /// - Throws: `RuntimeError.argument` for numbers that make no model, or a matrix of another size than its type
  ///   and shape make.
  public init(
    experts: [[Matrices]], topK: Int, hiddenSize: Int, feedForwardSize: Int,
    types: (gate: ElementType, up: ElementType, down: ElementType)
  ) throws(RuntimeError) {
    let expertCount = experts.first?.count ?? 0
    for layer in experts where layer.count != expertCount {
      throw .argument(
        name: "the number of experts of a layer", found: layer.count,
        expected: "\(expertCount), as in the first")
    }
    try self.init(
      name: "memory", layerCount: experts.count, expertCount: expertCount, topK: topK,
      hiddenSize: hiddenSize, feedForwardSize: feedForwardSize, types: types
    ) { expert, matrix, bytes in
      let own = experts[expert.layer][expert.expert].bytes(of: matrix)
      bytes.withUnsafeMutableBytes { $0.copyBytes(from: own) }
    }
    let shape = layout.shape(layer: 0)
    let sizes = [shape.gateByteCount, shape.upByteCount, shape.downByteCount]
    for (layer, own) in experts.enumerated() {
      for (expert, matrices) in own.enumerated() {
        for matrix in ExpertMatrix.allCases {
          let found = matrices.bytes(of: matrix).count
          guard found != sizes[matrix.rawValue] else { continue }
          throw .argument(
            name: "the bytes of the \(matrix) matrix of expert \(expert) of layer \(layer)",
            found: found, expected: "\(sizes[matrix.rawValue])")
        }
      }
    }
  }
}

extension ExpertSource.Matrices {
  func bytes(of matrix: ExpertMatrix) -> [UInt8] {
    switch matrix {
    case .gate: gate
    case .up: up
    case .down: down
    }
  }
}

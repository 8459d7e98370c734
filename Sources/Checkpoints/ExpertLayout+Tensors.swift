/// How large the experts of a model are, and how many a layer has.
struct ExpertSize {
  /// Values of a hidden state.
  let hidden: Int
  /// Rows of gate and up, columns of down.
  let feedForward: Int
  /// Experts of a layer.
  let count: Int
}

extension ExpertLayout {
  /// Lays out every block that has experts, of a model of any architecture: nothing is read but the
  /// tensors' names, types and shapes, which also give the sizes.
  ///
  /// A block without experts, as the dense first ones of some models, is no layer of the layout.
  /// - Throws: `.missingTensor` if there are no experts or one of the three tensors is missing,
  ///   `.unsupportedTensor` if the experts have biases or scales besides, `.invalidValue`,
  ///   `.wrongShape` if blocks differ in size, or `.unsupportedElementType`.
  package init(_ checkpoint: Checkpoint) throws(CheckpointError) {
    var blocks: Set<Int> = []
    for name in checkpoint.tensorOrder {
      guard let tensor = ExpertTensorName(name) else { continue }
      guard tensor.isWeight else {
        throw .unsupportedTensor(path: checkpoint.path, tensor: name)
      }
      blocks.insert(tensor.block)
    }
    guard let first = blocks.min() else {
      throw .missingTensor(path: checkpoint.path, tensor: "blk.N.ffn_gate_exps.weight")
    }
    try self.init(
      checkpoint, blocks: blocks.sorted(), size: ExpertSize(checkpoint, block: first))
  }
}

extension ExpertSize {
  /// The limits that `ModelDescription` sets for the same numbers.
  static let limits = [1 << 20, 1 << 24, 65_536]

  /// The size that the gate tensor of `block` has.
  fileprivate init(_ checkpoint: Checkpoint, block: Int) throws(CheckpointError) {
    let gate = try checkpoint.tensor("blk.\(block).ffn_gate_exps.weight")
    guard gate.shape.count == 3, zip(gate.shape, Self.limits).allSatisfy({ $0 <= $1 }) else {
      throw .invalidValue(
        path: checkpoint.files[gate.file].path, key: gate.name, found: "of shape \(gate.shape)",
        expected: "three dimensions of at most \(Self.limits)")
    }
    self.init(hidden: gate.shape[0], feedForward: gate.shape[1], count: gate.shape[2])
  }
}

/// The name of a tensor of experts, `blk.N.ffn_{gate,up,down}_exps.weight` or with another ending.
private struct ExpertTensorName {
  let block: Int
  let isWeight: Bool

  /// Nil if `name` is not the name of such a tensor.
  init?(_ name: String) {
    let parts = name.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4, parts[0] == "blk", let block = Int(parts[1]),
      ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"].contains(parts[2])
    else { return nil }
    self.block = block
    isWeight = parts[3] == "weight"
  }
}

extension Checkpoint {
  /// The experts a token uses of each layer, as the metadata states them, from 1 to `maximum`.
  /// - Throws: `.missingKey`, `.wrongType` or `.invalidValue`.
  package func expertsPerToken(maximum: Int) throws(CheckpointError) -> Int {
    let keys = ArchitectureKeys(source: self, prefix: try string("general.architecture"))
    return try keys.count("expert_used_count", maximum: maximum)
  }
}

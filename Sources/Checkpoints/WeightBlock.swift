package import Tensors

/// The blocks of weights that have one scale, where weights are 8-bit floats with scales apart.
package struct WeightBlock: Sendable, Hashable {
  static let rowsKey = "weight_block.rows"
  static let columnsKey = "weight_block.columns"

  package let rows: Int
  /// A multiple of 32.
  package let columns: Int

  /// The shape of the scales of weights, in GGML's order: the first two dimensions in blocks.
  func scaleShape(of weights: [Int]) -> [Int] {
    [(weights[0] + columns - 1) / columns, (weights[1] + rows - 1) / rows]
      + Array(weights.dropFirst(2))
  }

  /// The scales of a matrix of `columns` values a row, which begin at `values`.
  package func scales(_ values: UnsafePointer<Float>, columns count: Int) -> BlockScales {
    BlockScales(
      values: values, rows: rows, columns: columns, stride: (count + columns - 1) / columns)
  }

  /// Scales of one expert of a stack whose matrices have so many columns and rows.
  package func scaleCount(columns: Int, rows: Int) -> Int {
    scaleShape(of: [columns, rows]).reduce(1, *)
  }
}

extension ArchitectureKeys {
  /// What the file says of blocks; nil: its weights have no scales apart.
  func weightBlock() throws(CheckpointError) -> WeightBlock? {
    guard let rows = try countIfPresent(WeightBlock.rowsKey, maximum: 1 << 24) else { return nil }
    let columns = try count(WeightBlock.columnsKey, maximum: 1 << 24)
    guard columns.isMultiple(of: 32) else {
      throw invalid(WeightBlock.columnsKey, "\(columns)", "a multiple of 32")
    }
    return WeightBlock(rows: rows, columns: columns)
  }
}

extension ExpectedTensor {
  /// The tensor with the scales of this one.
  func scales(_ block: WeightBlock) -> ExpectedTensor {
    ExpectedTensor(
      name: scaleName(of: name), shape: block.scaleShape(of: shape), types: [.f32, .f16, .bf16])
  }

  /// The same tensor, which may be of 8-bit floats if it is a matrix of a layer.
  func allowingScales(_ model: ModelDescription) -> ExpectedTensor {
    guard model.weightBlock != nil, name.hasPrefix("blk."), name.hasSuffix(".weight"),
      !name.contains("ffn_gate_inp"), types.count > 3, shape[0].isMultiple(of: 32)
    else { return self }
    return ExpectedTensor(name: name, shape: shape, types: types + [.f8_E4M3])
  }
}

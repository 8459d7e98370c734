package import Tensors

/// The scales of a layer's experts, where these are 8-bit floats. The memory belongs to whoever made the value
/// and must outlive the runtime.
package struct ExpertScales {
  /// Those of the first expert's gate, up and down matrix, [3]; nil: the matrix has none.
  private let first: [BlockScales?]
  /// Scales of one expert of each, [3].
  private let counts: [Int]

  /// - Parameters:
  ///   - first: of gate, up and down.
  ///   - counts: scales from one expert to the next.
  package init(first: [BlockScales?], counts: [Int]) {
    self.first = first
    self.counts = counts
  }

  func scales(_ matrix: ExpertMatrix, _ expert: Int) -> BlockScales? {
    first[matrix.rawValue].map {
      BlockScales(
        values: $0.values + expert * counts[matrix.rawValue], rows: $0.rows, columns: $0.columns,
        stride: $0.stride)
    }
  }
}

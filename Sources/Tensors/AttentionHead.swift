internal import CKernels

/// The keys and values that a query head attends to, and how.
package struct AttentionHead {
  /// Rows of keys, one for each position, in half or single precision. The memory belongs to whoever made
  /// the value and must outlive it.
  package var keys: UnsafeRawPointer
  /// Rows of values; they may lie within those of the keys.
  package var values: UnsafeRawPointer
  package var isHalf: Bool
  /// Values of a query and of a key.
  package var dimension: Int
  /// Values of a value and of an output.
  package var valueDimension: Int
  /// Values from one row to the next.
  package var keyStride: Int
  package var valueStride: Int
  /// What products of queries and keys are multiplied by.
  package var scale: Float
  /// How many positions a token sees, up to its own; nil: all.
  package var window: Int?
  /// A score without a value, which takes its share of the softmax (arXiv 2309.17453).
  package var sink: Float?

  /// Rows of `dimension` values that touch; everything is seen.
  package init(
    keys: UnsafeRawPointer, values: UnsafeRawPointer, isHalf: Bool, dimension: Int, scale: Float
  ) {
    self.keys = keys
    self.values = values
    self.isHalf = isHalf
    self.dimension = dimension
    valueDimension = dimension
    keyStride = dimension
    valueStride = dimension
    self.scale = scale
  }

  var cValue: ckernels_attention_head {
    ckernels_attention_head(
      k: keys, v: values, half: isHalf, dimension: dimension, value_dimension: valueDimension,
      k_stride: keyStride, v_stride: valueStride, scale: scale, window: window ?? 0,
      has_sink: sink != nil, sink: sink ?? 0)
  }
}

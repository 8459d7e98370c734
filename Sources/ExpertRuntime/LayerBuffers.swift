internal import Routing
internal import Tensors

/// The working memory of one MoE layer, for up to `tokenCapacity` tokens, and the grouping of its
/// (token, expert) pairs by expert.
///
/// A pair's intermediate vectors live at the pair's place in the grouping, so that each expert
/// computes on consecutive rows; its output is found again through `position` and summed in
/// routing order.
struct LayerBuffers {
  let tokenCapacity: Int
  let topK: Int
  private let expertCount: Int
  /// Layer inputs, [tokens, hidden].
  let input: ActivationRows
  /// Gate products, [pairs, feed-forward].
  let gate: UnsafeMutablePointer<Float>
  /// SwiGLU of gate and up products, [pairs, feed-forward].
  let inner: ActivationRows
  /// Expert outputs, [pairs, hidden].
  let output: UnsafeMutablePointer<Float>
  /// Input rows by place in the grouping, as floats and quantised, [pairs].
  private let floatInputs: UnsafeMutablePointer<UnsafeRawPointer>
  private let quantizedInputs: UnsafeMutablePointer<UnsafeRawPointer>
  let gateRows: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
  let innerRows: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
  let outputRows: UnsafeMutablePointer<UnsafeMutablePointer<Float>>
  /// The place in the grouping of each pair, [tokens, topK].
  let position: UnsafeMutablePointer<Int32>
  /// Where each expert's pairs begin in the grouping, [experts + 1].
  private let start: UnsafeMutablePointer<Int32>

  init(
    tokenCapacity: Int, topK: Int, expertCount: Int, hidden: Int, feedForward: Int,
    kernels: Kernels, cursor: inout ScratchCursor
  ) {
    self.tokenCapacity = tokenCapacity
    self.topK = topK
    self.expertCount = expertCount
    let pairs = tokenCapacity * topK
    input = ActivationRows(
      capacity: tokenCapacity, columns: hidden, kernels: kernels, cursor: &cursor)
    gate = cursor.take(pairs * feedForward)
    inner = ActivationRows(capacity: pairs, columns: feedForward, kernels: kernels, cursor: &cursor)
    output = cursor.take(pairs * hidden)
    floatInputs = cursor.take(pairs)
    quantizedInputs = cursor.take(pairs)
    gateRows = cursor.take(pairs)
    innerRows = cursor.take(pairs)
    outputRows = cursor.take(pairs)
    position = cursor.take(pairs)
    start = cursor.take(expertCount + 1)
  }

  /// Fills the pointers that never change, once, when the cursor was over real memory.
  func bind(hidden: Int, feedForward: Int) {
    input.bind(capacity: tokenCapacity)
    inner.bind(capacity: tokenCapacity * topK)
    for pair in 0..<(tokenCapacity * topK) {
      (gateRows + pair).initialize(to: gate + pair * feedForward)
      (innerRows + pair).initialize(to: inner.row(pair))
      (outputRows + pair).initialize(to: output + pair * hidden)
    }
  }

  /// Groups the pairs of `routing` by expert.
  func group(_ routing: borrowing Routing) {
    let tokens = routing.tokenCount
    start.update(repeating: 0, count: expertCount + 1)
    for expert in routing.experts { start[Int(expert) + 1] += 1 }
    for expert in 0..<expertCount { start[expert + 1] += start[expert] }
    // Placing a pair moves its expert's start forward; shifting back restores the starts.
    for pair in 0..<(tokens * topK) {
      let expert = Int(routing.experts[pair])
      let place = Int(start[expert])
      start[expert] += 1
      position[pair] = Int32(place)
      floatInputs[place] = input.rows(for: .f32)[pair / topK]
      quantizedInputs[place] = input.rows(for: .q8_0)[pair / topK]
    }
    for expert in stride(from: expertCount, to: 0, by: -1) { start[expert] = start[expert - 1] }
    start[0] = 0
  }

  /// The places in the grouping of the pairs of `expert`.
  func places(of expert: Int) -> Range<Int> { Int(start[expert])..<Int(start[expert + 1]) }

  /// Input rows from `place` on in the form weights of `type` need.
  func inputs(from place: Int, for type: ElementType) -> UnsafePointer<UnsafeRawPointer> {
    UnsafePointer((type.wantsQuantizedActivations ? quantizedInputs : floatInputs) + place)
  }
}

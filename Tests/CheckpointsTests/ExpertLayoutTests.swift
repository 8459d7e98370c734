import Tensors
import Testing

@testable import Checkpoints

@Suite struct ExpertLayoutTests {
  private let scratch: ScratchDirectory
  private let path: String

  init() throws {
    scratch = try ScratchDirectory()
    path = scratch.file("tiny.gguf")
  }

  private func expect(_ error: CheckpointError, _ tiny: TinyModel) throws {
    try tiny.write(path)
    #expect(throws: error) { try describe(path) }
  }

  @Test func slicesCoverTheExpertsAndDenseTensorsTheRest() throws {
    var tiny = TinyModel("qwen3moe", weights: .q8_0)
    tiny.replace(
      "blk.1.ffn_down_exps.weight",
      with: .init(name: "blk.1.ffn_down_exps.weight", type: .q5_0, shape: [32, 64, 4]))
    try tiny.write(path)
    let (checkpoint, _, layout) = try describe(path)
    #expect([layout.layerCount, layout.expertCount] == [2, 4])
    #expect([layout.hiddenSize, layout.feedForwardSize] == [64, 32])
    // Blocks of 32 values: 34 bytes in Q8_0, 22 in Q5_0.
    #expect(
      layout.shape(layer: 1)
        == ExpertShape(
          hidden: 64, feedForward: 32, gateType: .q8_0, upType: .q8_0, downType: .q5_0,
          gateByteCount: 64 * 34, upByteCount: 64 * 34, downByteCount: 64 * 22))
    #expect(layout.byteCount(layer: 0) == 4 * 3 * 64 * 34)
    #expect(layout.byteCount(layer: 1) == 4 * 64 * (34 + 34 + 22))
    for layer in 0..<2 {
      for (kind, slice) in [
        ("gate", \ExpertSlices.gate), ("up", \ExpertSlices.up), ("down", \ExpertSlices.down),
      ] {
        let info = try checkpoint.tensor("blk.\(layer).ffn_\(kind)_exps.weight")
        var next = info.offset
        for expert in 0..<4 {
          let found = layout.slices(layer: layer, expert: expert)[keyPath: slice]
          #expect(found.offset == next)
          next += UInt64(found.byteCount)
        }
        #expect(next == info.offset + UInt64(info.byteCount))
      }
    }
    #expect(layout.denseTensors.count == tiny.tensors.count - 6)
    #expect(layout.denseTensors.allSatisfy { !$0.name.contains("_exps") })
    #expect(
      layout.denseByteCount + layout.totalExpertByteCount
        == checkpoint.tensors.values.reduce(0) { $0 + $1.byteCount })
  }

  @Test(arguments: [
    "token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.weight",
    "blk.0.attn_k.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight",
    "blk.0.attn_q_norm.weight", "blk.1.attn_k_norm.weight", "blk.1.ffn_norm.weight",
    "blk.1.ffn_gate_inp.weight", "blk.1.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight",
    "blk.0.ffn_down_exps.weight",
  ])
  func everyTensorIsNeededInItsShape(name: String) throws {
    for architecture in ["olmoe", "qwen3moe"] {
      let whole = TinyModel(architecture)
      var tiny = whole
      tiny.replace(name, with: nil)
      try expect(.missingTensor(path: path, tensor: name), tiny)

      let shape = whole.tensors.first { $0.name == name }!.shape
      let wrong = Array(shape.dropLast()) + [shape.last! + 1]
      tiny = whole
      tiny.replace(name, with: .init(name: name, type: .f32, shape: wrong))
      try expect(
        .wrongShape(path: path, tensor: name, found: wrong, expected: shape), tiny)
    }
  }

  @Test func typesThatCannotBeComputedAreRefused() throws {
    let computable = ElementType.allCases.filter(\.isComputable)
    var tiny = TinyModel("olmoe")
    let experts = "blk.1.ffn_up_exps.weight"
    tiny.replace(experts, with: .init(name: experts, type: .i32, shape: [64, 32, 4]))
    try expect(
      .unsupportedElementType(
        path: path, tensor: experts, found: .i32, supported: computable), tiny)
    tiny = TinyModel("olmoe")
    let norm = "blk.0.attn_norm.weight"
    tiny.replace(norm, with: .init(name: norm, type: .i32, shape: [64]))
    try expect(
      .unsupportedElementType(
        path: path, tensor: norm, found: .i32, supported: [.f32, .f16, .bf16]), tiny)
  }

  @Test(arguments: ["rope_other.weight", "blk.0.attn_q.bias", "blk.2.attn_norm.weight"])
  func tensorsThatAreNotUnderstoodAreRefused(name: String) throws {
    var tiny = TinyModel("olmoe")
    tiny.tensors.append(.init(name: name, type: .f32, shape: [8]))
    try expect(.unsupportedTensor(path: path, tensor: name), tiny)
  }
}

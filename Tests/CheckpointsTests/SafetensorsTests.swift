import FoundationEssentials
import Tensors
import TestSupport
import Testing

@testable import Checkpoints

/// Safetensors files and folders of Hugging Face's; that such models compute what they should is for
/// `OracleTests`.
@Suite struct SafetensorsTests {
  private let scratch: ScratchDirectory
  private let path: String

  init() throws {
    scratch = try ScratchDirectory()
    path = scratch.file("model.safetensors")
  }

  /// The committed folder of that name.
  private static func fixture(_ name: String) -> URL {
    URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "Fixtures").appending(path: name)
  }

  private func write(_ header: String, length: UInt64? = nil, data: Int = 64) throws {
    var bytes = Data()
    let count = length ?? UInt64(header.utf8.count)
    for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: count >> UInt64(8 * shift))) }
    bytes.append(contentsOf: header.utf8)
    bytes.append(Data(count: data))
    try bytes.write(to: URL(filePath: path))
  }

  @Test func aHeaderIsRead() throws {
    let header =
      #"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[3,4],"data_offsets":[16,40]},"#
      + #""a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"c":{"dtype":"F16","shape":[],"data_offsets":[40,42]}}"#
    let padded = header + String(repeating: " ", count: 8 - header.utf8.count % 8)
    try write(padded)
    let found = try SafetensorsHeader(path: path, file: 3)
    let start = UInt64(8 + padded.utf8.count)
    #expect(
      found.tensors == [
        TensorInfo(name: "a", type: .f32, shape: [4], file: 3, offset: start, byteCount: 16),
        TensorInfo(
          name: "b", type: .bf16, shape: [4, 3], file: 3, offset: start + 16, byteCount: 24),
        TensorInfo(name: "c", type: .f16, shape: [1], file: 3, offset: start + 40, byteCount: 2),
      ])
  }

  @Test(arguments: [
    ("", nil, "JSON"), ("[]", nil, "JSON"), (#"{"a":1}"#, nil, "JSON"),
    (#"{"a":{"dtype":"F32","shape":[1]}}"#, nil, "data_offsets"),
    ("{}", 1 << 40, "at most 100000000"), ("{}", 99, "cannot fit"),
    (
      #"{"a":{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}}"#, nil, "BF16, F16, F32, F8_E4M3"
    ),
    (#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,15]}} "#, nil, "16 bytes apart"),
    (#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}} "#, nil, "16 bytes apart"),
    (#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16]}}"#, nil, "16 bytes apart"),
    (#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[64,80]}} "#, nil, "beyond"),
    (#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#, nil, "dimension 0"),
    (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, nil, "dimension 0"),
    (
      #"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,4]}}"#, nil,
      "exceeds"
    ),
    (
      #"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}  "#,
      nil, "overlap"
    ),
    (#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}  "#, nil, "multiple of 4"),
  ])
  func malformedHeadersAreNamed(header: String, length: UInt64?, reason: String) throws {
    // Padded as the format's library does it, but where the missing padding is what is wrong.
    let padding = reason == "multiple of 4" || length != nil ? 0 : (8 - header.utf8.count % 8) % 8
    try write(header + String(repeating: " ", count: padding), length: length)
    let error = #expect(throws: CheckpointError.self) {
      _ = try SafetensorsHeader(path: path, file: 0)
    }
    #expect("\(error!)".contains(path), "\(error!)")
    #expect("\(error!)".contains(reason), "\(error!)")
  }

  /// A copy of a committed folder, to be spoilt.
  private func copy(_ name: String) throws -> URL {
    let folder = URL(filePath: scratch.file(name))
    try FileManager.default.copyItem(at: Self.fixture(name), to: folder)
    return folder
  }

  @Test func aFolderIsACheckpointWhicheverOfItsPathsIsGiven() throws {
    let folder = Self.fixture("tiny-mixtral").path
    let checkpoint = try Checkpoint.open(folder)
    #expect(checkpoint.files.count > 1 && checkpoint.version == nil)
    let model = try ModelDescription(checkpoint)
    try checkpoint.validateTensors(model)
    #expect(model.architecture == .mixtral && model.rotaryPairs == .halves)
    let layout = try ExpertLayout(checkpoint, model: model)
    #expect(layout.expertCount == 8 && layout.layerCount == 3)
    for other in [folder + "/", folder + "/model.safetensors.index.json", checkpoint.files[0].path]
    {
      #expect(try Checkpoint.open(other).tensors == checkpoint.tensors)
    }
  }

  @Test(arguments: [
    ("config.json", "MixtralForCausalLM", "LlamaForCausalLM", "LlamaForCausalLM"),
    (
      "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": \"3\"", "num_hidden_layers"
    ),
    ("config.json", "\"num_hidden_layers\": 3,", "", "num_hidden_layers"),
    ("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", "blk.3"),
    ("config.json", "\"num_local_experts\": 8", "\"num_local_experts\": 9", "of 8 experts"),
    ("config.json", "\"sliding_window\": null", "\"sliding_window\": 64", "sliding_window"),
    ("config.json", "\"silu\"", "\"gelu\"", "hidden_act"),
    ("config.json", "\"rope_type\": \"default\"", "\"rope_type\": \"dynamic\"", "'dynamic'"),
    ("config.json", "{", "", "JSON"),
    ("config.json", "\"vocab_size\": 320", "\"vocab_size\": 100", "model.vocab"),
    ("config.json", "\"vocab_size\": 320", "\"vocab_size\": -5", "vocab_size"),
    ("config.json", "\"vocab_size\": 320", "\"vocab_size\": 1000000000000", "vocab_size"),
    (
      "config.json", "\"hidden_size\": 64", "\"hidden_size\": 9223372036854775807",
      "embedding_length"
    ),
    ("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": -1", "block_count"),
    (
      "config.json", "\"num_attention_heads\": 4", "\"num_attention_heads\": 0",
      "num_attention_heads"
    ),
    ("tokenizer.json", "\"BPE\"", "\"Unigram\"", "Unigram"),
    ("tokenizer.json", "\\\\p{L}", "\\\\p{P}", "splits by"),
    ("model.safetensors.index.json", "model-00001", "model-00009", "missing"),
    ("model.safetensors.index.json", "model-00001", "../model-00001", "beside it"),
  ])
  func whatIsWrongInAFolderIsNamed(
    file: String, old: String, new: String, reason: String
  ) throws {
    try expectRefusal("tiny-mixtral", file: file, old: old, new: new, reason: reason)
  }

  /// Latent attention, and 8-bit floats with their scales.
  @Test(arguments: [
    ("config.json", "\"fp8\"", "\"gptq\"", "quant_method"),
    ("config.json", "\"fp8\"", "\"compressed-tensors\"", "format"),
    ("config.json", "\"e4m3\"", "\"e5m2\"", "fmt"),
    (
      "config.json", "\"weight_block_size\": [", "\"weight_block_size\": [ 32,", "weight_block_size"
    ),
    ("config.json", "\"weight_block_size\"", "\"other\"", "weight_block_size"),
    ("config.json", "\"quantization_config\"", "\"other\"", "F8_E4M3"),
    ("config.json", "\"mscale\": 0.7", "\"mscale\": 0.8", "mscale_all_dim"),
    ("config.json", "\"kv_lora_rank\": 64", "\"kv_lora_rank\": 96", "kv_b_proj"),
    ("config.json", "\"kv_lora_rank\": 64", "\"kv_lora_rank\": 0", "kv_lora_rank"),
    ("config.json", "\"qk_nope_head_dim\": 32", "\"qk_nope_head_dim\": 16", "kv_b_proj"),
    ("config.json", "\"v_head_dim\": 32", "\"v_head_dim\": 9223372036854775807", "v_head_dim"),
    ("config.json", "\"use_cache\"", "\"scoring_func\": \"softmax\", \"c\"", "scoring_func"),
    ("config.json", "\"use_cache\"", "\"moe_layer_freq\": 2, \"c\"", "moe_layer_freq"),
    ("model.safetensors", "o_proj.weight_scale_inv", "o_proj.weight_scale_abc", "scale"),
    ("model.safetensors", "0.up_proj.weight_scale_inv", "9.up_proj.weight_scale_inv", "expert 0"),
  ])
  func whatIsWrongWithScalesIsNamed(
    file: String, old: String, new: String, reason: String
  ) throws {
    try expectRefusal("tiny-deepseek3-fp8", file: file, old: old, new: new, reason: reason)
  }

  private func expectRefusal(
    _ name: String, file: String, old: String, new: String, reason: String
  ) throws {
    let folder = try copy(name)
    let url = folder.appending(path: file)
    var bytes = try Data(contentsOf: url)
    let range = try #require(bytes.firstRange(of: Data(old.utf8)), "\(file) has no \(old)")
    bytes.replaceSubrange(range, with: Data(new.utf8))
    try bytes.write(to: url)
    let error = #expect(throws: CheckpointError.self) {
      let checkpoint = try Checkpoint.open(folder.path)
      let model = try ModelDescription(checkpoint)
      _ = try ExpertLayout(checkpoint, model: model)
      try checkpoint.validateTensors(model)
    }
    #expect("\(error!)".contains(reason), "\(error!)")
    #expect("\(error!)".contains(folder.path), "\(error!)")
  }

  /// Blocks that predict further tokens are left alone; what is not known is refused.
  @Test(arguments: [("model.mtp_block.0.weight", true), ("model.unknown.weight", false)])
  func tensorsBesideTheModelAreLeftAloneOrRefused(name: String, isKnown: Bool) throws {
    let folder = try copy("tiny-ernie4_5moe")
    let url = folder.appending(path: "model.safetensors")
    let bytes = try Data(contentsOf: url)
    let length = (0..<8).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) }
    let end = bytes.count - 8 - length
    var header = String(decoding: bytes[8..<(8 + length)], as: UTF8.self)
    header = String(header[..<header.lastIndex(of: "}")!])
    header +=
      ",\"\(name)\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[\(end),\(end + 8)]}}"
    header += String(repeating: " ", count: (8 - header.utf8.count % 8) % 8)
    var changed = Data((0..<8).map { UInt8(truncatingIfNeeded: header.utf8.count >> (8 * $0)) })
    changed.append(contentsOf: header.utf8)
    changed.append(bytes[(8 + length)...])
    changed.append(Data(count: 8))
    try changed.write(to: url)
    let checkpoint = try Checkpoint.open(folder.path)
    let model = try ModelDescription(checkpoint)
    if isKnown {
      try checkpoint.validateTensors(model)
    } else {
      #expect(throws: CheckpointError.unsupportedTensor(path: url.path, tensor: name)) {
        try checkpoint.validateTensors(model)
      }
    }
  }

  @Test func generationEndsWhereItsConfigurationSays() throws {
    let folder = try copy("tiny-ernie4_5moe")
    let own = try Checkpoint.open(folder.path)
    #expect(try own.integerIfPresent("tokenizer.ggml.eos_token_id") == 308)
    let url = folder.appending(path: "generation_config.json")
    try Data(#"{"eos_token_id": [307, 306], "bos_token_id": 5}"#.utf8).write(to: url)
    let checkpoint = try Checkpoint.open(folder.path)
    #expect(try checkpoint.integerIfPresent("tokenizer.ggml.eos_token_id") == 307)
    #expect(try checkpoint.integerIfPresent("tokenizer.ggml.eot_token_id") == 306)
    #expect(try checkpoint.integerIfPresent("tokenizer.ggml.bos_token_id") == 5)
  }

  @Test func missingFilesAreNamed() throws {
    let folder = try copy("tiny-ernie4_5moe")
    for file in ["tokenizer.json", "model.safetensors", "config.json"] {
      try FileManager.default.removeItem(at: folder.appending(path: file))
      let error = #expect(throws: CheckpointError.self) { _ = try Checkpoint.open(folder.path) }
      #expect("\(error!)".contains(file), "\(error!)")
    }
  }

  /// Whatever bytes a file has, it is opened or refused.
  @Test(arguments: ["model.safetensors", "config.json", "tokenizer.json"])
  func mutatedFilesAreOpenedOrRefused(_ file: String) throws {
    let folder = try copy("tiny-ernie4_5moe")
    let url = folder.appending(path: file)
    let original = try Data(contentsOf: url)
    var random = SeededGenerator(seed: 5)
    for round in 0..<150 {
      var changed = original
      let reach = min(changed.count, file == "model.safetensors" ? 6000 : 1 << 20)
      for _ in 0...Int(random.next() % 4) {
        changed[Int(random.next() % UInt64(reach))] = UInt8(truncatingIfNeeded: random.next())
      }
      if round % 5 == 0 { changed = changed.prefix(Int(random.next() % UInt64(changed.count))) }
      try changed.write(to: url)
      do throws(CheckpointError) {
        let checkpoint = try Checkpoint.open(folder.path)
        let model = try ModelDescription(checkpoint)
        try checkpoint.validateTensors(model)
        _ = try ExpertLayout(checkpoint, model: model)
      } catch {
        #expect(!"\(error)".isEmpty)
      }
    }
  }
}

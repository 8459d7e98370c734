import Checkpoints
import FoundationEssentials
import Glibc
import Logging
import Testing

@testable import Stoker

/// A packed model gives the bits of the one it was packed from, and tells damaged bytes when it reads them.
@Suite struct PackedModelTests {
  private let folder: URL
  private var packed: String { folder.appendingPathComponent("packed.gguf").path }

  init() throws {
    folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("packed-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  private func finish() { try? FileManager.default.removeItem(at: folder) }

  private func options(_ file: ModelFile, share: Double) throws -> ModelOptions {
    var options = ModelOptions(processMemory: 32 << 20, context: 64, threads: 2)
    let needs = try file.requirements(options)
    options.memory =
      needs.minimumBudget + Int(share * Double(needs.fullBudget - needs.minimumBudget))
    return options
  }

  /// Bits of the logits of a prompt and of tokens after it.
  private func output(_ file: ModelFile, _ options: ModelOptions) throws -> [UInt32] {
    let model = try MoEModel(file, options: options, logger: Logger(label: "test"))
    var bits: [UInt32] = []
    var next: Int32 = 0
    func note(_ logits: UnsafeMutableBufferPointer<Float>) {
      bits += logits.map(\.bitPattern)
      next = Int32(logits.indices.max { logits[$0] < logits[$1] }!)
    }
    let prompt: [Int32] = (0..<20).map { ($0 * 37 + 11) % 300 }
    try model.transformer.forward(prompt.span, at: 0, phase: .prefill, logits: .all) { note($1) }
    for step in 0..<12 {
      try model.transformer.forward(
        [next].span, at: prompt.count + step, phase: .decode, logits: .last
      ) { note($1) }
    }
    return bits
  }

  @Test(
    arguments: Fixtures.tinyModels.map(Fixtures.tiny)
      + (Fixtures.tinyFolders + Fixtures.packedFolders).map(Fixtures.folder)
      + [Fixtures.demo])
  func packingChangesNoBit(_ path: String) throws {
    defer { finish() }
    let source = try ModelFile(path: path)
    let expected = try output(source, options(source, share: 1))
    _ = try ModelPacking(source, to: packed).write()
    let file = try ModelFile(path: packed)
    #expect(file.tokenizer.encodePrompt("a b") == source.tokenizer.encodePrompt("a b"))
    for share in [0.0, 0.5, 1] {
      var options = try options(file, share: share)
      options.verifiesReads = share != 0.5
      #expect(try output(file, options) == expected, "\(path) with \(share) of the budget")
    }
    #expect(try ModelPacking.verify(packed).damaged.isEmpty)
  }

  @Test func quantizedModelsKeepThePromises() throws {
    defer { finish() }
    let source = try ModelFile(path: Fixtures.tiny("tiny-olmoe"))
    _ = try ModelPacking(
      source, to: packed, quantization: .q8_0, denseQuantization: .q8_0
    ).write(threads: 1)
    let file = try ModelFile(path: packed)
    #expect(try file.summary().expertGroups.map(\.gateType) == ["Q8_0"])
    let resident = try output(file, options(file, share: 1))
    #expect(try output(file, options(file, share: 0)) == resident)
    // Eight bits are near 32, in the mean over a prompt.
    let exact = try output(source, options(source, share: 1)).map { Float(bitPattern: $0) }
    var (error, energy) = (Float(0), Float(0))
    for (value, bits) in zip(exact, resident).prefix(20 * file.description.vocabularySize) {
      error += (value - Float(bitPattern: bits)) * (value - Float(bitPattern: bits))
      energy += value * value
    }
    #expect(error > 0 && error < 0.01 * energy, "\(error / energy)")
  }

  /// What becomes of 8-bit floats is what becomes of their values, which the GGUF file has.
  @Test(arguments: ["tiny-qwen3moe-fp8", "tiny-deepseek3-fp8", "tiny-glm4moe-fp8"])
  func eightBitFloatsAreQuantizedWithTheirScales(_ name: String) throws {
    defer { finish() }
    let values = folder.appendingPathComponent("values.gguf").path
    for (path, target) in [(Fixtures.folder(name), packed), (Fixtures.tiny(name), values)] {
      _ = try ModelPacking(
        ModelFile(path: path), to: target, quantization: .q8_0, denseQuantization: .q8_0
      ).write()
    }
    // And again, from the packed file that keeps them.
    let kept = folder.appendingPathComponent("kept.gguf").path
    _ = try ModelPacking(ModelFile(path: Fixtures.folder(name)), to: kept).write()
    let again = folder.appendingPathComponent("again.gguf").path
    _ = try ModelPacking(
      ModelFile(path: kept), to: again, quantization: .q8_0, denseQuantization: .q8_0
    ).write()
    let reference = try Self.experts(values)
    #expect(try Self.experts(packed) == reference)
    #expect(try Self.experts(again) == reference)
    for path in [packed, again] {
      let file = try ModelFile(path: path)
      #expect(try ModelPacking.verify(path).damaged.isEmpty)
      #expect(try file.summary().expertGroups.map(\.gateType) == ["Q8_0"])
      #expect(try output(file, options(file, share: 0)) == output(file, options(file, share: 1)))
    }
  }

  /// The bytes of all experts, gate, up and down.
  private static func experts(_ path: String) throws -> [Data] {
    let layout = try ModelFile(path: path).layout
    let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
    return (0..<layout.layerCount).flatMap { layer in
      (0..<layout.expertCount).flatMap { expert -> [Data] in
        let slices = layout.slices(layer: layer, expert: expert)
        return [slices.gate, slices.up, slices.down].map {
          Data(bytes[Int($0.offset)..<Int($0.offset) + $0.byteCount])
        }
      }
    }
  }

  @Test func aDamagedExpertIsToldWhenItIsRead() throws {
    defer { finish() }
    let source = try ModelFile(path: Fixtures.demo)
    _ = try ModelPacking(source, to: packed).write()
    let file = try ModelFile(path: packed)
    // Every expert's up matrix: the first that is read is one.
    let descriptor = open(packed, O_WRONLY)
    try #require(descriptor >= 0)
    for layer in 0..<file.layout.layerCount {
      for expert in 0..<file.layout.expertCount {
        let slice = file.layout.slices(layer: layer, expert: expert).up
        try #require(pwrite(descriptor, [0x55] as [UInt8], 1, off_t(slice.offset) + 100) == 1)
      }
    }
    close(descriptor)
    var options = try options(file, share: 0.3)
    _ = try output(file, options)
    options.verifiesReads = true
    do {
      _ = try output(file, options)
      Issue.record("damaged experts were computed with")
    } catch RuntimeError.read(_, _, let path, let reason) {
      #expect(path == packed && reason.contains("the checksum of its up matrix"))
    }
    #expect(try ModelPacking.verify(packed).damaged.count >= 250)
    #expect(throws: (any Error).self) {
      try MoEModel(source, options: options, logger: Logger(label: "test"))
    }
  }

  /// One of them in memory, where there is such a file system: with other alignments.
  @Test func copiesOnOtherDrivesChangeNoBit() throws {
    defer { finish() }
    let shared = "/dev/shm"
    let other = URL(
      fileURLWithPath: access(shared, W_OK) == 0 ? shared : folder.path
    ).appendingPathComponent("stoker-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: other, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: other) }
    for (name, path) in [
      ("demo-Q4_K_M.gguf", Fixtures.demo), ("model.safetensors", Fixtures.folder("tiny-glm4moe")),
    ] {
      let source = name.hasSuffix(".gguf") ? path : "\(path)/\(name)"
      try FileManager.default.copyItem(
        atPath: source, toPath: other.appendingPathComponent(name).path)
      let plain = try ModelFile(path: path)
      let expected = try output(plain, options(plain, share: 0.3))
      let file = try ModelFile(path: path, folders: [other.path])
      #expect(file.checkpointFiles.count == 2)
      #expect(try file.summary().copies == 1 && file.summary().files == 1)
      for io in [ReadEngineKind.auto, .pread] {
        var options = try options(file, share: 0.3)
        options.io = io
        #expect(try output(file, options) == expected)
      }
    }
  }

  @Test func aTraceOfAnotherModelIsRefused() throws {
    defer { finish() }
    let source = try ModelFile(path: Fixtures.tiny("tiny-olmoe"))
    let trace = RoutingTrace(
      header: TraceHeader(
        model: "other", geometry: RoutingGeometry(expertCount: 3, topK: 1, expertByteCounts: [1]),
        hasWeights: false))
    do {
      _ = try ModelPacking(source, to: packed, trace: TraceSource(trace))
      Issue.record("it was taken")
    } catch { #expect("\(error)".contains("a trace of 1 layers of 3 experts"), "\(error)") }
  }

  /// A folder with the form of Kimi-K2's: DeepSeek-V3's class, a `tiktoken.model` for a tokenizer.
  @Test func aTokenizerOfRanksIsPackedToo() throws {
    defer { finish() }
    let folder = folder.appendingPathComponent("kimi").path
    try FileManager.default.copyItem(atPath: Fixtures.folder("tiny-deepseek3"), toPath: folder)
    try FileManager.default.removeItem(atPath: "\(folder)/tokenizer.json")
    var tokens = (0..<256).map { [UInt8($0)] }
    tokens += [Array("th".utf8), Array("the".utf8), Array(" the".utf8)]
    let lines = tokens.enumerated().map { "\(Data($1).base64EncodedString()) \($0)\n" }
    try Data(lines.joined().utf8).write(to: URL(fileURLWithPath: "\(folder)/tiktoken.model"))
    let names = #"{"added_tokens_decoder": {"260": {"content": "<|im_end|>", "special": true}}}"#
    try Data(names.utf8).write(to: URL(fileURLWithPath: "\(folder)/tokenizer_config.json"))

    let source = try ModelFile(path: folder)
    let ids = source.tokenizer.encode("on the th<|im_end|>")
    #expect(ids == [111, 110, 258, 32, 256, 260])
    let expected = try output(source, options(source, share: 1))
    _ = try ModelPacking(source, to: packed).write()
    let file = try ModelFile(path: packed)
    #expect(file.tokenizer.encode("on the th<|im_end|>") == ids)
    #expect(try output(file, options(file, share: 0)) == expected)
  }
}

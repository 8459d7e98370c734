import Glibc
import Testing

@testable import Checkpoints
@testable import Models
@testable import Tensors

@Suite struct SynthesisTests {
  /// Writes the tiny shape to a file of its own and calls `body` with its path.
  private func withModel<R>(
    _ quantization: SynthesisQuantization = .q4_0, seed: UInt64 = 1, threadCount: Int = 2,
    _ body: (String) throws -> R
  ) throws -> R {
    try withPath { path in
      try Synthesizer(shape: .tiny, quantization: quantization, seed: seed).write(
        to: path, threadCount: threadCount)
      return try body(path)
    }
  }

  /// Calls `body` with a path in a directory that is removed afterwards.
  private func withPath<R>(_ body: (String) throws -> R) throws -> R {
    let parent = getenv("TMPDIR").map { String(cString: $0) } ?? P_tmpdir
    var template = Array("\(parent)/stoker-synthesis-XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil)
    let directory = String(
      decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let path = directory + "/model.gguf"
    defer {
      unlink(path)
      rmdir(directory)
    }
    return try body(path)
  }

  private func bytes(of path: String, from offset: Int = 0, count: Int? = nil) throws -> [UInt8] {
    let file = try #require(fopen(path, "rb"))
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    let count = count ?? ftell(file) - offset
    fseek(file, offset, SEEK_SET)
    var result = [UInt8](repeating: 0, count: count)
    #expect(fread(&result, 1, count, file) == count)
    return result
  }

  /// The values of the first rows of a tensor: as many as `rowCount`.
  private func values(_ name: String, rowCount: Int, path: String) throws -> [Float] {
    let info = try Checkpoint.open(path).tensor(name)
    let count = info.shape[0] * rowCount
    let byteCount = try #require(info.type.byteCount(valueCount: count))
    let blocks = try bytes(of: path, from: Int(info.offset), count: byteCount)
    var values = [Float](repeating: 0, count: count)
    blocks.withUnsafeBytes {
      Kernels(set: .best).dequantize(
        type: info.type, blocks: $0.baseAddress!, count: count, into: &values)
    }
    return values
  }

  private func deviation(_ values: some Collection<Float>) -> (mean: Float, deviation: Float) {
    let mean = values.reduce(0, +) / Float(values.count)
    let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    return (mean, (squares / Float(values.count)).squareRoot())
  }

  @Test func sameSeedGivesTheSameBytesWhateverTheThreads() throws {
    let one = try withModel(threadCount: 1) { try bytes(of: $0) }
    let three = try withModel(threadCount: 3) { try bytes(of: $0) }
    #expect(one == three)
  }

  @Test func anotherSeedGivesOtherBytesOfTheSameSize() throws {
    let one = try withModel(seed: 1) { try bytes(of: $0) }
    let two = try withModel(seed: 2) { try bytes(of: $0) }
    #expect(one.count == two.count)
    let same = zip(one, two).count { $0 == $1 }
    // Headers, offsets of blocks and high bytes of floats agree, random quants by chance.
    #expect(same < one.count / 3)
  }

  @Test(arguments: SynthesisQuantization.allCases)
  func fileIsACheckpointThatCanBeRun(_ quantization: SynthesisQuantization) throws {
    try withModel(quantization) { path in
      let checkpoint = try Checkpoint.open(path)
      let model = try ModelDescription(checkpoint)
      try checkpoint.validateTensors(model)
      let layout = try ExpertLayout(checkpoint, model: model)
      #expect(model.architecture == .olmoe)
      #expect(model.layerCount == 2)
      #expect(model.headDimension == 64)
      #expect(model.expertCount == 8)
      #expect(model.expertsPerToken == 2)
      #expect(model.vocabularySize == 512)
      #expect(!model.tiedOutput)
      for layer in 0..<2 {
        #expect(layout.shape(layer: layer).gateType == quantization.elementType)
        #expect(layout.shape(layer: layer).downType == quantization.elementType)
      }
      let tokenizer = try Tokenizer(TokenizerVocabulary(checkpoint))
      let text = "the hen and \u{e9}\u{4e16} <|endoftext|>"
      let ids = tokenizer.encode(text)
      #expect(ids.contains(tokenizer.controlTokenID("<|endoftext|>") ?? -1))
      #expect(String(decoding: try tokenizer.decode(ids), as: UTF8.self).hasPrefix("the hen and"))
    }
  }

  @Test(arguments: SynthesisQuantization.allCases)
  func summaryTellsTheBytesOfFileAndExpert(_ quantization: SynthesisQuantization) throws {
    try withPath { path in
      let summary = try Synthesizer(shape: .tiny, quantization: quantization, seed: 1).write(
        to: path, threadCount: 1)
      let checkpoint = try Checkpoint.open(path)
      let layout = try ExpertLayout(checkpoint, model: ModelDescription(checkpoint))
      #expect(UInt64(summary.byteCount) == checkpoint.byteCount)
      #expect(summary.expertByteCount == layout.shape(layer: 0).byteCount)
      #expect(summary.expertCount == 16)
    }
  }

  @Test(arguments: SynthesisQuantization.allCases)
  func weightsHaveTheirDeviation(_ quantization: SynthesisQuantization) throws {
    try withModel(quantization) { path in
      // 256 columns: a deviation of 1/16. Of those the first 32 are the shared direction's.
      let up = try values("blk.0.ffn_up_exps.weight", rowCount: 256, path: path)
      let own = up.indices.filter { $0 % 256 >= 32 }.map { up[$0] }
      let shared = up.indices.filter { $0 % 256 < 32 }.map { up[$0] }
      #expect(abs(deviation(own).deviation * 16 - 1) < 0.05)
      #expect(abs(deviation(own).mean * 16) < 0.02)
      #expect(abs(deviation(shared).deviation * 16 - 0.1) < 0.02)
      let norm = try values("blk.1.ffn_norm.weight", rowCount: 1, path: path)
      #expect(abs(deviation(norm).mean - 1) < 0.01)
      #expect((0.01...0.03).contains(deviation(norm).deviation))
    }
  }

  @Test(arguments: SynthesisQuantization.allCases)
  func embeddingsShareADirectionAndDifferOtherwise(_ quantization: SynthesisQuantization) throws {
    try withModel(quantization) { path in
      let rows = try values("token_embd.weight", rowCount: 512, path: path)
      func correlation(_ first: Int, _ second: Int, _ columns: Range<Int>) -> Float {
        func dot(_ a: Int, _ b: Int) -> Float {
          columns.reduce(0) { $0 + rows[a * 256 + $1] * rows[b * 256 + $1] }
        }
        return dot(first, second) / (dot(first, first) * dot(second, second)).squareRoot()
      }
      // Tokens of one topic, of different topics, and the direction of all.
      #expect((0.3...0.7).contains(correlation(3, 60, 32..<256)))
      #expect(abs(correlation(3, 400, 32..<256)) < 0.25)
      #expect(correlation(3, 400, 0..<32) > 0.9)
      let own = rows.indices.filter { $0 % 256 >= 32 }.map { rows[$0] }
      #expect(abs(deviation(own).deviation - 1) < 0.1)
    }
  }

  @Test func unknownShapeNamesTheKnownOnes() {
    #expect(
      throws: SynthesisError.unknownShape(found: "gpt", known: ModelShape.all.map(\.name))
    ) { try ModelShape.named("gpt") }
    #expect("\(SynthesisError.unknownShape(found: "gpt", known: ["tiny"]))".contains("'tiny'"))
  }

  /// A toy of the architecture of `shape`.
  private func toy(_ shape: ModelShape) -> ModelShape {
    ModelShape(
      name: shape.name, architecture: shape.architecture, layerCount: shape.denseLayerCount + 1,
      hiddenSize: 64, headCount: 4, kvHeadCount: shape.latent == nil ? 2 : 1,
      headDimension: shape.latent == nil ? 16 : 48, expertCount: 4,
      expertsPerToken: 2, expertFeedForwardSize: 32, vocabularySize: 512, contextLength: 64,
      ropeBase: shape.ropeBase, rmsEpsilon: shape.rmsEpsilon,
      denseLayerCount: shape.denseLayerCount,
      denseFeedForwardSize: shape.denseFeedForwardSize > 0 ? 96 : 0,
      latent: shape.latent.map {
        LatentAttention(
          queryRank: $0.queryRank.map { _ in 32 }, keyValueRank: 32, plainDimension: 32,
          rotaryDimension: 16, valueDimension: 32)
      },
      groupCount: shape.groupCount > 0 ? 2 : 0, usedGroupCount: shape.groupCount > 0 ? 1 : 0,
      slidingWindow: shape.slidingWindow,
      sharedExpertCount: shape.sharedExpertCount,
      sharedFeedForwardSize: 32 * shape.sharedExpertCount,
      linear: shape.linear.map {
        LinearAttention(
          keyHeadCount: 2, valueHeadCount: 4, dimension: 16, convolutionWidth: 3, layers: [0],
          tilesHeads: $0.tilesHeads, joinsRates: $0.joinsRates)
      })
  }

  /// What is made of a shape is described and has the tensors of its architecture.
  @Test(arguments: ModelShape.all.map(\.name))
  func everyShapeIsAModelThatCanBeRun(_ name: String) throws {
    let shape = toy(try ModelShape.named(name))
    try withPath { path in
      try Synthesizer(shape: shape, quantization: .q4_0, seed: 1).write(to: path, threadCount: 2)
      let checkpoint = try Checkpoint.open(path)
      let model = try ModelDescription(checkpoint)
      try checkpoint.validateTensors(model)
      #expect(model.architecture == shape.architecture)
      #expect(model.denseLayerCount == shape.denseLayerCount)
      #expect(model.sharedFeedForwardSize == shape.sharedFeedForwardSize)
      #expect(model.headDimension == shape.headDimension && model.latent == shape.latent)
      #expect(model.linear == shape.linear)
    }
  }

  @Test func fewerExpertsThanATokenNeedsAreRefused() throws {
    #expect(
      throws: SynthesisError.outOfRange(quantity: "experts", found: 1, minimum: 2, maximum: 512)
    ) { try ModelShape.tiny.resized(experts: 1) }
    #expect(try ModelShape.tiny.resized(layers: 3, experts: 4).layerCount == 3)
  }

  @Test func nothingIsLeftWhenItIsCancelled() throws {
    try withPath { path in
      #expect(throws: SynthesisError.cancelled(path: path)) {
        try Synthesizer(shape: .tiny, quantization: .q4_0, seed: 1).write(
          to: path, threadCount: 1, progress: { _, _ in false })
      }
      #expect(access(path, F_OK) != 0)
      #expect(access(path + ".partial", F_OK) != 0)
    }
  }
}

import Glibc
import Tensors
import Testing

@testable import Checkpoints

/// Files in the packed layout: what is in them is what was packed, whatever interrupts it, and every byte that
/// changes is found.
@Suite struct PackTests {
  let scratch: ScratchDirectory
  var source: String { scratch.file("source.gguf") }
  var packed: String { scratch.file("packed.gguf") }

  init() throws {
    scratch = try ScratchDirectory()
    try TinyModel("qwen3moe", weights: .q8_0).write(source)
  }

  private func packer(
    _ options: Packer.Options = .init(), source: String? = nil
  ) throws -> Packer {
    let (checkpoint, _, layout) = try describe(source ?? self.source)
    return try Packer(checkpoint, layout: layout, options: options, path: packed)
  }

  @discardableResult
  private func pack(
    _ options: Packer.Options = .init(), source: String? = nil
  ) throws -> Packer.Summary {
    try packer(options, source: source).write(to: packed, threadCount: 2) { _, _ in true }
  }

  private func verify() throws -> PackVerification {
    let (checkpoint, _, layout) = try describe(packed)
    return try PackVerification(checkpoint, layout: layout) { _, _ in true }
  }

  /// The bytes of every tensor that holds no expert, and of every matrix of an expert.
  private func weights(_ path: String) throws -> [String: [UInt8]] {
    let (checkpoint, _, layout) = try describe(path)
    let files = try checkpoint.files.map { try readFile($0.path) }
    var found: [String: [UInt8]] = [:]
    for tensor in layout.denseTensors {
      let start = Int(tensor.offset)
      found["\(tensor.name) \(tensor.type) \(tensor.shape)"] =
        Array(files[tensor.file][start..<start + tensor.byteCount])
    }
    for layer in 0..<layout.layerCount {
      for expert in 0..<layout.expertCount {
        let slices = layout.slices(layer: layer, expert: expert)
        for (name, slice) in [("gate", slices.gate), ("up", slices.up), ("down", slices.down)] {
          let start = Int(slice.offset)
          found["\(name) of \(expert) of \(layer)"] =
            Array(files[slice.file][start..<start + slice.byteCount])
        }
      }
    }
    return found
  }

  @Test(arguments: ["qwen3moe", "olmoe"], [ElementType.f32, .q8_0, .q4_0])
  func whatIsInItIsWhatWasPacked(_ architecture: String, _ type: ElementType) throws {
    try TinyModel(architecture, weights: type).write(source)
    let summary = try pack()
    #expect(try weights(packed) == weights(source))
    #expect(summary.byteCount == (try readFile(packed).count))
    #expect(summary.resumedByteCount == 0 && summary.expertCount == 8)
    #expect(try verify().damaged.isEmpty)
    let (before, after) = (try describe(source), try describe(packed))
    #expect(before.1 == after.1)
    // One after the other, on whole blocks: one read an expert.
    let slices = after.2.slices(layer: 1, expert: 2)
    #expect(slices.gate.offset % 4096 == 0)
    #expect(slices.gate.offset + UInt64(slices.gate.byteCount + 63) / 64 * 64 >= slices.up.offset)
    #expect(scratch.names == ["packed.gguf", "source.gguf"])
  }

  @Test func aPackedFileCanBePackedAgain() throws {
    try pack()
    let first = try weights(packed)
    try move(packed, source)
    try pack()
    #expect(try weights(packed) == first)
  }

  @Test func theMostUsedLieFirst() throws {
    var options = Packer.Options()
    options.uses = [[1, 5, 0, 5], [0, 0, 0, 9]]
    try pack(options)
    #expect(try weights(packed) == weights(source))
    let layout = try describe(packed).2
    func order(_ layer: Int) -> [Int] {
      (0..<4).sorted {
        layout.slices(layer: layer, expert: $0).gate.offset
          < layout.slices(layer: layer, expert: $1).gate.offset
      }
    }
    #expect(order(0) == [1, 3, 0, 2] && order(1) == [3, 0, 1, 2])
    #expect(try verify().damaged.isEmpty)
  }

  @Test func weightsAreQuantizedAsTheKernelsDo() throws {
    try TinyModel("qwen3moe", weights: .f32).write(source)
    // Bytes that count up are no numbers: the largest exponents are taken away.
    var bytes = try readFile(source)
    let (checkpoint, _, layout) = try describe(source)
    for tensor in checkpoint.tensors.values where tensor.type == .f32 {
      for place in 0..<tensor.byteCount / 4 { bytes[Int(tensor.offset) + 4 * place + 3] &= 0xbf }
    }
    try writeFile(source, bytes)
    var options = Packer.Options()
    options.quantization = .q8_0
    options.denseQuantization = .q4_0
    try pack(options)
    #expect(try verify().damaged.isEmpty)
    let after = try describe(packed)
    #expect(after.2.shape(layer: 0).gateType == .q8_0)
    #expect(try after.0.tensor("blk.0.attn_q.weight").type == .q4_0)
    for name in ["blk.0.attn_norm.weight", "blk.1.ffn_gate_inp.weight"] {
      #expect(try after.0.tensor(name).type == .f32)
    }
    let slice = layout.slices(layer: 1, expert: 3).down
    var expected = [UInt8](repeating: 0, count: 64 * 34)
    let values = (0..<2048).map { index in
      Float(
        bitPattern: (0..<4).reversed().reduce(UInt32(0)) {
          $0 << 8 | UInt32(bytes[Int(slice.offset) + 4 * index + $1])
        })
    }
    let isWhole = expected.withUnsafeMutableBytes {
      Kernels(set: .portable).quantize(values, count: 2048, to: .q8_0, into: $0.baseAddress!)
    }
    #expect(isWhole)
    #expect(try weights(packed)["down of 3 of 1"] == expected)
  }

  @Test func whatCannotBeQuantizedIsRefused() throws {
    func refusal(_ options: Packer.Options) -> String? {
      do {
        try pack(options)
        return nil
      } catch { return "\(error)" }
    }
    var options = Packer.Options()
    options.quantization = .q4_0
    #expect(refusal(options)?.contains("is Q8_0 already") == true)
    try TinyModel("qwen3moe", weights: .f32).write(source)
    options.quantization = .q4_K
    #expect(refusal(options)?.contains("not whole blocks of Q4_K (256)") == true)
    options.quantization = .q8_0
    #expect(refusal(options)?.contains("not finite") == true)
  }

  @Test func whatIsLeftIsGoneOnWith() throws {
    try pack()
    let whole = try readFile(packed)
    try move(packed, scratch.file("whole"))
    let packer = try packer()
    // However far each attempt comes, the last one is done with the rest, and no sooner.
    var attempts = 0
    var firsts: [Int] = []
    while true {
      attempts += 1
      var calls = 0
      do {
        let summary = try packer.write(to: packed, threadCount: 1) { done, _ in
          if calls == 0 { firsts.append(done) }
          calls += 1
          return calls < 7
        }
        #expect(summary.resumedByteCount > 0)
        break
      } catch {
        #expect("\(error)".contains("is not whole yet"))
        #expect(scratch.names.contains("packed.gguf.partial"))
        #expect(!scratch.names.contains("packed.gguf"))
      }
    }
    #expect(attempts > 4)
    #expect(firsts == firsts.sorted() && Set(firsts).count == firsts.count)
    #expect(try readFile(packed) == whole)
  }

  @Test func whatIsLeftOfAnotherModelIsNotTouched() throws {
    func stop(_ packer: Packer) throws {
      #expect(throws: PackingError.self) {
        try packer.write(to: packed, threadCount: 1) { _, _ in false }
      }
    }
    try stop(packer())
    let left = try readFile(packed + ".partial")
    var options = Packer.Options()
    options.uses = [[0, 1, 2, 3], [0, 0, 0, 0]]
    for other in [try packer(options)] {
      do {
        _ = try other.write(to: packed, threadCount: 1) { _, _ in true }
        Issue.record("another model's remains were used")
      } catch { #expect("\(error)".contains("remove it")) }
    }
    var beginning = Array(left.prefix(1000))
    beginning[500] ^= 1
    try writeFile(packed + ".partial", beginning)
    #expect(throws: PackingError.self) { try pack() }
    #expect(try readFile(packed + ".partial") == beginning)
  }

  /// A process that ends while it writes the header leaves nothing that has to be removed.
  @Test func aHeaderThatIsNotWholeIsWrittenAnew() throws {
    try pack()
    let whole = try readFile(packed)
    for count in [1, 100, 1000, try packer().header.bytes.count] {
      try #require(unlink(packed) == 0)
      try writeFile(packed + ".partial", Array(whole.prefix(count)))
      try pack()
      #expect(try readFile(packed) == whole, "after \(count) bytes")
    }
  }

  @Test func twoDoNotWriteOneFile() throws {
    let first = try packer()
    var refusal: String?
    _ = try first.write(to: packed, threadCount: 1) { _, _ in
      do { try pack() } catch { refusal = "\(error)" }
      return true
    }
    #expect(refusal?.contains("is being written by another process") == true)
    #expect(try verify().damaged.isEmpty)
  }

  @Test func aFullDiskIsRefusedBeforeAnythingIsWritten() throws {
    // Only its header is there; the experts are a hole of some terabytes.
    var tiny = TinyModel("qwen3moe", weights: .f32)
    tiny.set("embedding_length", .uint32(1 << 14))
    tiny.set("expert_feed_forward_length", .uint32(1 << 18))
    tiny.tensors = tiny.tensors.map { tensor in
      let shape = tensor.shape.map { $0 == 64 ? 1 << 14 : $0 == 32 ? 1 << 18 : $0 }
      let isExpert = tensor.name.contains("_exps")
      return .init(name: tensor.name, type: tensor.type, shape: isExpert ? shape : tensor.shape)
    }
    let header = try HeaderEncoder(path: source, metadata: tiny.metadata, tensors: tiny.tensors)
    try writeFile(source, header.bytes)
    try #require(truncate(source, off_t(header.fileByteCount)) == 0)
    let checkpoint = try Checkpoint.open(source)
    let packer = try Packer(
      checkpoint, layout: ExpertLayout(checkpoint), options: .init(), path: packed)
    do {
      _ = try packer.write(to: packed, threadCount: 1) { _, _ in true }
      Issue.record("there is room for \(packer.byteCount) bytes")
    } catch { #expect("\(error)".contains("bytes free"), "\(error)") }
    #expect(scratch.names == ["source.gguf"])
  }

  @Test func everyDamagedByteIsFound() throws {
    try pack()
    let whole = try readFile(packed)
    let (checkpoint, _, layout) = try describe(packed)
    let slices = layout.slices(layer: 1, expert: 2)
    let name = Array("Tiny".utf8)
    let header = try #require(
      whole.indices.first { Array(whole[$0..<min(whole.count, $0 + 4)]) == name })
    for (place, words) in [
      (header, "the header"), (Int(slices.up.offset) + 77, "up matrix of expert 2 of block 1"),
      (
        Int(try checkpoint.tensor("blk.1.attn_k.weight").offset) + 9, "tensor 'blk.1.attn_k.weight'"
      ),
    ] {
      var bytes = whole
      bytes[place] ^= 1
      try writeFile(packed, bytes)
      let found = try verify()
      #expect(found.damaged.count == 1 && found.damaged[0].contains(words), "\(found.damaged)")
    }
    #expect(try describe(source).0.packed == nil)
    let (stock, _, stockLayout) = try describe(source)
    #expect(throws: PackingError.self) {
      try PackVerification(stock, layout: stockLayout) { _, _ in true }
    }
  }

  @Test func anEarlierFileIsReplacedOnlyByAWholeOne() throws {
    try writeFile(packed, [1, 2, 3])
    #expect(throws: PackingError.self) {
      try packer().write(to: packed, threadCount: 1) { _, _ in false }
    }
    #expect(try readFile(packed) == [1, 2, 3])
    try pack()
    #expect(try verify().damaged.isEmpty)
  }
}

/// Gives a file another name.
private func move(_ from: String, _ to: String) throws {
  guard rename(from, to) == 0 else { throw FileFailure(path: from, code: errno) }
}

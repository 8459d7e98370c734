internal import DirectIO
internal import FoundationEssentials
package import Tensors

/// Writes checkpoints in the packed layout (`PackedFormat`), from any that can be opened, in bounded memory.
package struct Packer {
  /// What is asked for.
  package struct Options: Sendable {
    /// What experts of a float type become; nil: they stay as they are.
    package var quantization: WeightQuantization?
    /// What matrices that every token uses become, norms, biases and routers apart; nil: as they are.
    package var denseQuantization: WeightQuantization?
    /// How often each expert was used, [layers][experts]: the most used lie first. Nil: by number.
    package var uses: [[Int]]?

    package init() {}
  }

  /// What was written.
  package struct Summary: Sendable, Hashable {
    /// The bytes of the file.
    package let byteCount: Int
    /// Of these, those that an earlier run had written.
    package let resumedByteCount: Int
    /// Experts of all layers, and the bytes of the largest record.
    package let expertCount: Int
    package let recordByteCount: Int
    /// Tensors that were left out, as nothing is computed with them.
    package let unusedTensors: Int
  }

  /// A matrix or vector on its way into the file.
  private struct Conversion {
    let name: String
    /// Where its bytes lie: in one piece, or those of a tensor in parts.
    let sources: [Piece]
    let type: ElementType
    /// The tensor, if it is in parts, which are put together in memory.
    var gathered: TensorInfo?
    /// Nil: the bytes as they are.
    let quantization: WeightQuantization?
    /// Where it goes.
    var offset: UInt64
  }

  /// Bytes written before they are made durable.
  private static let commitByteCount = 64 << 20

  private let checkpoint: Checkpoint
  private let layout: ExpertLayout
  private let header: HeaderEncoder
  private let conversions: [Conversion]
  private let recordByteCount: Int

  /// The bytes of the file.
  package var byteCount: Int { Int(header.fileByteCount) }

  /// - Throws: `PackingError` if the options do not suit the weights.
  package init(
    _ checkpoint: Checkpoint, layout: ExpertLayout, options: Options, path: String
  ) throws(PackingError) {
    self.checkpoint = checkpoint
    self.layout = layout
    var tensors = [GGUFWriter.Tensor(name: PackedFormat.checksumsName, type: .i32, shape: [1])]
    var conversions: [Conversion] = []
    for tensor in layout.denseTensors {
      let wanted = tensor.isLargeMatrix ? options.denseQuantization : nil
      let whole = ExpertSlice(
        file: tensor.file, offset: tensor.offset, byteCount: tensor.byteCount)
      var conversion = try Self.conversion(
        tensor.name, of: tensor.type, columns: tensor.shape[0],
        at: tensor.parts.isEmpty ? [whole] : tensor.parts,
        // What is quantized already stays, so that a mixed file can be packed.
        to: Self.floats.contains(tensor.type) ? wanted : nil, checkpoint)
      if !tensor.parts.isEmpty { conversion.gathered = tensor }
      conversions.append(conversion)
      tensors.append(
        .init(
          name: tensor.name, type: conversion.quantization?.elementType ?? tensor.type,
          shape: tensor.shape))
    }
    let order = (0..<layout.layerCount).map { layer -> [Int] in
      let uses = options.uses?[layer]
      return (0..<layout.expertCount).sorted {
        ((uses?[$1] ?? 0), $0) < ((uses?[$0] ?? 0), $1)
      }
    }
    var types: [UInt32] = []
    var records: [PackedRecord] = []
    for layer in 0..<layout.layerCount {
      let shape = layout.shape(layer: layer)
      let matrices = [
        ("gate", shape.gateType, shape.hidden), ("up", shape.upType, shape.hidden),
        ("down", shape.downType, shape.feedForward),
      ]
      var byteCounts: [Int] = []
      for (place, expert) in order[layer].enumerated() {
        let slices = layout.slices(layer: layer, expert: expert)
        for ((name, type, columns), slice) in zip(matrices, [slices.gate, slices.up, slices.down]) {
          let conversion = try Self.conversion(
            "blk.\(layout.blocks[layer]).ffn_\(name)_exps.weight", of: type, columns: columns,
            at: [slice], to: options.quantization, checkpoint)
          conversions.append(conversion)
          guard place == 0 else { continue }
          let target = conversion.quantization?.elementType ?? type
          types.append(target.rawValue)
          byteCounts.append(
            slice.byteCount / type.blockByteCount * type.blockSize
              / target.blockSize * target.blockByteCount)
        }
      }
      // Each is at most as large as a matrix that lies in a file.
      let record = PackedRecord(byteCounts: byteCounts)!
      records.append(record)
      tensors.append(
        .init(
          name: PackedFormat.recordsName(block: layout.blocks[layer]), type: .i8,
          shape: [record.byteCount, layout.expertCount]))
    }
    let sumCount = PackedFormat.leadingSums + conversions.count
    tensors[0] = .init(name: PackedFormat.checksumsName, type: .i32, shape: [sumCount])
    var metadata = checkpoint.metadata.filter { !Self.isOfFile($0.key) }
    metadata[GGUFFormat.alignmentKey] = .uint32(UInt32(PackedFormat.alignment))
    metadata[PackedFormat.versionKey] = .uint32(PackedFormat.version)
    metadata[PackedFormat.sourceKey] = .string(Self.source(of: checkpoint))
    metadata[PackedFormat.asTrainedKey] = .bool(checkpoint.isAsTrained)
    metadata[PackedFormat.blocksKey] = .array(.uint32(layout.blocks.map { UInt32($0) }))
    metadata[PackedFormat.typesKey] = .array(.uint32(types))
    metadata[PackedFormat.orderKey] = .array(.uint32(order.flatMap { $0.map { UInt32($0) } }))
    metadata[PackedFormat.hiddenKey] = .uint32(UInt32(layout.hiddenSize))
    metadata[PackedFormat.feedForwardKey] = .uint32(UInt32(layout.feedForwardSize))
    metadata[PackedFormat.expertCountKey] = .uint32(UInt32(layout.expertCount))
    do {
      header = try HeaderEncoder(
        path: path, metadata: metadata.sorted { $0.key < $1.key }.map { ($0.key, $0.value) },
        tensors: tensors)
    } catch {
      throw .checkpoint(error)
    }
    let offsets = header.tensorOffsets
    var next = 0
    for index in layout.denseTensors.indices {
      conversions[next].offset = offsets[1 + index]
      next += 1
    }
    for (layer, record) in records.enumerated() {
      let start = offsets[1 + layout.denseTensors.count + layer]
      for place in 0..<layout.expertCount {
        for offset in record.offsets {
          conversions[next].offset = start + UInt64(place * record.byteCount + offset)
          next += 1
        }
      }
    }
    self.conversions = conversions
    recordByteCount = records.map(\.byteCount).max() ?? 0
  }

  /// The types that can be quantized.
  private static let floats: [ElementType] = [.f32, .f16, .bf16]

  /// Keys that say how the source lies in its own files.
  private static func isOfFile(_ key: String) -> Bool {
    key.hasPrefix("split.") || key.hasPrefix("stoker.pack.")
  }

  /// The source's files with size and time of change: what is left of packing another is not gone on with.
  private static func source(of checkpoint: Checkpoint) -> String {
    checkpoint.files.prefix(checkpoint.fileCount).map { file in
      let name = file.path.split(separator: "/").last.map(String.init) ?? file.path
      let changed = try? FileManager.default.attributesOfItem(atPath: file.path)[.modificationDate]
      let seconds = (changed as? Date)?.timeIntervalSince1970 ?? 0
      return "\(name) (\(file.byteCount) bytes, changed at \(Int(seconds)))"
    }.joined(separator: ", ")
  }

  private static func conversion(
    _ name: String, of type: ElementType, columns: Int, at slices: [ExpertSlice],
    to quantization: WeightQuantization?, _ checkpoint: Checkpoint
  ) throws(PackingError) -> Conversion {
    let path = checkpoint.files[slices[0].file].path
    var wanted = quantization
    if wanted?.elementType == type { wanted = nil }
    if let wanted {
      guard floats.contains(type) else {
        throw .alreadyQuantized(path: path, tensor: name, type: type)
      }
      guard columns.isMultiple(of: wanted.elementType.blockSize) else {
        throw .partialRows(path: path, tensor: name, columns: columns, type: wanted.elementType)
      }
    }
    return Conversion(
      name: name,
      sources: slices.map { slice in
        Piece(
          file: slice.file, offset: slice.offset, byteCount: slice.byteCount,
          unit: Self.unit(of: type))
      }, type: type, quantization: wanted, offset: 0)
  }

  /// Writes the file, in place of one at `path`, or goes on with what is left of an earlier run.
  ///
  /// - Parameters:
  ///   - threadCount: threads that quantize, 1 to 256.
  ///   - kernels: what they quantize with; every set writes the same bits.
  ///   - progress: called with the bytes read so far and in all; it ends when false is returned.
  /// - Throws: `PackingError`; what was written is kept, as `PATH.partial`.
  package func write(
    to path: String, threadCount: Int, kernels: Kernels = Kernels(set: .best),
    progress: (_ done: Int, _ total: Int) -> Bool
  ) throws(PackingError) -> Summary {
    let target = try PackTarget(
      path: path, header: header.bytes, byteCount: byteCount,
      sumCount: PackedFormat.leadingSums + conversions.count)
    if target.sumCount == 0 {
      target.append(sum: header.bytes.withUnsafeBytes { kernels.checksum($0) })
    }
    let first = target.sumCount - PackedFormat.leadingSums
    func sourceBytes(_ conversions: ArraySlice<Conversion>) -> Int {
      conversions.reduce(0) { $0 + $1.sources.reduce(0) { $0 + $1.byteCount } }
    }
    let total = sourceBytes(conversions[...])
    let resumed = sourceBytes(conversions[..<first])
    var done = resumed
    let pool: WorkerPool
    do { pool = try WorkerPool(threadCount: threadCount) } catch { throw .threads(error) }
    var output = Output(
      target: target, kernels: kernels,
      converter: WeightConversion(capacity: 1 << 22, kernels: kernels, pool: pool))
    /// The conversion under way, and what has been put together of one in parts.
    var current = first
    var piecesLeft = first < conversions.count ? conversions[first].sources.count : 0
    var gathered: [UInt8] = []
    try reader().forEach(conversions[first...].flatMap { $0.sources }) {
      part throws(PackingError) in
      let conversion = conversions[current]
      let bytes: UnsafeRawBufferPointer
      switch part.bytes {
      case .success(let read): bytes = read
      case .failure(let error): throw .io(error)
      }
      done += bytes.count
      if conversion.gathered == nil {
        try write(bytes, of: conversion, from: part.start, to: &output)
      } else {
        gathered += bytes
      }
      if part.isLast { piecesLeft -= 1 }
      if piecesLeft == 0 {
        if let tensor = conversion.gathered {
          try write(Self.ordered(gathered, of: tensor), of: conversion, to: &output)
          gathered = []
        }
        target.append(sum: output.sum)
        current += 1
        if current < conversions.count { piecesLeft = conversions[current].sources.count }
      }
      if output.uncommitted >= Self.commitByteCount {
        try target.commit()
        output.uncommitted = 0
      }
      guard progress(done, total) else {
        try target.commit()
        throw .cancelled(path: path + ".partial")
      }
    }
    try target.finish()
    return Summary(
      byteCount: byteCount, resumedByteCount: resumed,
      expertCount: layout.layerCount * layout.expertCount, recordByteCount: recordByteCount,
      unusedTensors: checkpoint.tensorOrder.count - layout.denseTensors.count
        - 3 * layout.layerCount)
  }

  /// What has been written of the conversion under way.
  private struct Output {
    let target: PackTarget
    let kernels: Kernels
    let converter: WeightConversion
    var sum: UInt32 = 0
    var uncommitted = 0
  }

  /// Converts and writes bytes of a source from `start` on.
  private func write(
    _ source: UnsafeRawBufferPointer, of conversion: Conversion, from start: Int,
    to output: inout Output
  ) throws(PackingError) {
    var bytes = source
    var place = start
    if let quantization = conversion.quantization {
      guard
        let blocks = output.converter.convert(bytes, of: conversion.type, to: quantization)
      else {
        throw .notFinite(
          path: checkpoint.files[conversion.sources[0].file].path, tensor: conversion.name)
      }
      bytes = blocks
      let type = quantization.elementType
      place = start / conversion.type.blockByteCount / type.blockSize * type.blockByteCount
    }
    output.sum = output.kernels.checksum(bytes, after: start == 0 ? 0 : output.sum)
    output.uncommitted += bytes.count
    try output.target.write(bytes, at: conversion.offset + UInt64(place))
  }

  /// As above, of a whole source in memory.
  private func write(
    _ source: [UInt8], of conversion: Conversion, to output: inout Output
  ) throws(PackingError) {
    let step = (4 << 20) / Self.unit(of: conversion.type) * Self.unit(of: conversion.type)
    var failure: PackingError?
    source.withUnsafeBytes { bytes in
      do throws(PackingError) {
        for start in stride(from: 0, to: bytes.count, by: step) {
          let part = bytes[start..<min(bytes.count, start + step)]
          try write(.init(rebasing: part), of: conversion, from: start, to: &output)
        }
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
  }

  /// Bytes of whole blocks of every format.
  private static func unit(of type: ElementType) -> Int {
    256 / type.blockSize * type.blockByteCount
  }

  /// The bytes of a tensor whose parts are `bytes`, one after the other.
  private static func ordered(_ bytes: [UInt8], of tensor: TensorInfo) -> [UInt8] {
    guard tensor.isTransposed else { return bytes }
    return [UInt8](unsafeUninitializedCapacity: bytes.count) { target, count in
      count = bytes.count
      bytes.withUnsafeBytes { source in
        var start = 0
        for part in tensor.parts {
          tensor.copy(
            part: .init(rebasing: source[start..<start + part.byteCount]),
            to: UnsafeMutableRawPointer(target.baseAddress!) + start)
          start += part.byteCount
        }
      }
    }
  }

  private func reader() throws(PackingError) -> PieceReader {
    do throws(IOError) {
      return try PieceReader(
        files: checkpoint.files.map { file throws(IOError) in
          try DataFile(path: file.path, direct: .auto)
        })
    } catch {
      throw .io(error)
    }
  }
}

extension TensorInfo {
  /// Whether it is one of the matrices that take room: no norm, bias, router or sink.
  fileprivate var isLargeMatrix: Bool {
    shape.count > 1 && name.hasSuffix(".weight") && !name.contains("ffn_gate_inp")
  }
}

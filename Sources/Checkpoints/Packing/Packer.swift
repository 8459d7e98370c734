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
    /// The blocks of 8-bit floats, where the model has any.
    package var weightBlock: WeightBlock?

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
  struct Conversion {
    let name: String
    /// Where its bytes lie: in one piece, or those of a tensor in parts.
    let sources: [Piece]
    let type: ElementType
    /// The tensor, if it is in parts, which are put together in memory.
    var gathered: TensorInfo?
    /// The scales, which are the first of the sources then, of 8-bit floats that are quantized further.
    var scales: WeightScales?
    /// Nil: the bytes as they are.
    let quantization: WeightQuantization?
    /// Where it goes.
    var offset: UInt64
  }

  /// Scales on their way to the weights that they belong to.
  struct WeightScales {
    let type: ElementType
    let block: WeightBlock
    /// Values of a row of the weights.
    let columns: Int
  }

  let checkpoint: Checkpoint
  let layout: ExpertLayout
  let header: HeaderEncoder
  let conversions: [Conversion]
  let recordByteCount: Int

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
    // Scales of what is quantized further are of no use any more.
    let dropped = Self.scalesToDrop(layout, options)
    let kept = layout.denseTensors.filter { !dropped.contains($0.name) }
    for tensor in kept {
      let wanted = tensor.isLargeMatrix ? options.denseQuantization : nil
      let whole = ExpertSlice(
        file: tensor.file, offset: tensor.offset, byteCount: tensor.byteCount)
      var conversion = try Self.conversion(
        tensor.name, of: tensor.type, columns: tensor.shape[0],
        at: tensor.parts.isEmpty ? [whole] : tensor.parts,
        // What is quantized already stays, so that a mixed file can be packed.
        to: Self.canQuantize(tensor, options) ? wanted : nil, block: options.weightBlock,
        checkpoint)
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
        for ((name, type, columns), slice) in zip(matrices, slices.all) {
          let conversion = try Self.conversion(
            "blk.\(layout.blocks[layer]).ffn_\(name)_exps.weight", of: type, columns: columns,
            at: [slice], expert: expert, to: options.quantization, block: options.weightBlock,
            checkpoint)
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
    for index in kept.indices {
      conversions[next].offset = offsets[1 + index]
      next += 1
    }
    for (layer, record) in records.enumerated() {
      let start = offsets[1 + kept.count + layer]
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

  /// Whether a dense tensor is of a type that can be quantized: of 8-bit floats those in one piece.
  private static func canQuantize(_ tensor: TensorInfo, _ options: Options) -> Bool {
    floats.contains(tensor.type)
      || tensor.type.hasScalesApart && tensor.parts.isEmpty && options.weightBlock != nil
  }

  /// The names of the scales whose weights are quantized further.
  private static func scalesToDrop(_ layout: ExpertLayout, _ options: Options) -> Set<String> {
    var names: Set<String> = []
    if options.denseQuantization != nil {
      for tensor in layout.denseTensors
      where tensor.type.hasScalesApart && tensor.isLargeMatrix && canQuantize(tensor, options) {
        names.insert(scaleName(of: tensor.name))
      }
    }
    guard options.quantization != nil else { return names }
    for (layer, block) in layout.blocks.enumerated() {
      let shape = layout.shape(layer: layer)
      for (name, type) in zip(
        PackedFormat.stackNames(block: block), [shape.gateType, shape.upType, shape.downType])
      where type.hasScalesApart { names.insert(scaleName(of: name)) }
    }
    return names
  }

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
    expert: Int? = nil, to quantization: WeightQuantization?, block: WeightBlock?,
    _ checkpoint: Checkpoint
  ) throws(PackingError) -> Conversion {
    let path = checkpoint.files[slices[0].file].path
    var wanted = quantization
    if wanted?.elementType == type { wanted = nil }
    if let wanted {
      guard floats.contains(type) || type.hasScalesApart && block != nil else {
        throw .alreadyQuantized(path: path, tensor: name, type: type)
      }
      guard columns.isMultiple(of: wanted.elementType.blockSize) else {
        throw .partialRows(path: path, tensor: name, columns: columns, type: wanted.elementType)
      }
    }
    func piece(_ slice: ExpertSlice) -> Piece {
      Piece(
        file: slice.file, offset: slice.offset, byteCount: slice.byteCount, unit: unit(of: type))
    }
    var sources = slices.map(piece)
    var scales: WeightScales?
    if wanted != nil, type.hasScalesApart, let block,
      let tensor = checkpoint.tensors[scaleName(of: name)]
    {
      scales = WeightScales(type: tensor.type, block: block, columns: columns)
      sources.insert(piece(tensor.slice(expert: expert)), at: 0)
    }
    return Conversion(
      name: name, sources: sources, type: type, scales: scales, quantization: wanted, offset: 0)
  }
}

extension TensorInfo {
  /// Where the part of one expert lies; nil: of a tensor that is no stack.
  fileprivate func slice(expert: Int?) -> ExpertSlice {
    guard let expert else {
      return ExpertSlice(file: file, offset: offset, byteCount: byteCount)
    }
    guard parts.isEmpty else { return parts[expert] }
    let byteCount = byteCount / shape[shape.count - 1]
    return ExpertSlice(
      file: file, offset: offset + UInt64(expert * byteCount), byteCount: byteCount)
  }

  /// Whether it is one of the matrices that take room: no norm, bias, router or sink.
  fileprivate var isLargeMatrix: Bool {
    shape.count > 1 && name.hasSuffix(".weight") && !name.contains("ffn_gate_inp")
  }
}

internal import Tensors

extension Checkpoint {
  /// The same checkpoint as one with three stacks of experts a layer, if it is packed.
  /// - Throws: `CheckpointError` for a file that breaks the layout's rules.
  func unpacked() throws(CheckpointError) -> Checkpoint {
    guard metadata[PackedFormat.versionKey] != nil else { return self }
    let version = try integer(PackedFormat.versionKey)
    guard version == Int(PackedFormat.version) else {
      throw .invalidValue(
        path: path, key: PackedFormat.versionKey, found: "\(version)",
        expected: "\(PackedFormat.version); pack the model again, or use the stoker that packed it")
    }
    let numbers = try PackedNumbers(self)
    var tensors = tensors
    var stacks: [String: [ExpertSlice]] = [:]
    for (layer, block) in numbers.blocks.enumerated() {
      let records = try tensor(PackedFormat.recordsName(block: block))
      tensors[records.name] = nil
      for (name, stack) in try numbers.stacks(of: layer, in: records, path: path) {
        guard tensors.updateValue(stack.info, forKey: name) == nil else {
          throw .duplicateTensor(path: path, tensor: name)
        }
        stacks[name] = stack.slices
      }
    }
    let checksums = try tensor(PackedFormat.checksumsName)
    tensors[checksums.name] = nil
    let dense = tensorOrder.compactMap { name in stacks[name] == nil ? tensors[name] : nil }
    let layout = PackedLayout(
      checksums: checksums, denseTensors: dense, order: numbers.order,
      headerByteCount: tensorOrder.first.flatMap { self.tensors[$0]?.offset } ?? 0,
      source: try stringIfPresent(PackedFormat.sourceKey) ?? "")
    guard checksums.type == .i32, checksums.shape == [layout.sumCount] else {
      throw .wrongShape(
        path: path, tensor: checksums.name, found: checksums.shape, expected: [layout.sumCount])
    }
    return replacing(
      tensors: tensors, stacks: stacks, packed: layout,
      isAsTrained: try boolIfPresent(PackedFormat.asTrainedKey) ?? false)
  }
}

/// What the metadata of a packed file says of its records.
private struct PackedNumbers {
  let blocks: [Int]
  let order: [[Int]]
  private let types: [ElementType]
  private let size: ExpertSize

  init(_ checkpoint: Checkpoint) throws(CheckpointError) {
    let path = checkpoint.path
    func count(_ key: String, maximum: Int) throws(CheckpointError) -> Int {
      let found = try checkpoint.integer(key)
      guard (1...maximum).contains(found) else {
        throw .invalidValue(path: path, key: key, found: "\(found)", expected: "1 to \(maximum)")
      }
      return found
    }
    func list(_ key: String, count: Int) throws(CheckpointError) -> [Int] {
      let found = try checkpoint.integers(key)
      guard found.count == count else {
        throw .invalidValue(
          path: path, key: key, found: "of \(found.count) numbers", expected: "\(count)")
      }
      return found
    }
    size = ExpertSize(
      hidden: try count(PackedFormat.hiddenKey, maximum: ExpertSize.limits[0]),
      feedForward: try count(PackedFormat.feedForwardKey, maximum: ExpertSize.limits[1]),
      count: try count(PackedFormat.expertCountKey, maximum: ExpertSize.limits[2]))
    blocks = try checkpoint.integers(PackedFormat.blocksKey)
    guard (1...65_536).contains(blocks.count), Set(blocks).count == blocks.count,
      blocks == blocks.sorted()
    else {
      throw .invalidValue(
        path: path, key: PackedFormat.blocksKey, found: "\(blocks.prefix(16))",
        expected: "blocks in ascending order, each once")
    }
    var types: [ElementType] = []
    for number in try list(PackedFormat.typesKey, count: 3 * blocks.count) {
      guard let type = UInt32(exactly: number).flatMap(ElementType.init) else {
        throw .unknownElementType(
          path: path, tensor: PackedFormat.typesKey, found: UInt32(clamping: number))
      }
      types.append(type)
    }
    self.types = types
    let all = try list(PackedFormat.orderKey, count: blocks.count * size.count)
    var order: [[Int]] = []
    for layer in blocks.indices {
      let experts = Array(all[layer * size.count..<(layer + 1) * size.count])
      guard experts.sorted() == Array(0..<size.count) else {
        throw .invalidValue(
          path: path, key: PackedFormat.orderKey,
          found: "an order that lacks experts of layer \(layer)",
          expected: "each of 0 to \(size.count - 1) once")
      }
      order.append(experts)
    }
    self.order = order
  }

  /// The three stacks that the records of a layer are.
  func stacks(
    of layer: Int, in records: TensorInfo, path: String
  ) throws(CheckpointError) -> [(String, (info: TensorInfo, slices: [ExpertSlice]))] {
    let names = PackedFormat.stackNames(block: blocks[layer])
    let shapes = [
      [size.hidden, size.feedForward], [size.hidden, size.feedForward],
      [size.feedForward, size.hidden],
    ]
    let types = types[3 * layer..<3 * layer + 3]
    var byteCounts: [Int] = []
    for ((name, shape), type) in zip(zip(names, shapes), types) {
      byteCounts.append(try tensorByteCount(type: type, shape: shape, path: path, tensor: name))
    }
    guard let record = PackedRecord(byteCounts: byteCounts) else {
      throw .tensorTooLarge(path: path, tensor: records.name, shape: shapes[0])
    }
    guard records.type == .i8, records.shape == [record.byteCount, size.count] else {
      throw .wrongShape(
        path: path, tensor: records.name, found: records.shape,
        expected: [record.byteCount, size.count])
    }
    var places = Array(repeating: 0, count: size.count)
    for (place, expert) in order[layer].enumerated() { places[expert] = place }
    return zip(names.indices, types).map { index, type in
      // All lie within the records, which were checked to lie within the file.
      let slices = places.map { place in
        ExpertSlice(
          file: records.file,
          offset: records.offset + UInt64(place * record.byteCount + record.offsets[index]),
          byteCount: byteCounts[index])
      }
      let info = TensorInfo(
        name: names[index], type: type, shape: shapes[index] + [size.count], file: records.file,
        offset: records.offset + UInt64(record.offsets[index]),
        byteCount: byteCounts[index] * size.count)
      return (names[index], (info, slices))
    }
  }
}

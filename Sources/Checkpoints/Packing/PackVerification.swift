internal import DirectIO
package import Tensors

/// What a packed file's checksums say of it.
package struct PackVerification: Sendable, Hashable {
  /// Sums that were compared: of the header, of each tensor and of each expert's matrix.
  package let checked: Int
  /// The bytes they are of.
  package let byteCount: Int
  /// What is not as it was written, in words.
  package let damaged: [String]

  /// Reads a whole packed file and compares it with its checksums.
  ///
  /// - Parameter progress: called with the bytes read so far and in all; it ends when false is returned.
  /// - Throws: `PackingError.noChecksums`, `.cancelled`, or `.io` if the file cannot be opened.
  package init(
    _ checkpoint: Checkpoint, layout: ExpertLayout, kernels: Kernels = Kernels(set: .best),
    progress: (_ done: Int, _ total: Int) -> Bool
  ) throws(PackingError) {
    guard let packed = checkpoint.packed else { throw .noChecksums(path: checkpoint.path) }
    let sums = try PackedChecksums(packed, files: checkpoint.files)
    var pieces = [
      Piece(
        file: packed.checksums.file, offset: 0, byteCount: Int(packed.headerByteCount), unit: 4096)
    ]
    var names = ["the header"]
    for tensor in packed.denseTensors {
      pieces.append(
        Piece(file: tensor.file, offset: tensor.offset, byteCount: tensor.byteCount, unit: 4096))
      names.append("tensor '\(tensor.name)'")
    }
    for (layer, experts) in packed.order.enumerated() {
      for expert in experts {
        let slices = layout.slices(layer: layer, expert: expert)
        for (name, slice) in zip(["gate", "up", "down"], slices.all) {
          pieces.append(
            Piece(file: slice.file, offset: slice.offset, byteCount: slice.byteCount, unit: 4096))
          names.append(
            "the \(name) matrix of expert \(expert) of block \(layout.blocks[layer])")
        }
      }
    }
    let total = pieces.reduce(0) { $0 + $1.byteCount }
    var done = 0
    var sum: UInt32 = 0
    var unreadable: IOError?
    var damaged: [String] = []
    try PieceReader(checkpoint.files).forEach(pieces) { part throws(PackingError) in
      if part.start == 0 { (sum, unreadable) = (0, nil) }
      switch part.bytes {
      case .success(let bytes):
        sum = kernels.checksum(bytes, after: sum)
        done += bytes.count
      case .failure(let error): unreadable = error
      }
      if part.isLast {
        if let unreadable {
          damaged.append("\(names[part.piece]): \(unreadable)")
        } else if sum != sums[part.piece] {
          damaged.append("\(names[part.piece]): its checksum is not the one it was written with")
        }
      }
      guard progress(done, total) else { throw .cancelled(path: checkpoint.path) }
    }
    checked = pieces.count
    byteCount = total
    self.damaged = damaged
  }
}

/// The checksums of a packed file.
package struct PackedChecksums: Sendable {
  /// Of the header, the tensors that hold no expert, and the matrices of the experts.
  private let sums: [UInt32]
  /// The first sum of each expert, [layers][experts].
  private let experts: [[Int]]

  /// - Throws: `PackingError.io` if they cannot be read, or `.checkpoint` if there are not as many as there
  ///   should be.
  package init(_ packed: PackedLayout, files: [Checkpoint.File]) throws(PackingError) {
    var bytes: [UInt8] = []
    let piece = Piece(
      file: packed.checksums.file, offset: packed.checksums.offset,
      byteCount: packed.checksums.byteCount, unit: 4096)
    try PieceReader(files, direct: .off).forEach([piece]) { part throws(PackingError) in
      switch part.bytes {
      case .success(let read): bytes += read
      case .failure(let error): throw .io(error)
      }
    }
    let numbers = PackedFormat.sums(bytes)
    guard numbers[0] == numbers.count else {
      throw .checkpoint(
        .invalidValue(
          path: files[packed.checksums.file].path, key: PackedFormat.checksumsName,
          found: "\(numbers[0]) valid sums", expected: "\(numbers.count)"))
    }
    sums = Array(numbers.dropFirst())
    experts = packed.order.enumerated().map { layer, order in
      // The first number is not among the sums.
      let first = packed.firstSum(layer: layer) - 1
      var places = Array(repeating: 0, count: order.count)
      for (place, expert) in order.enumerated() { places[expert] = first + 3 * place }
      return places
    }
  }

  /// The sum of one piece, in the file's order.
  subscript(piece: Int) -> UInt32 { sums[piece] }

  /// The sum of one matrix of an expert, 0 gate, 1 up, 2 down.
  package func sum(layer: Int, expert: Int, matrix: Int) -> UInt32 {
    sums[experts[layer][expert] + matrix]
  }
}

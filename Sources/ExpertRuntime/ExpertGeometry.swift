package import Checkpoints
package import DirectIO
internal import Tensors

/// The three matrices of an expert, in the order they are computed.
public enum ExpertMatrix: Int, CaseIterable, Sendable {
  case gate, up, down

  /// Its bit in a set of them.
  var bit: UInt8 { 1 << UInt8(rawValue) }
}

/// One read of an expert: a matrix, or several that lie together.
package struct ExpertRead: Sendable {
  /// The matrices that are read, gate before up before down.
  package let matrices: [ExpertMatrix]
  /// A bit for each of them.
  let set: UInt8
  /// Where in the slot the read goes.
  fileprivate let slotOffset: Int

  /// The matrix that the read is known by.
  var first: ExpertMatrix { matrices[0] }
}

/// How an expert is read, and where its matrices go inside a slot.
///
/// Matrices that lie together in the file, as all three do in a packed file and gate and up in some
/// safetensors, are one read as long as that is not too large a read for the first to be waited for. Each
/// read is aligned outward to the file's blocks and goes straight into the slot, so its first byte lies at
/// the same remainder as in the file and nothing is copied.
package struct ExpertGeometry: Sendable {
  /// The slot size each layer's experts need, [layers].
  package let slotByteCounts: [Int]
  /// The reads of an expert of each layer, [layers].
  private let readsOfLayers: [[ExpertRead]]
  private let layout: ExpertLayout
  private let files: [DataFile]

  /// The most bytes of a read of several matrices. Larger ones were no faster in one piece than in three
  /// (`Benchmarks/README.md`), and the first is computed while the others are read.
  package static let jointByteCount = 1 << 20

  /// - Parameters:
  ///   - files: the files of the checkpoint, in its order.
  ///   - joint: the most bytes of a read of several matrices.
  package init(layout: ExpertLayout, files: [DataFile], joint: Int = Self.jointByteCount) {
    self.layout = layout
    self.files = files
    var slotByteCounts: [Int] = []
    var readsOfLayers: [[ExpertRead]] = []
    for layer in 0..<layout.layerCount {
      var reads: [ExpertRead] = []
      var end = 0
      for matrices in layout.neighbours(layer: layer, joint: joint) {
        reads.append(
          ExpertRead(matrices: matrices, set: matrices.reduce(0) { $0 | $1.bit }, slotOffset: end))
        // Not what these very offsets need: layers of one shape are to have slots of one size.
        let largest = (0..<layout.expertCount).map { expert in
          let slice = layout.slice(of: matrices, layer: layer, expert: expert)
          return files[slice.file].largestSpan(byteCount: slice.byteCount)
        }
        // Each read begins on a page, whatever the file's alignment, as O_DIRECT asks of memory.
        end += ((largest.max() ?? 0) + 4095) / 4096 * 4096
      }
      slotByteCounts.append(end)
      readsOfLayers.append(reads)
    }
    self.slotByteCounts = slotByteCounts
    self.readsOfLayers = readsOfLayers
  }

  /// The reads of an expert of `layer`, those first whose matrices are computed first.
  package func reads(layer: Int) -> [ExpertRead] { readsOfLayers[layer] }

  /// The extent of a read, and where in the slot it goes.
  package func placement(
    _ read: ExpertRead, layer: Int, expert: Int
  ) -> (file: Int, span: AlignedSpan, slotOffset: Int) {
    let slice = layout.slice(of: read.matrices, layer: layer, expert: expert)
    let span = files[slice.file].span(offset: slice.offset, byteCount: slice.byteCount)
    return (slice.file, span, read.slotOffset)
  }

  /// Where in the slot a matrix begins once it has been read.
  package func offset(of matrix: ExpertMatrix, layer: Int, expert: Int) -> Int {
    let read = read(of: matrix, layer: layer)
    let place = placement(read, layer: layer, expert: expert)
    let start = layout.slice(read.first, layer: layer, expert: expert).offset
    let offset = layout.slice(matrix, layer: layer, expert: expert).offset
    return place.slotOffset + place.span.lead + Int(offset - start)
  }

  /// The read that `matrix` is part of.
  func read(of matrix: ExpertMatrix, layer: Int) -> ExpertRead {
    // Every matrix is part of one.
    readsOfLayers[layer].first { $0.set & matrix.bit != 0 }!
  }
}

extension ExpertLayout {
  /// Bytes between two matrices that do not keep them from being one read.
  private static let gap = 4096

  /// The matrices of a layer in groups that lie together, in every expert.
  fileprivate func neighbours(layer: Int, joint: Int) -> [[ExpertMatrix]] {
    var groups: [[ExpertMatrix]] = []
    for matrix in ExpertMatrix.allCases {
      if let last = groups.last,
        (0..<expertCount).allSatisfy({ expert in
          let before = slice(last.last!, layer: layer, expert: expert)
          let next = slice(matrix, layer: layer, expert: expert)
          let start = slice(last[0], layer: layer, expert: expert).offset
          let end = before.offset + UInt64(before.byteCount)
          return next.file == before.file && next.offset >= end
            && next.offset - end < UInt64(Self.gap)
            // Of what is arranged one read makes all.
            && (next.offset + UInt64(next.byteCount) - start <= UInt64(joint)
              || Arrangement.arranges(start))
        })
      {
        groups[groups.count - 1].append(matrix)
      } else {
        groups.append([matrix])
      }
    }
    return groups
  }

  /// What lies from the first of `matrices` of an expert to the last, which lie together.
  fileprivate func slice(of matrices: [ExpertMatrix], layer: Int, expert: Int) -> ExpertSlice {
    let first = slice(matrices[0], layer: layer, expert: expert)
    guard matrices.count > 1 else { return first }
    let last = slice(matrices[matrices.count - 1], layer: layer, expert: expert)
    return ExpertSlice(
      file: first.file, offset: first.offset,
      byteCount: Int(last.offset - first.offset) + last.byteCount)
  }
}

extension ExpertLayout {
  /// Where one matrix of an expert lies.
  package func slice(_ matrix: ExpertMatrix, layer: Int, expert: Int) -> ExpertSlice {
    let slices = slices(layer: layer, expert: expert)
    switch matrix {
    case .gate: return slices.gate
    case .up: return slices.up
    case .down: return slices.down
    }
  }
}

extension ExpertLayout {
  /// One matrix of an expert of `layer`, whose bytes are at `bytes`.
  func matrix(_ matrix: ExpertMatrix, layer: Int, bytes: UnsafeRawPointer) -> Matrix {
    let shape = shape(layer: layer)
    switch matrix {
    case .gate:
      return Matrix(
        bytes: bytes, type: shape.gateType, rows: shape.feedForward, columns: shape.hidden)
    case .up:
      return Matrix(
        bytes: bytes, type: shape.upType, rows: shape.feedForward, columns: shape.hidden)
    case .down:
      return Matrix(
        bytes: bytes, type: shape.downType, rows: shape.hidden, columns: shape.feedForward)
    }
  }
}

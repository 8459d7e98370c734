package import Checkpoints
package import DirectIO
internal import Tensors

/// The three matrices of an expert, in the order they are computed.
package enum ExpertMatrix: Int, CaseIterable, Sendable {
  case gate, up, down

  /// Its bit in a set of them.
  var bit: UInt8 { 1 << UInt8(rawValue) }
}

/// Where an expert's matrices go inside a slot.
///
/// Each matrix is read with its extent aligned outward to the file's blocks, straight into the
/// slot, so its first byte lies at the same remainder as in the file and nothing is copied.
package struct ExpertGeometry: Sendable {
  /// The slot size each layer's experts need, [layers].
  package let slotByteCounts: [Int]
  /// Where each matrix of a layer's experts begins in the slot, [layers][3].
  private let matrixOffsets: [[Int]]
  private let layout: ExpertLayout
  private let files: [DataFile]

  /// - Parameter files: the files of the checkpoint, in its order.
  package init(layout: ExpertLayout, files: [DataFile]) {
    self.layout = layout
    self.files = files
    var slotByteCounts: [Int] = []
    var matrixOffsets: [[Int]] = []
    for layer in 0..<layout.layerCount {
      var offsets: [Int] = []
      var end = 0
      for matrix in ExpertMatrix.allCases {
        offsets.append(end)
        // Not what these very offsets need: layers of one shape are to have slots of one size.
        let largest = (0..<layout.expertCount).map { expert in
          let slice = layout.slice(matrix, layer: layer, expert: expert)
          return files[slice.file].largestSpan(byteCount: slice.byteCount)
        }
        // Each matrix begins on a page, whatever the file's alignment, as O_DIRECT asks of memory.
        end += ((largest.max() ?? 0) + 4095) / 4096 * 4096
      }
      slotByteCounts.append(end)
      matrixOffsets.append(offsets)
    }
    self.slotByteCounts = slotByteCounts
    self.matrixOffsets = matrixOffsets
  }

  /// The extent to read for one matrix, where in the slot it goes, and where in the slot the
  /// matrix itself begins.
  package func placement(
    _ matrix: ExpertMatrix, layer: Int, expert: Int
  ) -> (file: Int, span: AlignedSpan, slotOffset: Int, matrixOffset: Int) {
    let slice = layout.slice(matrix, layer: layer, expert: expert)
    let span = files[slice.file].span(offset: slice.offset, byteCount: slice.byteCount)
    let offset = matrixOffsets[layer][matrix.rawValue]
    return (slice.file, span, offset, offset + span.lead)
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

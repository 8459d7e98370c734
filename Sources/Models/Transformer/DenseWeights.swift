package import Checkpoints
package import DirectIO
package import ExpertRuntime
package import Tensors

/// Tensors that are resident for the life of the model, such as those that every token uses.
package final class DenseWeights {
  private struct Place {
    let tensor: TensorInfo
    let span: AlignedSpan
    let offset: Int
  }

  private let memory: Arena
  private let places: [String: Place]
  /// Where in the memory the floats are of vectors that are stored in another type.
  private let converted: [String: Int]

  /// The bytes that `tensors` take in memory, each from a page of its own.
  package static func byteCount(of tensors: [TensorInfo], files: [DataFile]) -> Int {
    tensors.reduce(0) { sum, tensor in
      let span = files[tensor.file].span(offset: tensor.offset, byteCount: tensor.byteCount)
      return sum + pageAligned(span.byteCount) + convertedByteCount(tensor)
    }
  }

  /// The bytes of the floats that vectors of another type are turned into: biases may be several.
  private static func convertedByteCount(_ tensor: TensorInfo) -> Int {
    guard tensor.type != .f32, tensor.shape.count == 1 || tensor.name.hasSuffix(".bias") else {
      return 0
    }
    // A multiple of 64, so that each begins as well as the memory does.
    return (tensor.shape.reduce(4, *) + 63) / 64 * 64
  }

  /// Reads `tensors` through `engine`.
  /// - Parameters:
  ///   - kernels: for vectors that are not F32.
  ///   - name: what the memory is for.
  /// - Throws: `RuntimeError.engine` naming the tensor that could not be read.
  package init(
    _ tensors: [TensorInfo], files: [DataFile], engine: any ReadEngine, kernels: Kernels,
    ledger: MemoryLedger, name: String = "dense weights"
  ) throws(RuntimeError) {
    var places: [Place] = []
    var end = 0
    for tensor in tensors {
      let span = files[tensor.file].span(offset: tensor.offset, byteCount: tensor.byteCount)
      places.append(Place(tensor: tensor, span: span, offset: end))
      end += pageAligned(span.byteCount)
    }
    var converted: [String: Int] = [:]
    for tensor in tensors where Self.convertedByteCount(tensor) > 0 {
      converted[tensor.name] = end
      end += Self.convertedByteCount(tensor)
    }
    self.converted = converted
    memory = try ledger.allocate(name, byteCount: end)
    self.places = Dictionary(uniqueKeysWithValues: places.map { ($0.tensor.name, $0) })

    var failure: (tag: Int, error: IOError)?
    func harvest() {
      engine.poll { completion in
        if let error = completion.error, failure == nil { failure = (Int(completion.tag), error) }
      }
    }
    for (index, place) in places.enumerated() {
      engine.enqueue(
        ReadRequest(
          file: place.tensor.file, span: place.span, destination: memory.base + place.offset,
          tag: UInt64(index), priority: .demand))
      engine.submit()
      while engine.outstandingCount >= 8 {
        engine.wait()
        harvest()
      }
    }
    while engine.outstandingCount > 0 {
      engine.wait()
      harvest()
    }
    if let failure {
      let tensor = places[failure.tag].tensor
      throw .engine(
        reason: "could not read tensor '\(tensor.name)' from '\(files[tensor.file].path)': "
          + "\(failure.error)")
    }
    for (name, offset) in converted {
      let matrix = matrix(name)
      kernels.dequantize(
        type: matrix.type, blocks: matrix.bytes, count: matrix.rows * matrix.columns,
        into: (memory.base + offset).assumingMemoryBound(to: Float.self))
    }
  }

  /// The matrix of a tensor whose presence and shape have been validated.
  package func matrix(_ name: String) -> Matrix {
    let place = place(name)
    return Matrix(
      bytes: UnsafeRawPointer(memory.base + place.offset + place.span.lead),
      type: place.tensor.type, rows: place.tensor.shape.dropFirst().reduce(1, *),
      columns: place.tensor.shape[0])
  }

  /// The floats of a vector, or of several in one tensor, whose presence and shape have been validated.
  package func vector(_ name: String) -> UnsafePointer<Float> {
    if let offset = converted[name] {
      return UnsafePointer((memory.base + offset).assumingMemoryBound(to: Float.self))
    }
    let place = place(name)
    precondition(place.tensor.type == .f32, "\(name) is not F32")
    // Tensors are aligned to their values at least, and the span keeps the remainder.
    return UnsafePointer(
      (memory.base + place.offset + place.span.lead).assumingMemoryBound(to: Float.self))
  }

  package func contains(_ name: String) -> Bool { places[name] != nil }

  private func place(_ name: String) -> Place {
    guard let place = places[name] else { preconditionFailure("no dense tensor '\(name)'") }
    return place
  }
}

private func pageAligned(_ byteCount: Int) -> Int { (byteCount + 4095) / 4096 * 4096 }

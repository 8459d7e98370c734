package import Checkpoints
package import DirectIO
package import ExpertRuntime
internal import Glibc
package import Tensors

/// Tensors that are resident for the life of the model, such as those that every token uses.
package final class DenseWeights {
  private struct Place {
    let tensor: TensorInfo
    /// Where in the memory its bytes begin.
    let offset: Int
  }

  /// Tensors that lie next to each other in a file, and are read as one.
  private struct Run {
    let file: Int
    var start: UInt64
    var end: UInt64
    var tensors: [TensorInfo]

    /// The most bytes of several tensors: no read needs to be larger to be fast.
    static let byteCount: UInt64 = 1 << 20
    /// The most bytes between two, as files align them; what tensors in memory are aligned to at least, where
    /// they are in their files.
    static let alignment: UInt64 = 64

    func span(_ files: [DataFile]) -> AlignedSpan {
      files[file].span(offset: start, byteCount: Int(end - start))
    }
  }

  private let memory: Arena
  private let block: WeightBlock?
  private let places: [String: Place]
  /// Where in the memory the floats are of vectors that are stored in another type or otherwise than used.
  private let converted: [String: Int]

  /// The bytes that `tensors` take in memory, those that are read together from a page of their own.
  ///
  /// - Parameter changes: of vectors that are stored otherwise than they are used.
  package static func byteCount(
    of tensors: [TensorInfo], files: [DataFile], changes: [ValueChange] = []
  ) -> Int {
    runs(tensors, files).reduce(0) { $0 + pageAligned($1.span(files).byteCount) }
      + tensors.reduce(0) { sum, tensor in
        sum + (tensor.parts.isEmpty ? 0 : pageAligned(tensor.byteCount))
          + convertedByteCount(tensor, changes)
      }
  }

  /// What is to be read for `tensors`, but for those in parts.
  private static func runs(_ tensors: [TensorInfo], _ files: [DataFile]) -> [Run] {
    var runs: [Run] = []
    for tensor in tensors.sorted(by: { ($0.file, $0.offset) < ($1.file, $1.offset) })
    where tensor.parts.isEmpty {
      let end = tensor.offset + UInt64(tensor.byteCount)
      if let last = runs.last, last.file == tensor.file, !files[last.file].isProvided,
        tensor.offset <= last.end + Run.alignment, end <= last.start + Run.byteCount
      {
        runs[runs.count - 1].end = max(last.end, end)
        runs[runs.count - 1].tensors.append(tensor)
      } else {
        let start =
          files[tensor.file].isProvided
          ? tensor.offset : tensor.offset / Run.alignment * Run.alignment
        runs.append(Run(file: tensor.file, start: start, end: end, tensors: [tensor]))
      }
    }
    return runs
  }

  /// The bytes of the floats that vectors of another type are turned into: biases may be several.
  private static func convertedByteCount(_ tensor: TensorInfo, _ changes: [ValueChange]) -> Int {
    let endings = [".bias", ".scale", ".ssm_conv1d.weight"]
    guard tensor.shape.count == 1 || endings.contains(where: tensor.name.hasSuffix),
      tensor.type != .f32 || changes.contains(where: { $0.applies(to: tensor.name) })
    else { return 0 }
    // A multiple of 64, so that each begins as well as the memory does.
    return (tensor.shape.reduce(4, *) + 63) / 64 * 64
  }

  /// Reads `tensors` through `engine`.
  /// - Parameters:
  ///   - kernels: for vectors that are not F32.
  ///   - block: the blocks of 8-bit floats, where there are any.
  ///   - changes: of vectors that are stored otherwise than they are used.
  ///   - memory: as many bytes as `byteCount` says.
  /// - Throws: `RuntimeError.engine` naming the tensor that could not be read.
  package init(
    _ tensors: [TensorInfo], files: [DataFile], engine: any ReadEngine, kernels: Kernels,
    block: WeightBlock? = nil, changes: [ValueChange] = [], into memory: Arena
  ) throws(RuntimeError) {
    self.block = block
    let runs = Self.runs(tensors, files)
    var places: [String: Place] = [:]
    var starts: [Int] = []
    var end = 0
    for run in runs {
      let span = run.span(files)
      for tensor in run.tensors {
        places[tensor.name] = Place(
          tensor: tensor, offset: end + span.lead + Int(tensor.offset - run.start))
      }
      starts.append(end)
      end += pageAligned(span.byteCount)
    }
    for tensor in tensors where !tensor.parts.isEmpty {
      places[tensor.name] = Place(tensor: tensor, offset: end)
      end += pageAligned(tensor.byteCount)
    }
    self.places = places
    var converted: [String: Int] = [:]
    for tensor in tensors {
      let byteCount = Self.convertedByteCount(tensor, changes)
      guard byteCount > 0 else { continue }
      converted[tensor.name] = end
      end += byteCount
    }
    self.converted = converted
    precondition(end <= memory.byteCount, "not enough memory")
    self.memory = memory

    var failure: (tag: Int, error: IOError)?
    func harvest() {
      engine.poll { completion in
        if let error = completion.error, failure == nil { failure = (Int(completion.tag), error) }
      }
    }
    for tensor in tensors where !tensor.parts.isEmpty {
      try Self.gather(
        tensor, files: files, engine: engine, into: memory.base + places[tensor.name]!.offset)
    }
    for (index, run) in runs.enumerated() {
      engine.enqueue(
        ReadRequest(
          file: run.file, span: run.span(files), destination: memory.base + starts[index],
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
      let run = runs[failure.tag]
      let names = run.tensors.map { "'\($0.name)'" }
      throw .engine(
        reason: "could not read tensor \(names.joined(separator: ", ")) from "
          + "'\(files[run.file].path)': \(failure.error)")
    }
    for (name, offset) in converted {
      let matrix = matrix(name)
      let count = matrix.rows * matrix.columns
      let floats = (memory.base + offset).assumingMemoryBound(to: Float.self)
      kernels.dequantize(type: matrix.type, blocks: matrix.bytes, count: count, into: floats)
      for change in changes where change.applies(to: name) {
        for index in 0..<count { floats[index] = change.value(floats[index]) }
      }
    }
  }

  /// The matrix of a tensor whose presence and shape have been validated.
  package func matrix(_ name: String) -> Matrix {
    let place = place(name)
    return Matrix(
      bytes: UnsafeRawPointer(memory.base + place.offset),
      type: place.tensor.type, rows: place.tensor.shape.dropFirst().reduce(1, *),
      columns: place.tensor.shape[0],
      scales: place.tensor.type.hasScalesApart
        ? block?.scales(vector(scaleName(of: name)), columns: place.tensor.shape[0]) : nil)
  }

  /// Reads the parts of a tensor, which are small, and puts one after the other.
  private static func gather(
    _ tensor: TensorInfo, files: [DataFile], engine: any ReadEngine,
    into memory: UnsafeMutableRawPointer
  ) throws(RuntimeError) {
    let spans = tensor.parts.map {
      files[$0.file].span(offset: $0.offset, byteCount: $0.byteCount)
    }
    let room = pageAligned(spans.map(\.byteCount).max() ?? 0)
    let most = 32
    let staging: Arena
    do throws(IOError) { staging = try Arena(byteCount: room * most) } catch {
      throw .memory(name: tensor.name, reason: "\(error)")
    }
    var end = 0
    for first in stride(from: 0, to: spans.count, by: most) {
      let batch = first..<min(spans.count, first + most)
      for part in batch {
        engine.enqueue(
          ReadRequest(
            file: tensor.parts[part].file, span: spans[part],
            destination: staging.base + (part - first) * room, tag: UInt64(part),
            priority: .demand))
      }
      engine.submit()
      var failure: IOError?
      while engine.outstandingCount > 0 {
        engine.wait()
        engine.poll { failure = failure ?? $0.error }
      }
      if let failure {
        throw .engine(reason: "could not read tensor '\(tensor.name)': \(failure)")
      }
      for part in batch {
        end += tensor.copy(
          part: .init(
            start: staging.base + (part - first) * room + spans[part].lead,
            count: tensor.parts[part].byteCount),
          to: memory + end)
      }
    }
  }

  /// The floats of a vector, or of several in one tensor, whose presence and shape have been validated.
  package func vector(_ name: String) -> UnsafePointer<Float> {
    if let offset = converted[name] {
      return UnsafePointer((memory.base + offset).assumingMemoryBound(to: Float.self))
    }
    let place = place(name)
    precondition(place.tensor.type == .f32, "\(name) is not F32")
    // Tensors are aligned to their values at least, and runs keep the remainder.
    return UnsafePointer((memory.base + place.offset).assumingMemoryBound(to: Float.self))
  }

  package func contains(_ name: String) -> Bool { places[name] != nil }

  private func place(_ name: String) -> Place {
    guard let place = places[name] else { preconditionFailure("no dense tensor '\(name)'") }
    return place
  }
}

private func pageAligned(_ byteCount: Int) -> Int { (byteCount + 4095) / 4096 * 4096 }

extension ValueChange {
  /// The value that is used for one that is stored.
  fileprivate func value(_ stored: Float) -> Float {
    switch rule {
    case .plusOne: stored + 1
    case .negativeExponential: -exp(stored)
    }
  }
}

internal import DirectIO
package import Tensors

extension Packer {
  /// Bytes written before they are made durable.
  private static let commitByteCount = 64 << 20

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
      if conversion.gathered == nil, conversion.scales == nil {
        try write(bytes, of: conversion, from: part.start, to: &output)
      } else {
        gathered += bytes
      }
      if part.isLast { piecesLeft -= 1 }
      if piecesLeft == 0 {
        if let scales = conversion.scales {
          try write(gathered, of: conversion, scales, to: &output)
        } else if let tensor = conversion.gathered {
          try write(Self.ordered(gathered, of: tensor), of: conversion, to: &output)
        }
        gathered = []
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
    scaling: Scaling? = nil, to output: inout Output
  ) throws(PackingError) {
    var bytes = source
    var place = start
    if let quantization = conversion.quantization {
      guard
        let blocks = output.converter.convert(
          bytes, of: conversion.type, to: quantization, scaling: scaling)
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

  /// As above, of scales and weights, one after the other in memory.
  private func write(
    _ source: [UInt8], of conversion: Conversion, _ scales: WeightScales, to output: inout Output
  ) throws(PackingError) {
    let count = conversion.sources[0].byteCount / scales.type.blockByteCount
    var factors = [Float](repeating: 0, count: count)
    var failure: PackingError?
    source.withUnsafeBytes { bytes in
      output.kernels.dequantize(
        type: scales.type, blocks: bytes.baseAddress!, count: count, into: &factors)
      let weights = UnsafeRawBufferPointer(rebasing: bytes[conversion.sources[0].byteCount...])
      factors.withUnsafeBufferPointer { factors in
        do throws(PackingError) {
          for start in stride(from: 0, to: weights.count, by: 1 << 22) {
            let part = weights[start..<min(weights.count, start + 1 << 22)]
            try write(
              .init(rebasing: part), of: conversion, from: start,
              scaling: Scaling(
                scales: scales.block.scales(factors.baseAddress!, columns: scales.columns),
                columns: scales.columns, start: start), to: &output)
          }
        } catch {
          failure = error
        }
      }
    }
    if let failure { throw failure }
  }

  /// Bytes of whole blocks of every format.
  static func unit(of type: ElementType) -> Int {
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

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
    try PieceReader(checkpoint.files).forEach(conversions[first...].flatMap { $0.sources }) {
      part throws(PackingError) in
      let conversion = conversions[current]
      let bytes: UnsafeRawBufferPointer
      switch part.bytes {
      case .success(let read): bytes = read
      case .failure(let error): throw .io(error)
      }
      done += bytes.count
      let isWhole = conversion.gathered == nil && conversion.scales == nil
      if isWhole {
        try write(bytes, of: conversion, from: part.start, to: &output)
      } else {
        gathered += bytes
      }
      if part.isLast { piecesLeft -= 1 }
      if piecesLeft == 0 {
        if !isWhole {
          if let tensor = conversion.gathered { gathered = Self.ordered(gathered, of: tensor) }
          try write(gathered, of: conversion, to: &output)
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

  /// As above, of a whole source in memory; of 8-bit floats that are quantized, the scales come first.
  private func write(
    _ source: [UInt8], of conversion: Conversion, to output: inout Output
  ) throws(PackingError) {
    let scaleByteCount = conversion.scales == nil ? 0 : conversion.sources[0].byteCount
    var scales: [Float] = []
    var failure: PackingError?
    source.withUnsafeBytes { bytes in
      if let own = conversion.scales, let base = bytes.baseAddress {
        let count = scaleByteCount / own.type.blockByteCount
        scales = Array(repeating: 0, count: count)
        output.kernels.dequantize(type: own.type, blocks: base, count: count, into: &scales)
      }
      let weights = UnsafeRawBufferPointer(rebasing: bytes[scaleByteCount...])
      let step = (4 << 20) / Self.unit(of: conversion.type) * Self.unit(of: conversion.type)
      scales.withUnsafeBufferPointer { scales in
        do throws(PackingError) {
          for start in stride(from: 0, to: weights.count, by: step) {
            let part = weights[start..<min(weights.count, start + step)]
            try write(
              .init(rebasing: part), of: conversion, from: start,
              scaling: conversion.scales.map { own in
                Scaling(
                  scales: own.block.scales(scales.baseAddress!, columns: own.columns),
                  columns: own.columns, start: start)
              }, to: &output)
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
    if tensor.order == .asStored { return bytes }
    return [UInt8](unsafeUninitializedCapacity: bytes.count) { target, count in
      bytes.withUnsafeBytes { source in
        var start = 0
        for part in tensor.parts {
          count += tensor.copy(
            part: .init(rebasing: source[start..<start + part.byteCount]),
            to: UnsafeMutableRawPointer(target.baseAddress!) + count)
          start += part.byteCount
        }
      }
    }
  }
}

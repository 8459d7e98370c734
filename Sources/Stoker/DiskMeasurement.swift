internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Tensors

/// How fast a model's experts can be read from where they lie.
public struct DiskMeasurement: Hashable, Sendable, Codable {
  public let bytesPerSecond: Double
  /// Mean bytes of one read: one matrix of one expert, or those that lie together.
  public let readByteCount: Int
  /// Reads in flight.
  public let queueDepth: Int
  public let engine: String
  /// False if the page cache may have answered.
  public let direct: Bool
  public let seconds: Double
}

extension ModelFile {
  /// Reads random experts for about two seconds, as many at a time as one layer of a decoded token
  /// asks for, with the read engine of a run.
  ///
  /// - Throws: an error that names the file or expert that could not be read.
  public func measureDisk(_ options: ModelOptions = ModelOptions()) throws -> DiskMeasurement {
    let shape = try shape(options)
    let slotByteCount = shape.geometry.slotByteCounts.max() ?? 0
    let slotCount = min(description.expertsPerToken, description.expertCount)
    let memory = try Arena(byteCount: slotByteCount * slotCount)
    let depth = slotCount * ExpertMatrix.allCases.count
    let engine = try makeReadEngine(
      kind: options.io, files: shape.files, arenas: [memory], queueDepth: 32, capacity: depth)
    var random = SystemRandomNumberGenerator()
    var byteCount = 0
    var reads = 0
    var failure: IOError?
    var remaining = Array(repeating: 0, count: slotCount)

    func readExpert(into slot: Int) {
      let layer = Int.random(in: 0..<layout.layerCount, using: &random)
      let expert = Int.random(in: 0..<layout.expertCount, using: &random)
      for read in shape.geometry.reads(layer: layer) {
        let place = shape.geometry.placement(read, layer: layer, expert: expert)
        engine.enqueue(
          ReadRequest(
            file: place.file, span: place.span,
            destination: memory.base + slot * slotByteCount + place.slotOffset,
            tag: UInt64(slot), priority: .demand))
        byteCount += place.span.byteCount
        reads += 1
      }
      remaining[slot] = shape.geometry.reads(layer: layer).count
    }

    let start = monotonicNanoseconds()
    for slot in 0..<slotCount { readExpert(into: slot) }
    engine.submit()
    while engine.outstandingCount > 0 {
      engine.wait()
      engine.poll { completion in
        let slot = Int(completion.tag)
        remaining[slot] -= 1
        if let error = completion.error { failure = failure ?? error }
      }
      guard failure == nil, monotonicNanoseconds() - start < 2_000_000_000 else { continue }
      for slot in 0..<slotCount where remaining[slot] == 0 { readExpert(into: slot) }
      engine.submit()
    }
    if let failure { throw failure }
    let seconds = Double(monotonicNanoseconds() - start) / 1e9
    return DiskMeasurement(
      bytesPerSecond: Double(byteCount) / seconds, readByteCount: byteCount / reads,
      queueDepth: min(depth, 32), engine: engine.name,
      direct: shape.files.allSatisfy(\.isDirect), seconds: seconds)
  }
}

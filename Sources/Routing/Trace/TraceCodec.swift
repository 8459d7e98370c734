/// How events are laid out in a block's payload; `traces/README.md` documents it to the byte.
struct TraceCodec {
  /// What an event states; what it leaves out follows from the event before it in the block.
  private struct Flags: OptionSet {
    let rawValue: UInt8
    static let decode = Flags(rawValue: 1)
    static let sequence = Flags(rawValue: 2)
    static let step = Flags(rawValue: 4)
    static let layer = Flags(rawValue: 8)
    static let tokens = Flags(rawValue: 16)
    static let predictions = Flags(rawValue: 32)
    static let prefetch = Flags(rawValue: 64)
    static let all: Flags = [.decode, .sequence, .step, .layer, .tokens, .predictions, .prefetch]
  }

  private let geometry: RoutingGeometry
  private let hasWeights: Bool
  private let hasScores: Bool
  private let predictionByteCount: Int
  private let expertBits: Int
  private var sequence: Int32 = 0
  private var step: Int32 = 0
  private var layer = -1

  init(header: TraceHeader) {
    geometry = header.geometry
    hasWeights = header.hasWeights
    hasScores = header.hasScores
    predictionByteCount = header.predictionByteCount
    expertBits = max(1, Int.bitWidth - (geometry.expertCount - 1).leadingZeroBitCount)
  }

  /// Forgets the event before: a block begins.
  mutating func reset() {
    sequence = 0
    step = 0
    layer = -1
  }

  // MARK: - Writing

  mutating func encode(_ event: borrowing TraceEvent, into bytes: inout [UInt8]) {
    let tokens = event.experts.count / geometry.topK
    var flags: Flags = event.phase == .decode ? .decode : []
    if event.sequence != sequence { flags.insert(.sequence) }
    if event.step != step { flags.insert(.step) }
    if event.layer != layer + 1 { flags.insert(.layer) }
    if tokens != 1 { flags.insert(.tokens) }
    if !event.predictions.isEmpty { flags.insert(.predictions) }
    if !event.prefetch.isEmpty { flags.insert(.prefetch) }
    bytes.append(flags.rawValue)
    if flags.contains(.sequence) { Self.append(UInt64(event.sequence), to: &bytes) }
    if flags.contains(.step) { Self.append(UInt64(event.step), to: &bytes) }
    if flags.contains(.layer) { Self.append(UInt64(event.layer), to: &bytes) }
    if flags.contains(.tokens) { Self.append(UInt64(tokens), to: &bytes) }
    var output = BitOutput()
    for expert in event.experts { output.append(UInt64(expert), bitCount: expertBits, to: &bytes) }
    for weight in event.weights {
      output.append(
        UInt64(TraceWeight.code(of: weight)), bitCount: TraceWeight.bitCount, to: &bytes)
    }
    output.flush(to: &bytes)
    bytes += event.scores
    bytes += event.predictions
    if flags.contains(.prefetch) {
      for figure in event.prefetch.figures { Self.append(Self.zigzag(figure), to: &bytes) }
    }
    (sequence, step, layer) = (event.sequence, event.step, event.layer)
  }

  /// Numbers from -2^30 to 2^30 - 1, beyond which they stay there, with the small ones of both signs first.
  private static func zigzag(_ value: Int) -> UInt64 {
    let limited = max(-(1 << 30), min(1 << 30 - 1, value))
    return UInt64(bitPattern: Int64(limited << 1 ^ limited >> 63))
  }

  private static func append(_ value: UInt64, to bytes: inout [UInt8]) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }

  // MARK: - Reading

  /// Reads the event at `position`, which then is that of the next; false if the bytes make no event.
  mutating func decode(
    _ bytes: [UInt8], at position: inout Int, into event: inout TraceEvent
  ) -> Bool {
    event.removeAll()
    guard position < bytes.count else { return false }
    let flags = Flags(rawValue: bytes[position])
    position += 1
    var tokens = 1
    layer += 1
    if flags.contains(.sequence) {
      guard let number = Self.readNumber(bytes, at: &position) else { return false }
      sequence = Int32(number)
    }
    if flags.contains(.step) {
      guard let number = Self.readNumber(bytes, at: &position) else { return false }
      step = Int32(number)
    }
    if flags.contains(.layer) {
      guard let number = Self.readNumber(bytes, at: &position) else { return false }
      layer = number
    }
    if flags.contains(.tokens) {
      guard let number = Self.readNumber(bytes, at: &position) else { return false }
      tokens = number
    }
    guard Flags.all.isSuperset(of: flags), layer < geometry.layerCount,
      (1...Self.maximumTokenCount).contains(tokens)
    else { return false }
    event.phase = flags.contains(.decode) ? .decode : .prefill
    (event.sequence, event.step, event.layer) = (sequence, step, layer)
    guard readRouting(bytes, at: &position, accesses: tokens * geometry.topK, into: &event) else {
      return false
    }
    if flags.contains(.predictions) {
      let predictions = position..<position + predictionByteCount
      guard tokens == 1, predictionByteCount > 0, predictions.upperBound <= bytes.count else {
        return false
      }
      event.predictions += bytes[predictions]
      position = predictions.upperBound
    }
    return !flags.contains(.prefetch) || readPrefetch(bytes, at: &position, into: &event)
  }

  private func readPrefetch(
    _ bytes: [UInt8], at position: inout Int, into event: inout TraceEvent
  ) -> Bool {
    var figures: [Int] = []
    for _ in 0..<PrefetchLedger.figureCount {
      guard let number = Self.readNumber(bytes, at: &position) else { return false }
      figures.append(number >> 1 ^ -(number & 1))
    }
    guard let ledger = PrefetchLedger(figures: figures) else { return false }
    event.prefetch = ledger
    return true
  }

  /// The most tokens of one event.
  static let maximumTokenCount = 1 << 20

  private func readRouting(
    _ bytes: [UInt8], at position: inout Int, accesses: Int, into event: inout TraceEvent
  ) -> Bool {
    let bitCount = accesses * (expertBits + (hasWeights ? TraceWeight.bitCount : 0))
    let end = position + (bitCount + 7) / 8
    guard end <= bytes.count else { return false }
    var buffer: UInt64 = 0
    var available = 0
    func take(_ count: Int) -> UInt64 {
      while available < count {
        buffer |= UInt64(bytes[position]) << UInt64(available)
        position += 1
        available += 8
      }
      let value = buffer & (1 << UInt64(count) - 1)
      buffer >>= UInt64(count)
      available -= count
      return value
    }
    for _ in 0..<accesses {
      let expert = take(expertBits)
      guard expert < UInt64(geometry.expertCount) else { return false }
      event.experts.append(UInt16(expert))
    }
    if hasWeights {
      for _ in 0..<accesses {
        event.weights.append(TraceWeight.weight(of: UInt16(take(TraceWeight.bitCount))))
      }
    }
    guard hasScores else { return true }
    let scores = position..<position + accesses / geometry.topK * geometry.expertCount
    guard scores.upperBound <= bytes.count else { return false }
    event.scores += bytes[scores]
    position = scores.upperBound
    return true
  }

  private static func readNumber(_ bytes: [UInt8], at position: inout Int) -> Int? {
    var value = 0
    for shift in stride(from: 0, to: 35, by: 7) {
      guard position < bytes.count else { return nil }
      let byte = bytes[position]
      position += 1
      value |= Int(byte & 0x7f) << shift
      if byte < 0x80 { return value <= Int32.max ? value : nil }
    }
    return nil
  }
}

/// Bits appended to bytes, the lowest first.
private struct BitOutput {
  private var buffer: UInt64 = 0
  private var bitCount = 0

  mutating func append(_ value: UInt64, bitCount count: Int, to bytes: inout [UInt8]) {
    buffer |= value << UInt64(bitCount)
    bitCount += count
    while bitCount >= 8 {
      bytes.append(UInt8(truncatingIfNeeded: buffer))
      buffer >>= 8
      bitCount -= 8
    }
  }

  mutating func flush(to bytes: inout [UInt8]) {
    if bitCount > 0 { bytes.append(UInt8(truncatingIfNeeded: buffer)) }
    buffer = 0
    bitCount = 0
  }
}

internal import Foundation

/// The frame of a .moetrace file; `traces/README.md` documents it to the byte.
enum TraceFrame {
  static let magic = Array("MOETRACE".utf8)
  static let version: UInt32 = 1
  /// Magic, version, length of the header's text.
  static let prefixByteCount = 16
  static let blockMagic: UInt32 = 0x4b4c_424d  // "MBLK"
  /// Magic, length of the payload, number of events, checksum of these.
  static let blockPrefixByteCount = 16
  static let checksumByteCount = 4
  static let maximumHeaderByteCount = 16 << 20
  static let maximumPayloadByteCount = 64 << 20

  static func append(_ value: UInt32, to bytes: inout [UInt8]) {
    for shift in [0, 8, 16, 24] as [UInt32] {
      bytes.append(UInt8(truncatingIfNeeded: value >> shift))
    }
  }

  static func number(_ bytes: [UInt8], at offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  /// The bytes before the first block.
  static func encode(_ header: TraceHeader) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Strings and whole numbers always encode.
    let text = try! encoder.encode(HeaderText(header))
    var bytes = magic
    append(version, to: &bytes)
    append(UInt32(text.count), to: &bytes)
    bytes += text
    append(CRC32C.checksum(bytes[...]), to: &bytes)
    return bytes
  }

  /// The header in `bytes`, its text; nil if it describes nothing possible.
  static func decode(_ bytes: ArraySlice<UInt8>) -> TraceHeader? {
    (try? JSONDecoder().decode(HeaderText.self, from: Data(bytes)))?.header
  }
}

extension TraceFrame {
  /// The header as JSON.
  struct HeaderText: Codable {
    var model: String
    var experts: Int
    var expertsPerToken: Int
    var expertBytes: [Int]
    var elementTypes: [String]
    var slotBytes: [Int]?
    var workload: String
    var provenance: String
    var hasWeights: Bool
    var hasScores: Bool?
    var predictionDistances: [Int]?

    enum CodingKeys: String, CodingKey {
      case model, experts, workload, provenance
      case expertsPerToken = "experts_per_token"
      case expertBytes = "expert_bytes"
      case elementTypes = "element_types"
      case slotBytes = "slot_bytes"
      case hasWeights = "has_weights"
      case hasScores = "has_scores"
      case predictionDistances = "prediction_distances"
    }

    init(_ header: TraceHeader) {
      model = header.model
      experts = header.geometry.expertCount
      expertsPerToken = header.geometry.topK
      expertBytes = header.geometry.expertByteCounts
      elementTypes = header.elementTypes
      slotBytes = header.slotByteCounts.isEmpty ? nil : header.slotByteCounts
      workload = header.workload
      provenance = header.provenance
      hasWeights = header.hasWeights
      hasScores = header.hasScores ? true : nil
      predictionDistances = header.predictionDistances.isEmpty ? nil : header.predictionDistances
    }

    var header: TraceHeader? {
      guard (1...RoutingGeometry.maximumExpertCount).contains(experts),
        (1...experts).contains(expertsPerToken),
        (1...RoutingGeometry.maximumLayerCount).contains(expertBytes.count),
        expertBytes.allSatisfy({ (1...RoutingGeometry.maximumExpertByteCount).contains($0) })
      else { return nil }
      let slotBytes = slotBytes ?? []
      guard slotBytes.isEmpty || slotBytes.count == expertBytes.count,
        // A slot holds an expert, and what aligned reads bring besides.
        zip(slotBytes, expertBytes).allSatisfy({ ($1...2 << 40).contains($0) })
      else { return nil }
      let distances = predictionDistances ?? []
      guard distances.count <= 16, distances.allSatisfy({ (0..<64).contains($0) }),
        zip(distances, distances.dropFirst()).allSatisfy({ $0 < $1 })
      else { return nil }
      return TraceHeader(
        model: model,
        geometry: RoutingGeometry(
          expertCount: experts, topK: expertsPerToken, expertByteCounts: expertBytes),
        elementTypes: elementTypes, slotByteCounts: slotBytes, workload: workload,
        provenance: provenance, hasWeights: hasWeights, hasScores: hasScores ?? false,
        predictionDistances: distances)
    }
  }
}

/// The checksum of RFC 3720 (Castagnoli's polynomial, reflected).
enum CRC32C {
  private static let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in
      value & 1 == 1 ? 0x82f6_3b78 ^ (value >> 1) : value >> 1
    }
  }

  static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    var value: UInt32 = 0xffff_ffff
    for byte in bytes { value = table[Int(UInt8(truncatingIfNeeded: value) ^ byte)] ^ (value >> 8) }
    return ~value
  }
}

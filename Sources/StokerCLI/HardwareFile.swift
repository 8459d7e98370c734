import ArgumentParser
import FoundationEssentials
import Placement
import Stoker

/// A hardware profile in a file.
struct HardwareFile: ExpressibleByArgument {
  let path: String

  init?(argument: String) { path = argument }

  /// - Throws: `InputError` naming the file and what is wrong with it.
  func read() throws -> HardwareProfile {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    let profile: HardwareProfile
    do {
      profile = try decoder.decode(HardwareProfile.self, from: Data(try readFile(path)))
    } catch let error as DecodingError {
      throw InputError(path: path, reason: "no hardware profile: \(Self.reason(error))")
    }
    if let fault = profile.fault {
      throw InputError(path: path, reason: "no possible hardware profile: \(fault)")
    }
    return profile
  }

  private static func reason(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, _): "'\(key.stringValue)' is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      "'\(context.codingPath.map(\.stringValue).joined(separator: "."))': \(context.debugDescription)"
    case .dataCorrupted(let context): context.debugDescription
    @unknown default: "\(error)"
    }
  }
}

extension HardwareProfile {
  /// Writes the profile so that `HardwareFile` reads it.
  func write(to path: String) throws {
    try writeFile(Terminal.json(self) + "\n", to: path)
  }

  /// The figures on a line, for people.
  var summary: String {
    "reads \(formatBytes(Int(readBytesPerSecond)))/s and \(milliseconds(readLatencySeconds)) a time, "
      + "products \(formatBytes(Int(computeBytesPerSecond)))/s, a layer \(milliseconds(layerSeconds)) "
      + "and a token \(milliseconds(tokenSeconds)) besides"
  }
}

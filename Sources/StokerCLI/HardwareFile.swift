import ArgumentParser
import Placement
import Stoker

/// A hardware profile in a file.
struct HardwareFile: ExpressibleByArgument {
  let path: String

  init?(argument: String) { path = argument }

  /// - Throws: `InputError` naming the file and what is wrong with it.
  func read() throws -> HardwareProfile {
    let profile = try readJSON(HardwareProfile.self, path: path, of: "hardware profile")
    if let fault = profile.fault {
      throw InputError(path: path, reason: "no possible hardware profile: \(fault)")
    }
    return profile
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

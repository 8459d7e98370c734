import ArgumentParser
import FoundationEssentials
import Placement
import Stoker

/// A machine's profile: of a file that 'stoker calibrate' wrote, or one that ships with stoker.
enum MachineFile {
  /// Where 'stoker calibrate' leaves the profile of this machine; nil without a home.
  static var ownPath: String? { ModelOptions.userHistoryFolder.map { "\($0)/machine.json" } }

  /// Reads the profile at `path`.
  /// - Throws: `InputError` naming the file and what is wrong with it.
  static func read(_ path: String) throws -> MachineProfile {
    let profile = try readJSON(MachineProfile.self, path: path, of: "machine profile")
    if let fault = profile.fault {
      throw InputError(path: path, reason: "no possible machine profile: \(fault)")
    }
    return profile
  }

  /// The profile of this machine that 'stoker calibrate' left; nil if there is none.
  static func own() throws -> MachineProfile? {
    guard let ownPath, FileManager.default.fileExists(atPath: ownPath) else { return nil }
    return try read(ownPath)
  }
}

/// Decodes a file of JSON whose keys are in snake case.
/// - Parameter kind: what it should hold, in words.
/// - Throws: `InputError` naming the file and what is wrong with it.
func readJSON<Value: Decodable>(_ type: Value.Type, path: String, of kind: String) throws -> Value {
  let decoder = JSONDecoder()
  decoder.keyDecodingStrategy = .convertFromSnakeCase
  do {
    return try decoder.decode(type, from: Data(try readFile(path)))
  } catch let error as DecodingError {
    throw InputError(path: path, reason: "no \(kind): \(reason(error))")
  }
}

private func reason(_ error: DecodingError) -> String {
  switch error {
  case .keyNotFound(let key, _): "'\(key.stringValue)' is missing"
  case .typeMismatch(_, let context), .valueNotFound(_, let context):
    "'\(context.codingPath.map(\.stringValue).joined(separator: "."))': \(context.debugDescription)"
  case .dataCorrupted(let context): context.debugDescription
  @unknown default: "\(error)"
  }
}

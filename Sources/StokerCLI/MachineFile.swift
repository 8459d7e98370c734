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
    let profile = try readJSON(
      MachineProfile.self, path: path, of: "machine profile",
      version: MachineProfile.currentVersion)
    if let fault = profile.fault {
      throw InputError(path: path, reason: "no possible machine profile: \(fault)")
    }
    return profile
  }

  /// Days after which a profile is called old.
  private static let staleDays = 30

  /// What to say of a profile that is old; nil if it is not.
  static func staleness(of profile: MachineProfile) -> String? {
    guard let date = profile.date, let measured = try? Date(date, strategy: .iso8601) else {
      return nil
    }
    let days = Int(Date().timeIntervalSince(measured) / 86_400)
    guard days >= staleDays else { return nil }
    return "the machine was measured \(days) days ago; 'stoker calibrate' does it anew"
  }

  /// The profile of this machine that 'stoker calibrate' left; nil if there is none.
  /// - Parameter refusal: receives why one that is there cannot be used.
  static func own(refusal: inout String?) -> MachineProfile? {
    guard let ownPath, FileManager.default.fileExists(atPath: ownPath) else { return nil }
    do {
      return try read(ownPath)
    } catch {
      refusal = "\(error)"
      return nil
    }
  }
}

/// Decodes a file of JSON whose keys are in snake case.
/// - Parameters:
///   - kind: what it should hold, in words.
///   - version: the version of its form that this program reads, where it has one.
/// - Throws: `InputError` naming the file and what is wrong with it.
func readJSON<Value: Decodable>(
  _ type: Value.Type, path: String, of kind: String, version: Int? = nil
) throws -> Value {
  let decoder = JSONDecoder()
  decoder.keyDecodingStrategy = .convertFromSnakeCase
  let data = Data(try readFile(path))
  do {
    return try decoder.decode(type, from: data)
  } catch let error as DecodingError {
    if let version, let found = try? decoder.decode(Versioned.self, from: data).version,
      found != version
    {
      throw InputError(path: path, reason: "a \(kind) of version \(found), expected \(version)")
    }
    throw InputError(path: path, reason: "no \(kind): \(reason(error))")
  }
}

/// What says which form a file has.
private struct Versioned: Decodable { let version: Int }

private func reason(_ error: DecodingError) -> String {
  switch error {
  case .keyNotFound(let key, _): "'\(key.stringValue)' is missing"
  case .typeMismatch(_, let context), .valueNotFound(_, let context):
    "'\(context.codingPath.map(\.stringValue).joined(separator: "."))': \(context.debugDescription)"
  case .dataCorrupted(let context): context.debugDescription
  @unknown default: "\(error)"
  }
}

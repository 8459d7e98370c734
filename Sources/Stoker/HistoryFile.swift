internal import Checkpoints
internal import ExpertRuntime
internal import Foundation
internal import Models
internal import Residency

extension ModelOptions {
  /// Where the user's histories are: in `$XDG_CACHE_HOME/stoker` or `$HOME/.cache/stoker`; nil without
  /// a home.
  public static var userHistoryFolder: String? {
    let environment = ProcessInfo.processInfo.environment
    if let cache = environment["XDG_CACHE_HOME"], cache.hasPrefix("/") { return "\(cache)/stoker" }
    guard let home = environment["HOME"], home.hasPrefix("/") else { return nil }
    return "\(home)/.cache/stoker"
  }
}

/// The history of a model's routing, in a file of its own.
struct HistoryFile {
  /// What earlier runs have routed; nothing if there is no file.
  let history: RoutingHistory
  /// Why the file that is there is not used, in words.
  private(set) var refusal: String?
  private let folder: String
  private var path: String { "\(folder)/\(history.routers).history.json" }

  /// Reads the history of the model of `transformer`; a file that is damaged is told in `refusal` and
  /// replaced by the next.
  init(folder: String, transformer: MoETransformer) {
    let routers = transformer.routerFingerprint
    let runtime = transformer.runtime
    self.folder = folder
    let path = "\(folder)/\(routers).history.json"
    let empty = RoutingHistory(
      model: transformer.description.name, routers: routers, layerCount: runtime.layerCount,
      expertCount: runtime.expertCount)
    guard let data = FileManager.default.contents(atPath: path) else {
      history = empty
      return
    }
    var found: RoutingHistory?
    do {
      let read = try JSONDecoder().decode(RoutingHistory.self, from: data)
      if let fault = read.fault(
        routers: routers, layerCount: runtime.layerCount, expertCount: runtime.expertCount)
      {
        refusal = "the history in '\(path)' is not used: \(fault)"
      } else {
        found = read
      }
    } catch {
      refusal = "the history in '\(path)' is not used: it is damaged"
    }
    history = found ?? empty
  }

  /// Writes the history with `session` after it.
  func save(_ session: RoutingHistory) throws {
    var whole = history
    whole.append(session)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    do {
      try FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true)
      try encoder.encode(whole).write(to: URL(fileURLWithPath: path), options: .atomic)
    } catch {
      throw StokerError.history(path: path, reason: "\(error.localizedDescription)")
    }
  }
}

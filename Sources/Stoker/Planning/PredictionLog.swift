internal import Foundation

/// What was predicted of runs on this machine, and what came of it: the prediction's own error.
public struct PredictionLog: Sendable {
  /// A run.
  public struct Entry: Hashable, Sendable, Codable {
    public var model: String
    /// The budget, in bytes.
    public var memory: Int
    /// When it was, as ISO 8601 has it.
    public var date: String
    public var predictedTokensPerSecond: Double
    public var measuredTokensPerSecond: Double

    public init(
      model: String, memory: Int, date: String, predictedTokensPerSecond: Double,
      measuredTokensPerSecond: Double
    ) {
      self.model = model
      self.memory = memory
      self.date = date
      self.predictedTokensPerSecond = predictedTokensPerSecond
      self.measuredTokensPerSecond = measuredTokensPerSecond
    }

    /// How much faster was predicted than measured, as a share; below 0: slower.
    public var error: Double { predictedTokensPerSecond / measuredTokensPerSecond - 1 }
  }

  private struct Content: Codable {
    var version = 1
    var runs: [Entry] = []
  }

  /// The latest runs, the last of them last.
  public private(set) var entries: [Entry]
  private let path: String
  /// Runs that are kept.
  private static let capacity = 64

  /// Why the log that is there is not used, in words; it is replaced by the next.
  public private(set) var refusal: String?

  /// The log in `folder`; one that is damaged is told in `refusal`.
  public init(folder: String) {
    path = "\(folder)/predictions.json"
    let data = FileManager.default.contents(atPath: path)
    let content = data.flatMap { try? JSONDecoder().decode(Content.self, from: $0) }
    entries = content.map { $0.version == 1 ? $0.runs : [] } ?? []
    if data != nil, content?.version != 1 {
      refusal =
        "the errors of earlier runs in '\(path)' are not used: it is damaged, and begun anew"
    }
  }

  /// The median of the errors' sizes; nil without runs.
  public var medianError: Double? {
    guard !entries.isEmpty else { return nil }
    let sizes = entries.map { abs($0.error) }.sorted()
    return sizes[sizes.count / 2]
  }

  /// Adds a run, and writes the log as a whole.
  /// - Throws: `StokerError.history` naming the file, if it cannot be written.
  public mutating func append(_ entry: Entry) throws {
    entries.append(entry)
    entries.removeFirst(max(0, entries.count - Self.capacity))
    do {
      try FileManager.default.createDirectory(
        atPath: URL(fileURLWithPath: path).deletingLastPathComponent().path,
        withIntermediateDirectories: true)
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys]
      try encoder.encode(Content(runs: entries)).write(
        to: URL(fileURLWithPath: path), options: .atomic)
    } catch {
      throw StokerError.history(path: path, reason: error.localizedDescription)
    }
  }
}

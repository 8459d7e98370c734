internal import Foundation

/// What an import is told that the file may not say.
public struct TraceImportOptions: Hashable, Sendable {
  /// Experts of a layer; nil takes the file's word, or the highest id and one.
  public var expertCount: Int?
  /// The bytes of an expert, at every layer; nil takes the file's word, or `unknownByteCount`.
  public var expertByteCount: Int?

  /// What an expert counts for where nobody says: 1 MiB.
  public static let unknownByteCount = 1 << 20

  /// Takes the file's word for everything.
  public init(expertCount: Int? = nil, expertByteCount: Int? = nil) {
    self.expertCount = expertCount
    self.expertByteCount = expertByteCount
  }
}

/// Reads traces of other tools.
public enum TraceImport {
  /// Opens the trace in `paths`: a .moetrace file, which stays where it is if it is large, or files of
  /// another format, plain or gzipped, which is known by what is in them.
  ///
  /// ESFT's files, one per layer, make one trace together; of any other format one file is read.
  /// - Throws: `TraceError`.
  public static func open(
    _ paths: [String], options: TraceImportOptions = TraceImportOptions(),
    progress: @escaping TraceProgress = { _, _ in }
  ) throws(TraceError) -> TraceSource {
    if paths.count == 1, try TraceReader.recognizes(path: paths[0]) {
      return try TraceSource(path: paths[0], progress: progress)
    }
    return TraceSource(try importText(paths, options: options, progress: progress))
  }

  /// Reads the trace that `open` opens.
  /// - Throws: `TraceError`.
  public static func read(
    _ paths: [String], options: TraceImportOptions = TraceImportOptions()
  ) throws(TraceError) -> RoutingTrace {
    try open(paths, options: options).loaded()
  }

  private static func importText(
    _ paths: [String], options: TraceImportOptions, progress: @escaping TraceProgress
  ) throws(TraceError) -> RoutingTrace {
    var files: [TextFile] = []
    for path in paths { files.append(try TextFile(path: path, progress: progress)) }
    let total = files.reduce(0) { $0 + $1.bytes.count }
    var before = 0
    for index in files.indices {
      let first = before
      files[index].progress = { progress(first + $0, total) }
      before += files[index].bytes.count
    }
    guard let first = files.first else { preconditionFailure("no files") }
    guard let format = TraceFormat(first) else { throw .unknownFormat(path: first.path) }
    if format == .esft { return try importESFT(files, options: options) }
    guard files.count == 1 else {
      throw .mismatch(
        path: first.path, other: files[1].path, reason: "only ESFT's traces are of several files")
    }
    switch format {
    case .routeTrace: return try importRouteTrace(first)
    case .tokenLines, .layerLines: return try importLines(first, options: options)
    case .fingerprint: return try importFingerprint(first, options: options)
    case .traceLines: return try importTraceLines(first)
    case .esft: preconditionFailure("imported above")
    }
  }

  /// The visible files of the folder at `path`, in the order of their names, or `path` if it is no
  /// folder.
  public static func filesIfFolder(_ path: String) -> [String] {
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: path) else {
      return [path]
    }
    return names.sorted().filter { !$0.hasPrefix(".") }.map { "\(path)/\($0)" }
  }

  /// The trace of what `builder` has gathered.
  static func finish(
    _ builder: TraceBuilder, model: String, layerCount: Int, hasWeights: Bool, format: String,
    options: TraceImportOptions
  ) throws(TraceError) -> RoutingTrace {
    let expertCount = options.expertCount ?? builder.neededExpertCount
    guard !builder.isEmpty else {
      throw .malformed(
        path: builder.path, line: 0, field: "the file", found: "no routed token",
        expected: "at least one")
    }
    guard expertCount >= builder.neededExpertCount, expertCount >= builder.topK else {
      throw .malformed(
        path: builder.path, line: 0, field: "experts of a layer", found: "\(expertCount)",
        expected: "at least \(max(builder.neededExpertCount, builder.topK)), as the ids reach that")
    }
    let byteCount = options.expertByteCount ?? TraceImportOptions.unknownByteCount
    let known = options.expertByteCount == nil ? "; bytes of an expert unknown, taken as 1 MiB" : ""
    return try builder.trace(
      header: TraceHeader(
        model: model,
        geometry: RoutingGeometry(
          expertCount: expertCount, topK: builder.topK,
          expertByteCounts: Array(repeating: byteCount, count: layerCount)),
        provenance: "imported from \(format)\(known)", hasWeights: hasWeights))
  }
}

/// The formats that are imported.
enum TraceFormat {
  /// Stoker's own JSON lines.
  case traceLines
  /// BigMoeOnEdge's comma-separated rows, one per routed expert.
  case routeTrace
  /// JSON lines of one token, `{"tok", "layers"}`.
  case layerLines
  /// JSON lines of one token, `{"seq", "pos", "phase", "experts", "weights"}`.
  case tokenLines
  /// One JSON object with `router_data` (GPT-OSS-MoE-ExpertFingerprinting).
  case fingerprint
  /// ESFT's tab-separated lines, one file per layer.
  case esft

  init?(_ file: TextFile) {
    let start = file.bytes.prefix(1 << 16).drop { $0 == 0x20 || $0 == 0x0a || $0 == 0x0d }
    let line = start.prefix { $0 != 0x0a }
    if line.starts(with: "# route_trace v1".utf8) {
      self = .routeTrace
    } else if line.first == UInt8(ascii: "{") {
      let text = String(decoding: line, as: UTF8.self)
      if text.contains("\"moetrace\"") {
        self = .traceLines
      } else if text.contains("\"experts\"") {
        self = .tokenLines
      } else if text.contains("\"layers\"") {
        self = .layerLines
      } else {
        self = .fingerprint
      }
    } else if let first = line.first, (0x30...0x39).contains(first), line.contains(0x09) {
      self = .esft
    } else {
      return nil
    }
  }
}

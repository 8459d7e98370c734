internal import Checkpoints
internal import Foundation
public import Residency
internal import Routing

/// The routing of the tokens that a model has decoded last, in a file of its own beside the histories: a trace
/// that `stoker replay` reads too. It is known by the file of the model, so that a plan can be made by it
/// before anything is read of the model but its header.
struct RoutingFile {
  let path: String
  /// Why the file that is there is not used, in words.
  private(set) var refusal: String?

  init(folder: String, model: ModelFile) {
    let url = URL(fileURLWithPath: model.path).resolvingSymlinksInPath()
    let attributes = try? FileManager.default.attributesOfItem(atPath: url.path)
    let date = attributes?[.modificationDate] as? Date
    let identity = "\(url.path) \(model.byteCount) \(date?.timeIntervalSince1970 ?? 0)"
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in identity.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    path = "\(folder)/\(url.lastPathComponent).\(String(hash, radix: 16)).moetrace"
  }

  /// What is in the file; nothing where there is none, or where it is damaged or of another model, which is
  /// told in `refusal`.
  mutating func read(_ geometry: RoutingGeometry) -> RecentRouting {
    var routing = RecentRouting(geometry: geometry)
    guard FileManager.default.fileExists(atPath: path) else { return routing }
    do throws(TraceError) {
      let trace = try RoutingTrace(path: path)
      let found = trace.header.geometry
      if found.layerCount == geometry.layerCount, found.expertCount == geometry.expertCount,
        found.topK == geometry.topK
      {
        routing.note(trace)
      } else {
        refusal = "the routing in '\(path)' is not used: it is of another model"
      }
    } catch {
      refusal = "the routing in '\(path)' is not used: \(error)"
    }
    return routing
  }

  /// Writes `routing` in place of what is there.
  func write(_ routing: RecentRouting, model: String) throws {
    let header = TraceHeader(
      model: model, geometry: routing.geometry, workload: "the tokens decoded last",
      provenance: "kept by stoker for the next plan", hasWeights: false)
    do throws(TraceError) {
      try routing.trace(header, promptTokens: 0, tokens: RecentRouting.capacity).write(to: path)
    } catch {
      throw StokerError.history(path: path, reason: "\(error)")
    }
  }
}

extension ModelFile {
  /// The routing of the tokens that were decoded last with this model, for a plan.
  ///
  /// - Parameters:
  ///   - folder: where histories are, as in `ModelOptions.historyFolder`.
  ///   - onRefusal: told, in words, why a file that is there is not used; a model that is opened with the same
  ///     folder has it among its fallbacks too.
  /// - Returns: nil if none has been kept, or too few for a plan to go by.
  public func recentRouting(
    in folder: String, onRefusal: (String) -> Void = { _ in }
  ) -> RecentRouting? {
    var file = RoutingFile(folder: folder, model: self)
    let routing = file.read(routingGeometry)
    if let refusal = file.refusal { onRefusal(refusal) }
    return routing.tokenCount >= Planner.enoughTokens ? routing : nil
  }

  /// The shape of its routing.
  var routingGeometry: RoutingGeometry {
    RoutingGeometry(
      expertCount: layout.expertCount, topK: description.expertsPerToken,
      expertByteCounts: layout.shapes.map(\.byteCount))
  }
}

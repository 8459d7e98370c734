import Foundation
import Routing

/// The traces of real models beside the repository.
enum SharedTraces {
  static let directory = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("shared/traces")

  static let arePresent = FileManager.default.fileExists(atPath: directory.path)

  static func path(_ name: String) -> String { directory.appendingPathComponent(name).path }

  /// The paths of ESFT's trace of `workload`, one per layer.
  static func esft(_ workload: String) -> [String] {
    (1...26).map { path("esft/\(workload)/expert_weights_\($0).txt.gz") }
  }
}

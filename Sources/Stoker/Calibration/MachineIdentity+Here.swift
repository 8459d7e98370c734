internal import Foundation
public import Placement
internal import Tensors

extension MachineIdentity {
  /// This machine, with the drive that holds `folder`.
  /// - Parameter threads: threads that compute; nil: those this process may use.
  /// - Throws: an error that names a kernel set this processor does not have.
  public static func here(folder: String, threads: Int? = nil) throws -> MachineIdentity {
    MachineIdentity(
      processor: Machine.processorName, threads: threads ?? Machine.processorCount,
      memoryBytes: Machine.kibibytes(of: "MemTotal", in: "/proc/meminfo") ?? 0,
      kernels: try KernelSet.selected().name, cacheBytes: Machine.sharedCacheByteCount,
      drive: Machine.drive(of: folder).description)
  }
}

extension Machine {
  static var processorName: String {
    let text = contents(of: "/proc/cpuinfo") ?? ""
    for line in text.split(separator: "\n") where line.hasPrefix("model name") {
      return line.split(separator: ":", maxSplits: 1).last.map {
        $0.trimmingCharacters(in: .whitespaces)
      } ?? "unknown"
    }
    return "unknown"
  }

  /// The largest cache of the first processor, in bytes; 0 where the system does not say.
  static var sharedCacheByteCount: Int {
    (0..<6).compactMap { index -> Int? in
      let path = "/sys/devices/system/cpu/cpu0/cache/index\(index)/size"
      guard let text = contents(of: path)?.trimmingCharacters(in: .whitespacesAndNewlines),
        let number = Int(text.dropLast())
      else { return nil }
      return number << (text.hasSuffix("M") ? 20 : 10)
    }.max() ?? 0
  }

  /// What a folder lies on.
  struct Drive: CustomStringConvertible {
    var source = "unknown"
    var fileSystem = "unknown"
    /// Bytes per second that the link of the drive carries, and what it is; nil where the system does
    /// not say.
    var link: (bytesPerSecond: Double, name: String)?

    var description: String { "\(fileSystem) on \(source)" }
  }

  /// The mount that holds `folder`, from the longest mount point that is a prefix of it.
  static func drive(of folder: String) -> Drive {
    var drive = Drive()
    let path = URL(fileURLWithPath: folder).resolvingSymlinksInPath().path
    var longest = -1
    for line in (contents(of: "/proc/self/mounts") ?? "").split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count >= 3 else { continue }
      let point = String(words[1])
      guard path == point || path.hasPrefix(point == "/" ? "/" : point + "/"),
        point.count >= longest
      else { continue }
      longest = point.count
      drive.source = String(words[0])
      drive.fileSystem = String(words[2])
    }
    let name = drive.source.split(separator: "/").last.map(String.init) ?? ""
    guard name.hasPrefix("nvme"), let end = name.dropFirst(4).firstIndex(where: { !$0.isNumber })
    else { return drive }
    let device = "/sys/class/nvme/\(name[..<end])/device"
    if let speed = contents(of: "\(device)/current_link_speed")?.split(separator: " ").first,
      let transfers = Double(speed), let width = contents(of: "\(device)/current_link_width"),
      let lanes = Double(width.trimmingCharacters(in: .whitespacesAndNewlines))
    {
      drive.link = (
        transfers * 1e9 * lanes * 128 / 130 / 8, "its link, \(transfers) GT/s x \(Int(lanes))"
      )
    }
    return drive
  }

  /// What a reader of a profile should know of this system, in words.
  static var notes: [String] {
    var notes = ["\(availableMemory ?? 0) bytes of memory available"]
    if let group = controlGroupMemory { notes.append("\(group) bytes left in the control group") }
    if let pages = contents(of: "/sys/kernel/mm/transparent_hugepage/enabled") {
      notes.append("huge pages: \(pages.trimmingCharacters(in: .whitespacesAndNewlines))")
    }
    if let release = contents(of: "/proc/sys/kernel/osrelease") {
      notes.append("Linux \(release.trimmingCharacters(in: .whitespacesAndNewlines))")
    }
    return notes
  }
}

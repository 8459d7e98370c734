internal import CLinux
internal import Glibc
internal import Tensors

/// What the machine offers this process: memory and processors, within its control groups.
public enum Machine {
  /// The bytes this process may use in all by default: what the machine and every enclosing memory
  /// control group have left, and what the process holds already, less a reserve of a sixteenth or
  /// 256 MiB, whichever is more.
  public static var defaultMemoryBudget: Int {
    let free = min(availableMemory ?? .max, controlGroupMemory ?? .max)
    guard free < .max else { return 4 << 30 }
    let usable = free + residentByteCount
    return max(0, usable - max(usable / 16, 256 << 20))
  }

  /// The processors this process may run on, its control group's quota included.
  public static var processorCount: Int {
    let affine = max(1, affinityProcessorCount())
    guard let quota = controlGroupProcessors else { return affine }
    return min(affine, max(1, Int(quota.rounded(.up))))
  }

  /// The resident memory of this process now, in bytes.
  static var residentByteCount: Int { statusField("VmRSS") ?? 0 }

  /// Gives memory back to the system that was freed and that the allocator has kept.
  public static func giveBackFreedMemory() { clinux_give_back_freed_memory() }

  /// The most resident memory this process has had, in bytes.
  public static var peakResidentByteCount: Int { statusField("VmHWM") ?? 0 }

  /// A field of /proc/self/status that is in kB; nil where there is no such file.
  private static func statusField(_ name: String) -> Int? {
    kibibytes(of: name, in: "/proc/self/status")
  }

  static var availableMemory: Int? { kibibytes(of: "MemAvailable", in: "/proc/meminfo") }

  static func kibibytes(of name: String, in path: String) -> Int? {
    guard let text = contents(of: path) else { return nil }
    for line in text.split(separator: "\n") where line.hasPrefix("\(name):") {
      let words = line.split(separator: " ")
      return words.count >= 2 ? Int(words[words.count - 2]).map { $0 * 1024 } : nil
    }
    return nil
  }

  // MARK: - Control groups

  /// What the tightest enclosing memory control group has left, its reclaimable page cache
  /// included; nil without a limit.
  static var controlGroupMemory: Int? {
    var tightest: Int?
    for group in controlGroups(of: "memory") {
      let v2 = group.version == 2
      guard
        let limit = number(in: "\(group.path)/\(v2 ? "memory.max" : "memory.limit_in_bytes")"),
        // Version 1 spells "no limit" as a number near 2^63.
        limit < 1 << 60,
        let usage = number(in: "\(group.path)/\(v2 ? "memory.current" : "memory.usage_in_bytes")")
      else { continue }
      let cached = reclaimable(in: "\(group.path)/memory.stat", prefix: v2 ? "" : "total_")
      tightest = min(tightest ?? .max, max(0, limit - usage + cached))
    }
    return tightest
  }

  private static func reclaimable(in path: String, prefix: String) -> Int {
    guard let text = contents(of: path) else { return 0 }
    var sum = 0
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count == 2, let value = Int(words[1]) else { continue }
      if words[0] == "\(prefix)inactive_file" || words[0] == "\(prefix)active_file" { sum += value }
    }
    return sum
  }

  /// The tightest processor quota, in processors; nil without one.
  private static var controlGroupProcessors: Double? {
    var tightest: Double?
    for group in controlGroups(of: "cpu") {
      var quota: Double?
      if group.version == 2 {
        let words = contents(of: "\(group.path)/cpu.max")?.split(whereSeparator: \.isWhitespace)
        if let words, words.count == 2, let time = Double(words[0]), let period = Double(words[1]) {
          quota = time / period
        }
      } else if let time = number(in: "\(group.path)/cpu.cfs_quota_us"), time > 0,
        let period = number(in: "\(group.path)/cpu.cfs_period_us"), period > 0
      {
        quota = Double(time) / Double(period)
      }
      if let quota { tightest = min(tightest ?? quota, quota) }
    }
    return tightest
  }

  /// The directories of this process's control group for `controller` and of its ancestors.
  private static func controlGroups(of controller: String) -> [(path: String, version: Int)] {
    guard let text = contents(of: "/proc/self/cgroup") else { return [] }
    var groups: [(String, Int)] = []
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { continue }
      let version = parts[0] == "0" && parts[1].isEmpty ? 2 : 1
      guard version == 2 || parts[1].split(separator: ",").contains(Substring(controller)) else {
        continue
      }
      let root = version == 2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/\(controller)"
      var names = parts[2].split(separator: "/")
      while true {
        groups.append((([root] + names.map(String.init)).joined(separator: "/"), version))
        if names.popLast() == nil { break }
      }
    }
    return groups
  }

  private static func number(in path: String) -> Int? {
    contents(of: path).flatMap { text in Int(text.prefix { !$0.isWhitespace }) }
  }

  /// A small text file; nil if it cannot be read, which for these files means "not offered here".
  static func contents(of path: String) -> String? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 8192)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      guard count > 0 else { break }
      bytes += chunk[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// Why the expert runtime could not do what was asked. The runtime stays usable after each.
public enum RuntimeError: Error, Hashable, Sendable {
  /// An expert's bytes could not be read.
  case read(expert: String, matrix: String, file: String, reason: String)
  /// A file or read engine could not be opened.
  case engine(reason: String)
  /// An allocation does not fit the memory budget.
  case overBudget(name: String, needed: Int, available: Int)
  /// The system refused memory.
  case memory(name: String, reason: String)
  /// The budget is below what the model needs at the least.
  case budgetTooSmall(budget: Int, minimum: Int)
  /// The worker threads could not be started.
  case threads(reason: String)
  /// A number given to open a runtime is out of range.
  case argument(name: String, found: Int, expected: String)
  /// The runtime cannot be run with a policy: it needs the future, or a trace to learn from.
  case policy(name: String, expected: String)
  /// A routing does not fit the model.
  case routing(reason: String)
}

extension RuntimeError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .read(let expert, let matrix, let file, let reason):
      "could not read the \(matrix) matrix of \(expert) from '\(file)': \(reason)"
    case .engine(let reason), .threads(let reason):
      reason
    case .overBudget(let name, let needed, let available):
      "\(name) needs \(formatBytes(needed)), but only \(formatBytes(available)) of the memory "
        + "budget are left"
    case .memory(let name, let reason):
      "the system refused the memory for \(name): \(reason)"
    case .budgetTooSmall(let budget, let minimum):
      "a memory budget of \(formatBytes(budget)) is too small for this model; "
        + "the minimum is \(formatBytes(minimum)) (--memory \(mebibytesRoundedUp(minimum))MiB)"
    case .argument(let name, let found, let expected):
      "\(name) is \(found), expected \(expected)"
    case .policy(let name, let expected):
      "the policy is \(name), expected \(expected)"
    case .routing(let reason):
      "the routing does not fit the model: \(reason)"
    }
  }
}

/// `bytes` in whole MiB, rounded up.
private func mebibytesRoundedUp(_ bytes: Int) -> Int { (bytes + (1 << 20) - 1) >> 20 }

/// `bytes` for people: three significant digits and a binary unit.
public func formatBytes(_ bytes: Int) -> String {
  let units = ["B", "KiB", "MiB", "GiB", "TiB"]
  var value = Double(bytes.magnitude)
  var unit = 0
  while value >= 1024, unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  let sign = bytes < 0 ? "-" : ""
  if unit == 0 { return "\(sign)\(Int(value)) B" }
  return "\(sign)\(formatFixed(value, digits: value < 10 ? 2 : value < 100 ? 1 : 0)) \(units[unit])"
}

/// `value` with a fixed number of digits after the point.
public func formatFixed(_ value: Double, digits: Int) -> String {
  guard value.isFinite, value.magnitude < 1e15 else { return "\(value)" }
  var scale = 1.0
  for _ in 0..<digits { scale *= 10 }
  let scaled = (value.magnitude * scale).rounded()
  let whole = Int((scaled / scale).rounded(.towardZero))
  let sign = value < 0 && scaled > 0 ? "-" : ""
  guard digits > 0 else { return "\(sign)\(whole)" }
  let fraction = String(Int(scaled - Double(whole) * scale))
  let zeros = String(repeating: "0", count: max(0, digits - fraction.count))
  return "\(sign)\(whole).\(zeros)\(fraction)"
}

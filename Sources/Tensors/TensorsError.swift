/// Why a request to the kernels cannot be met.
package enum TensorsError: Error, Hashable, Sendable {
  /// The environment variable names no kernel set.
  case unknownKernelSet(value: String)
  /// The environment variable names a set larger than the processor's best.
  case kernelSetUnavailable(requested: KernelSet, best: KernelSet)
}

extension TensorsError: CustomStringConvertible {
  package var description: String {
    let variable = KernelSet.environmentVariable
    switch self {
    case .unknownKernelSet(let value):
      let names = KernelSet.allCases.map(\.name).joined(separator: ", ")
      return "\(variable) is '\(value)', but must be one of \(names)"
    case .kernelSetUnavailable(let requested, let best):
      return
        "\(variable) asks for \(requested.name), but this processor has \(best.name) at most"
    }
  }
}

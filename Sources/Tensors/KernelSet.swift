internal import CKernels
internal import Glibc

/// The instruction sets the kernels are written for; a larger one needs a newer processor.
package enum KernelSet: UInt32, CaseIterable, Comparable, Sendable {
  /// Plain C, on any processor.
  case portable = 0
  /// AVX2, FMA, F16C and BMI2.
  case avx2 = 1
  /// AVX-512 F, BW, VL, DQ and VNNI.
  case avx512 = 2

  /// The environment variable that asks for a set other than the best.
  package static let environmentVariable = "STOKER_KERNELS"

  /// The largest set of this processor and operating system.
  package static let best = KernelSet(ckernels_best_set())

  /// The set that the environment asks for, or else `best`.
  ///
  /// - Parameter environment: The variables of the process, by name.
  /// - Throws: `TensorsError` if the value names no set, or one that this processor lacks.
  package static func selected(
    environment: [String: String]
  ) throws(TensorsError) -> KernelSet {
    try selected(environment: environment, best: best)
  }

  /// The set that this process's environment asks for, or else `best`; see
  /// `selected(environment:)`.
  package static func selected() throws(TensorsError) -> KernelSet {
    guard let value = getenv(environmentVariable) else { return best }
    return try selected(environment: [environmentVariable: String(cString: value)])
  }

  static func selected(
    environment: [String: String], best: KernelSet
  ) throws(TensorsError) -> KernelSet {
    guard let value = environment[environmentVariable] else { return best }
    guard let set = allCases.first(where: { $0.name == value }) else {
      throw .unknownKernelSet(value: value)
    }
    guard set <= best else { throw .kernelSetUnavailable(requested: set, best: best) }
    return set
  }

  /// The name of the set as the environment variable spells it.
  package var name: String {
    switch self {
    case .portable: "portable"
    case .avx2: "avx2"
    case .avx512: "avx512"
    }
  }

  package static func < (a: KernelSet, b: KernelSet) -> Bool { a.rawValue < b.rawValue }

  private init(_ set: ckernels_set) {
    switch set {
    case .CKernelsPortable: self = .portable
    case .CKernelsAVX2: self = .avx2
    case .CKernelsAVX512: self = .avx512
    }
  }

  /// The same set for the C calls.
  var cValue: ckernels_set {
    switch self {
    case .portable: .CKernelsPortable
    case .avx2: .CKernelsAVX2
    case .avx512: .CKernelsAVX512
    }
  }
}

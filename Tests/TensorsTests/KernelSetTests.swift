import Testing

@testable import Tensors

@Suite struct KernelSetTests {
  @Test func environmentMayAskForLess() throws {
    #expect(try KernelSet.selected(environment: [:], best: .avx2) == .avx2)
    #expect(try KernelSet.selected(environment: ["STOKER_KERNELS": "portable"]) == .portable)
    for set in KernelSet.allCases {
      let environment = ["STOKER_KERNELS": set.name]
      #expect(try KernelSet.selected(environment: environment, best: .avx512) == set)
    }
  }

  @Test func askingForMoreThanTheProcessorHasThrows() {
    let error = #expect(throws: TensorsError.self) {
      try KernelSet.selected(environment: ["STOKER_KERNELS": "avx512"], best: .avx2)
    }
    #expect(error == .kernelSetUnavailable(requested: .avx512, best: .avx2))
    #expect(
      error?.description
        == "STOKER_KERNELS asks for avx512, but this processor has avx2 at most")
  }

  @Test(arguments: ["", "AVX2", "neon", "avx2 "])
  func unknownValuesThrow(_ value: String) {
    let error = #expect(throws: TensorsError.self) {
      try KernelSet.selected(environment: ["STOKER_KERNELS": value])
    }
    #expect(
      error?.description
        == "STOKER_KERNELS is '\(value)', but must be one of portable, avx2, avx512")
  }

  @Test func multiplyingTypesWithoutKernelsTraps() async {
    await #expect(processExitsWith: .failure) {
      _ = Kernels(set: .portable).activationByteCount(type: .tq2_0, columns: 256)
    }
    await #expect(processExitsWith: .failure) {
      _ = Kernels(set: .portable).activationByteCount(type: .q4_K, columns: 128)
    }
  }

  @Test(.enabled(if: KernelSet.best < .avx512))
  func kernelsOfALargerSetThanTheProcessorsTrap() async {
    await #expect(processExitsWith: .failure) { _ = Kernels(set: .avx512) }
  }
}

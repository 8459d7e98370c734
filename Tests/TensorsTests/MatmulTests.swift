import Testing

@testable import Tensors

/// Largest errors of a product, relative to the sum of |weight| |activation| over the row.
private enum ErrorBound {
  /// The portable kernels against double precision. The oracle's weights are themselves rounded:
  /// once, or twice in the formats that add a minimum; then the result is.
  static func portable(_ type: ElementType) -> Double {
    switch type {
    case .f32, .f16, .bf16: 0x1p-24
    case .q4_1, .q5_1, .q4_K, .q5_K, .q2_K: 0x1p-22
    default: 0x1p-23
    }
  }

  /// A vector kernel against the portable one: single-precision sums of at most 2048 columns.
  static func vector(_ type: ElementType) -> Double {
    switch type {
    case .f32, .f16, .bf16: 1e-6
    case .q4_0, .q5_0, .q8_0: 1e-6
    case .q6_K: 1.5e-6
    case .q4_1, .q5_1, .q4_K, .q5_K, .q2_K: 2e-6
    default: 1e-6
    }
  }
}

@Suite struct MatmulTests {
  static let available = KernelSet.allCases.filter { $0 <= .best }

  @Test(arguments: ElementType.computable)
  func portableAgreesWithDoublePrecision(_ type: ElementType) throws {
    let kernels = Kernels(set: .portable)
    for columns in type.testColumns {
      for payload in Payload.all {
        let weights = try WeightSample(type, rows: 3, columns: columns, payload: payload)
        let values = weights.values
        let magnitudes = weights.magnitudes
        for sample in ActivationSample.allCases {
          let row = kernels.activationRow(sample.values(columns: columns), type: type)
          let x =
            type.wantsQuantizedActivations
            ? QuantizedRow(row, columns: columns).values
            : sample.values(columns: columns).map(Double.init)
          let result = kernels.product(weights, rows: 0..<3, activations: [row])[0]
          for r in 0..<3 {
            let range = r * columns..<(r + 1) * columns
            let exact = zip(values[range], x).reduce(0) { $0 + Double($1.0) * $1.1 }
            let scale = zip(magnitudes[range], x).reduce(0) { $0 + Double($1.0) * abs($1.1) }
            #expect(
              abs(Double(result[r]) - exact) <= ErrorBound.portable(type) * scale,
              "\(type) \(columns) columns, \(payload), \(sample): \(result[r]), not \(exact)")
          }
        }
      }
    }
  }

  @Test(
    .enabled(if: KernelSet.best >= .avx2), arguments: ElementType.computable,
    ProductMethod.allCases)
  func avx2AgreesWithPortable(_ type: ElementType, _ method: ProductMethod) throws {
    try expectAgreement(of: .avx2, type, method)
  }

  @Test(
    .enabled(if: KernelSet.best >= .avx512), arguments: ElementType.computable,
    ProductMethod.allCases)
  func avx512AgreesWithPortable(_ type: ElementType, _ method: ProductMethod) throws {
    try expectAgreement(of: .avx512, type, method)
  }

  private func expectAgreement(
    of set: KernelSet, _ type: ElementType, _ method: ProductMethod
  ) throws {
    let portable = Kernels(set: .portable)
    let kernels = Kernels(set: set)
    for columns in type.testColumns {
      for (seed, payload) in Payload.all.enumerated() {
        let weights = try WeightSample(
          type, rows: 5, columns: columns, payload: payload, seed: UInt64(seed))
        let magnitudes = weights.magnitudes(of: method)
        for sample in ActivationSample.allCases {
          let x = sample.values(columns: columns, seed: UInt64(columns))
          let row = portable.activationRow(x, type: type)
          let expected = portable.product(weights, rows: 0..<5, activations: [row])[0]
          let result = kernels.product(
            weights, rows: 0..<5, activations: [row], method: method)[0]
          for r in 0..<5 {
            let scale = zip(magnitudes[r * columns..<(r + 1) * columns], x)
              .reduce(0) { $0 + Double($1.0 * abs($1.1)) }
            // Quantizing changes the sum of |x| a little.
            let bound = ErrorBound.vector(type) * scale * 1.01
            #expect(
              abs(Double(result[r]) - Double(expected[r])) <= bound,
              "\(type) \(columns) columns, \(payload), \(sample): \(result[r]), not \(expected[r])")
          }
        }
      }
    }
  }

  /// The hard promise: one row and one token at a time give the bits of any larger product.
  @Test(arguments: available, ElementType.computable)
  func resultsDoNotDependOnRowRangeOrTokenCount(_ set: KernelSet, _ type: ElementType) throws {
    for method in ProductMethod.allCases { try expectIndependence(set, type, method) }
  }

  private func expectIndependence(
    _ set: KernelSet, _ type: ElementType, _ method: ProductMethod
  ) throws {
    let kernels = Kernels(set: set)
    // Rows of the first shape fill several row blocks, those of the second end within a step.
    let shapes = type.blockSize == 1 ? [(19, 5000), (3, 37)] : [(40, 6144), (3, type.blockSize)]
    for (rows, columns) in shapes {
      let weights = try WeightSample(type, rows: rows, columns: columns)
      let activations = (0..<15).map {
        kernels.activationRow(
          ActivationSample.random.values(columns: columns, seed: $0), type: type)
      }
      let whole = kernels.product(
        weights, rows: 0..<rows, activations: activations, method: method)
      for r in [0, 1, rows / 2, rows - 1] {
        for t in [0, 7, 8, 11, 12, 14] {
          let single = kernels.product(
            weights, rows: r..<r + 1, activations: [activations[t]], method: method)
          #expect(single[0][r].bitPattern == whole[t][r].bitPattern)
        }
      }
      for tokens in [1, 2, 3, 4, 5, 7, 8, 9] {
        let range = 1..<rows - 1
        let part = kernels.product(
          weights, rows: range, activations: Array(activations[..<tokens]), method: method)
        for t in 0..<tokens {
          #expect(part[t][range] == whole[t][range])
          #expect(part[t][0] == Kernels.untouched && part[t][rows - 1] == Kernels.untouched)
        }
      }
    }
  }

  @Test(arguments: available, ElementType.computable)
  func weightsMayLieAtAnyAlignment(_ set: KernelSet, _ type: ElementType) throws {
    let kernels = Kernels(set: set)
    let columns = type.testColumns[3]
    let weights = try WeightSample(type, rows: 6, columns: columns)
    let row = kernels.activationRow(ActivationSample.random.values(columns: columns), type: type)
    for method in ProductMethod.allCases {
      let aligned = kernels.product(weights, rows: 0..<6, activations: [row], method: method)
      for byteOffset in [1, 2, 3, 5, 63] {
        let shifted = kernels.product(
          weights, rows: 0..<6, activations: [row], byteOffset: byteOffset, method: method)
        #expect(shifted == aligned)
      }
    }
  }

  @Test(arguments: available, ElementType.quantized)
  func activationThatIsNotFiniteMakesResultNaN(_ set: KernelSet, _ type: ElementType) throws {
    let kernels = Kernels(set: set)
    let weights = try WeightSample(type, rows: 2, columns: 512)
    for poison in [Float.nan, .infinity, -.infinity] {
      var x = ActivationSample.random.values(columns: 512)
      x[300] = poison
      let row = kernels.activationRow(x, type: type)
      for method in ProductMethod.allCases {
        let result = kernels.product(weights, rows: 0..<2, activations: [row], method: method)[0]
        #expect(result.allSatisfy { $0.isNaN })
      }
    }
  }

  @Test(arguments: available, ElementType.computable)
  func emptyProductsWriteNothing(_ set: KernelSet, _ type: ElementType) throws {
    let kernels = Kernels(set: set)
    let columns = type.testColumns[3]
    let weights = try WeightSample(type, rows: 2, columns: columns)
    let row = kernels.activationRow(ActivationSample.random.values(columns: columns), type: type)
    for method in ProductMethod.allCases {
      #expect(
        kernels.product(weights, rows: 1..<1, activations: [row], method: method)[0].allSatisfy {
          $0 == Kernels.untouched
        })
      #expect(kernels.product(weights, rows: 0..<2, activations: [], method: method).isEmpty)
    }
  }

  /// The table of methods: few tokens by rows, many packed, and the portable set by rows always.
  @Test(arguments: available, ElementType.computable)
  func methodChangesOnceWithTheTokenCount(_ set: KernelSet, _ type: ElementType) {
    let kernels = Kernels(set: set)
    let methods = (0...64).map { kernels.method(type: type, tokens: $0) }
    #expect(methods[1] == .byRows)
    #expect(methods[64] == (set == .portable ? .byRows : .packed))
    let first = methods.firstIndex(of: .packed) ?? methods.count
    #expect(methods[first...].allSatisfy { $0 == .packed })
  }
}

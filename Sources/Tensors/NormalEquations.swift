internal import COpenBLAS

/// The sums of a linear least-squares fit with a ridge: the rows that are added are not kept.
///
/// Ridge regression: Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal
/// problems", Technometrics 12, 1970. Products and factors are OpenBLAS's.
package struct NormalEquations: Sendable {
  /// Values of an input and of an output.
  package let inputs: Int
  package let outputs: Int
  /// Rows added.
  package private(set) var rowCount = 0
  /// The sum of x xT, its upper triangle, [inputs, inputs].
  private var gram: [Float]
  /// The sum of x yT, [inputs, outputs].
  private var moment: [Float]
  /// The sum of the squares of y.
  private var squares = 0.0

  package init(inputs: Int, outputs: Int) {
    self.inputs = inputs
    self.outputs = outputs
    gram = Array(repeating: 0, count: inputs * inputs)
    moment = Array(repeating: 0, count: inputs * outputs)
  }

  /// The bytes that such sums take.
  package static func byteCount(inputs: Int, outputs: Int) -> Int {
    4 * inputs * (inputs + outputs)
  }

  /// Adds rows: `x`, [rows, inputs], and `y`, [rows, outputs].
  package mutating func add(x: [Float], y: [Float]) {
    let rows = x.count / inputs
    precondition(x.count == rows * inputs && y.count == rows * outputs, "rows do not match")
    rowCount += rows
    for value in y { squares += Double(value) * Double(value) }
    cblas_ssyrk(
      CblasRowMajor, CblasUpper, CblasTrans, Int32(inputs), Int32(rows), 1, x, Int32(inputs), 1,
      &gram, Int32(inputs))
    cblas_sgemm(
      CblasRowMajor, CblasTrans, CblasNoTrans, Int32(inputs), Int32(outputs), Int32(rows), 1, x,
      Int32(inputs), y, Int32(outputs), 1, &moment, Int32(outputs))
  }

  /// These sums and those of `other`.
  package func merged(_ other: Self) -> Self {
    var result = self
    for index in gram.indices { result.gram[index] += other.gram[index] }
    for index in moment.indices { result.moment[index] += other.moment[index] }
    result.rowCount += other.rowCount
    result.squares += other.squares
    return result
  }

  /// What `weights`, [inputs, outputs], make of rows `x`, [rows, inputs]: [rows, outputs].
  package func products(_ x: [Float], _ weights: [Float]) -> [Float] {
    let rows = x.count / inputs
    precondition(x.count == rows * inputs && weights.count == inputs * outputs, "a wrong shape")
    var y = [Float](repeating: 0, count: rows * outputs)
    guard rows > 0 else { return y }
    cblas_sgemm(
      CblasRowMajor, CblasNoTrans, CblasNoTrans, Int32(rows), Int32(outputs), Int32(inputs), 1, x,
      Int32(inputs), weights, Int32(outputs), 0, &y, Int32(outputs))
    return y
  }

  /// The weights, [inputs, outputs], that minimise the mean squared error and `ridge` times the squares
  /// of the weights' distance from `prior`, relative to the inputs' mean square; nil if the system has
  /// no solution in double precision.
  package func solve(ridge: Double, prior: [Float]) -> [Float]? {
    precondition(prior.count == inputs * outputs, "a prior of another shape")
    let residual = residualMoment(prior)
    var factor = [Double](repeating: 0, count: inputs * inputs)
    var trace = 0.0
    for row in 0..<inputs {
      trace += Double(gram[row * inputs + row])
      for column in row..<inputs {
        // Row-major upper is column-major lower.
        factor[row * inputs + column] = Double(gram[row * inputs + column])
      }
    }
    let added = max(ridge * trace / Double(inputs), .leastNormalMagnitude)
    for row in 0..<inputs { factor[row * inputs + row] += added }
    var solution = [Double](repeating: 0, count: inputs * outputs)
    for row in 0..<inputs {
      for output in 0..<outputs {
        solution[output * inputs + row] = residual[row * outputs + output]
      }
    }
    var (n, m, info) = (Int32(inputs), Int32(outputs), Int32(0))
    dpotrf_("L", &n, &factor, &n, &info)
    guard info == 0 else { return nil }
    dpotrs_("L", &n, &m, factor, &n, &solution, &n, &info)
    guard info == 0 else { return nil }
    var weights = prior
    for row in 0..<inputs {
      for output in 0..<outputs {
        weights[row * outputs + output] += Float(solution[output * inputs + row])
      }
    }
    return weights
  }

  /// The mean squared error of an output with `weights` on the added rows.
  package func meanSquaredError(of weights: [Float]) -> Double {
    var product = [Float](repeating: 0, count: inputs * outputs)
    multiplyGram(by: weights, into: &product)
    var sum = squares
    for index in weights.indices {
      sum += Double(weights[index]) * (Double(product[index]) - 2 * Double(moment[index]))
    }
    return max(0, sum) / Double(max(1, rowCount * outputs))
  }

  /// The moment of what `prior` leaves unexplained.
  private func residualMoment(_ prior: [Float]) -> [Double] {
    var product = [Float](repeating: 0, count: inputs * outputs)
    multiplyGram(by: prior, into: &product)
    return moment.indices.map { Double(moment[$0]) - Double(product[$0]) }
  }

  private func multiplyGram(by weights: [Float], into product: inout [Float]) {
    cblas_ssymm(
      CblasRowMajor, CblasLeft, CblasUpper, Int32(inputs), Int32(outputs), 1, gram, Int32(inputs),
      weights, Int32(outputs), 0, &product, Int32(outputs))
  }
}

import TestSupport
import Testing

@testable import Tensors

/// Attention of a block of tokens against double precision, and against itself in other blocks.
@Suite struct AttentionBlockTests {
  /// Queries [tokens, dimension] at the last of `positions` positions of one head.
  private struct Block {
    let heads: [AttentionTests.Head]
    let positions: Int

    init(
      tokens: Int, positions: Int, dimension: Int, half: Bool, window: Int? = nil,
      sink: Float? = nil, valueDimension: Int? = nil
    ) {
      var generator = SeededGenerator(seed: UInt64(tokens))
      var head = AttentionTests.Head(positions: positions, dimension: dimension, half: half)
      (head.window, head.sink) = (window, sink)
      head.valueDimension = valueDimension ?? dimension
      heads = (0..<tokens).map { _ in
        var copy = head
        copy.query = (0..<dimension).map { _ in .random(in: -1...1, using: &generator) }
        return copy
      }
      self.positions = positions
    }

    /// The positions that token `token` sees.
    func positions(of token: Int) -> Int { positions - heads.count + token + 1 }

    /// The outputs of `tokens`, computed as one block, [tokens][dimension].
    func attended(_ set: KernelSet, half: Bool, tokens: Range<Int>) -> [[Float]] {
      let head = heads[0]
      let seen = positions(of: tokens.upperBound - 1)
      let queries = tokens.map { token in
        let row = UnsafeMutablePointer<Float>.allocate(capacity: head.dimension)
        row.initialize(from: heads[token].query, count: head.dimension)
        return row
      }
      let outputs = tokens.map { _ in
        let row = UnsafeMutablePointer<Float>.allocate(capacity: head.valueDimension + 1)
        row.initialize(repeating: Kernels.untouched, count: head.valueDimension + 1)
        return row
      }
      defer {
        for row in queries + outputs { row.deallocate() }
      }
      var scores = [Float](repeating: Kernels.untouched, count: tokens.count * (seen + 1) + 1)
      func run(_ keys: UnsafeRawPointer, _ values: UnsafeRawPointer) {
        Kernels(set: set).attentionBlock(
          head.head(keys, values, half: half), queries: queries.map { UnsafePointer($0) },
          positionsBefore: seen - tokens.count, tokens: tokens.count, scores: &scores,
          outputs: outputs)
      }
      if half {
        run(head.keys.map { Float16($0).bitPattern }, head.values.map { Float16($0).bitPattern })
      } else {
        run(head.keys, head.values)
      }
      #expect(scores.last == Kernels.untouched)
      return outputs.map {
        #expect($0[head.valueDimension] == Kernels.untouched)
        return Array(UnsafeBufferPointer(start: $0, count: head.valueDimension))
      }
    }
  }

  @Test(arguments: AttentionTests.available, AttentionTests.dimensions)
  func agreesWithDoublePrecision(_ set: KernelSet, _ dimension: Int) throws {
    for half in [false, true] {
      for (tokens, positions) in [(1, 1), (2, 2), (3, 9), (7, 300), (16, 16), (16, 290)] {
        let block = Block(tokens: tokens, positions: positions, dimension: dimension, half: half)
        let result = block.attended(set, half: half, tokens: 0..<tokens)
        for token in 0..<tokens {
          let exact = block.heads[token].exact(positions: block.positions(of: token))
          for d in 0..<dimension {
            let error = abs(Double(result[token][d]) - exact.out[d])
            try #require(
              error <= AttentionTests.errorBound * exact.magnitude[d],
              "half \(half), token \(token) of \(tokens), \(positions) positions, \(d)")
          }
        }
      }
    }
  }

  @Test(arguments: AttentionTests.available, [true, false])
  func windowsSinksAndNarrowValuesAgreeToo(_ set: KernelSet, _ half: Bool) throws {
    for (window, sink, valueDimension) in [
      (1, nil, 80), (40, nil, 80), (nil, 0.5, 64), (300, 3, 72), (7, -1, 16),
    ] as [(Int?, Float?, Int)] {
      for (tokens, positions) in [(2, 2), (7, 300), (16, 16), (16, 600)] {
        let block = Block(
          tokens: tokens, positions: positions, dimension: 80, half: half, window: window,
          sink: sink, valueDimension: valueDimension)
        let result = block.attended(set, half: half, tokens: 0..<tokens)
        for token in 0..<tokens {
          let exact = block.heads[token].exact(positions: block.positions(of: token))
          for d in 0..<valueDimension {
            let error = abs(Double(result[token][d]) - exact.out[d])
            try #require(error <= AttentionTests.errorBound * max(exact.magnitude[d], 1e-30))
          }
        }
      }
    }
  }

  @Test(arguments: AttentionTests.available, [true, false])
  func theSplitIntoBlocksChangesNoBit(_ set: KernelSet, _ half: Bool) {
    for dimension in [24, 64, 128] {
      // The third block's window begins within the second slice of positions, or in the first.
      for (window, sink, valueDimension) in [
        (nil, nil, dimension), (nil, 0.5, dimension - 16), (8, nil, dimension), (100, 1, dimension),
      ] as [(Int?, Float?, Int)] {
        let block = Block(
          tokens: 16, positions: 270, dimension: dimension, half: half, window: window, sink: sink,
          valueDimension: valueDimension)
        let whole = block.attended(set, half: half, tokens: 0..<16)
        for tokens in [0..<1, 0..<9, 3..<4, 5..<16, 15..<16] {
          #expect(block.attended(set, half: half, tokens: tokens) == Array(whole[tokens]))
        }
      }
    }
  }
}

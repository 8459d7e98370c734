/// What became of experts that were read ahead of the router's decision, in counts and bytes.
///
/// What is in none of the lists is still staged: its layer is to come, or it was needed neither then nor
/// since and its slot has not been wanted.
public struct PrefetchLedger: Hashable, Sendable, Codable {
  /// Experts, and bytes of their reads.
  public struct Amount: Hashable, Sendable, Codable {
    public var count = 0
    public var byteCount = 0

    /// Nothing.
    public init() {}

    init(count: Int, byteCount: Int) {
      self.count = count
      self.byteCount = byteCount
    }

    package mutating func add(_ byteCount: Int) {
      count += 1
      self.byteCount += byteCount
    }

    package mutating func add(_ other: Self, sign: Int) {
      count += sign * other.count
      byteCount += sign * other.byteCount
    }
  }

  /// Read ahead; what was cancelled before it began is not among them.
  public var issued = Amount()
  /// Needed, and all there before everything else had been computed: nothing waited for it. The bytes
  /// are those that had been read or were being read when it was needed.
  public var inTime = Amount()
  /// Needed and waited for.
  public var late = Amount()
  /// Never needed, and given up for another.
  public var unused = Amount()
  /// Bytes that were queued, and cancelled or demanded before their reads had begun.
  public var cancelledByteCount = 0
  /// From the beginning of the wait to the end of the late ones' reads, summed over them.
  public var lateNanoseconds: UInt64 = 0

  public init() {}

  /// Bytes still staged.
  public var stagedByteCount: Int {
    issued.byteCount - inTime.byteCount - late.byteCount - unused.byteCount
  }

  /// The share of the bytes read ahead that were needed; nil if none were.
  public var accuracy: Double? {
    issued.byteCount > 0
      ? Double(inTime.byteCount + late.byteCount) / Double(issued.byteCount) : nil
  }

  /// The share of the needed bytes that were there in time; nil if none were needed.
  public var timeliness: Double? {
    let needed = inTime.byteCount + late.byteCount
    return needed > 0 ? Double(inTime.byteCount) / Double(needed) : nil
  }

  /// The share of bytes read ahead that were needed and there in time, accuracy times fetch rate
  /// (ProMoE, arXiv 2410.22134, section 4.1); nil if none were read.
  public var goodPredictionRate: Double? {
    issued.byteCount > 0 ? Double(inTime.byteCount) / Double(issued.byteCount) : nil
  }

  /// Takes note that reads of `byteCount` bytes were cancelled before they had begun.
  package mutating func cancel(_ byteCount: Int) {
    issued.byteCount -= byteCount
    cancelledByteCount += byteCount
  }

  package mutating func add(_ other: Self) {
    combine(other, sign: 1)
    lateNanoseconds += other.lateNanoseconds
  }

  package mutating func subtract(_ other: Self) {
    combine(other, sign: -1)
    lateNanoseconds -= other.lateNanoseconds
  }

  private mutating func combine(_ other: Self, sign: Int) {
    issued.add(other.issued, sign: sign)
    inTime.add(other.inTime, sign: sign)
    late.add(other.late, sign: sign)
    unused.add(other.unused, sign: sign)
    cancelledByteCount += sign * other.cancelledByteCount
  }
}

extension PrefetchLedger {
  /// Whether nothing was read ahead and nothing became of it.
  public var isEmpty: Bool { self == PrefetchLedger() }

  /// The figures in the order in which traces have them: counts and bytes of what was issued, in time, late
  /// and unused, the bytes cancelled, and the microseconds late.
  var figures: [Int] {
    [issued, inTime, late, unused].flatMap { [$0.count, $0.byteCount] }
      + [cancelledByteCount, Int(lateNanoseconds / 1000)]
  }

  /// - Parameter figures: as `figures`; nil unless they are as many and make sense.
  init?(figures: [Int]) {
    guard figures.count == Self.figureCount, figures[9] >= 0 else { return nil }
    func amount(_ first: Int) -> Amount {
      Amount(count: figures[first], byteCount: figures[first + 1])
    }
    issued = amount(0)
    inTime = amount(2)
    late = amount(4)
    unused = amount(6)
    cancelledByteCount = figures[8]
    lateNanoseconds = UInt64(figures[9]) * 1000
  }

  static let figureCount = 10
}

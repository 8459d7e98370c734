/// Units of work per second of `body`, which does some and says how much, again and again for so long.
package func workPerSecond(for nanoseconds: UInt64, _ body: () -> Double) -> Double {
  let start = monotonicNanoseconds()
  var work = 0.0
  var elapsed: UInt64 = 0
  repeat {
    work += body()
    elapsed = monotonicNanoseconds() - start
  } while elapsed < nanoseconds
  return work / (Double(elapsed) / 1e9)
}

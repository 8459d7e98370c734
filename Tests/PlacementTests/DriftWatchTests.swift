import Placement
import Testing

@Suite struct DriftWatchTests {
  /// 10 ms a token, of which 4 ms are waited for 1 MB at 200 MB/s; all times multiplied by `scale`.
  private static func prediction(scale: Double) -> Prediction {
    var stalls = Stalls()
    stalls.evictedSeconds = 0.004 * scale
    return Prediction(
      timeToFirstToken: 1, tpotMean: 0.010 * scale, tpotP95: 0.012 * scale, uncertainty: 0.1,
      hitRate: 0.8, bytesPerToken: 1e6, stalls: stalls, readSeconds: 0.005 * scale,
      expertSeconds: 0.003 * scale, denseSeconds: 0.002 * scale, contextSeconds: 0,
      otherSeconds: 0.001 * scale, peakMemory: 1, binding: .drive, overlapBound: 150)
  }

  /// A run whose tokens are as expected but for these factors.
  private struct Run {
    var total = DriftWatch.Observation(
      seconds: 0, stallSeconds: 0, readBytes: 0, readSeconds: 0, hits: 0, accesses: 0)
    var watch: DriftWatch
    let scale: Double

    init(scale: Double = 1) {
      watch = DriftWatch(DriftWatchTests.prediction(scale: scale))
      self.scale = scale
    }

    /// The drifts of `count` tokens.
    mutating func add(
      _ count: Int, disk: Double = 1, compute: Double = 1, hits: Int = 80
    ) -> [DriftWatch.Drift] {
      (0..<count).compactMap { _ in
        let reading = scale * 0.005 / disk
        total.readSeconds += reading
        total.stallSeconds += reading - scale * 0.001
        total.seconds += reading + scale * (0.006 / compute - 0.001)
        total.readBytes += 1e6
        total.hits += hits
        total.accesses += 100
        return watch.note(total)
      }
    }
  }

  @Test func aRunAsExpectedAndSmallChangesAreNoDrift() {
    var run = Run()
    #expect(run.add(200).isEmpty)
    #expect(run.add(200, disk: 0.8, compute: 0.85, hits: 76).isEmpty)
    // A few slow tokens are a hiccup.
    #expect((run.add(3, disk: 0.4) + run.add(200)).isEmpty)
  }

  @Test func aSlowDriveIsNoticedOnceAndSoIsItsRecovery() throws {
    var run = Run()
    #expect(run.add(64).isEmpty)
    let slow = run.add(160, disk: 0.5)
    #expect(slow.count == 1)
    #expect(abs(try #require(slow.first).disk - 0.5) < 0.01)
    #expect(slow[0].compute == 1 && slow[0].hits == nil)
    let recovered = run.add(160)
    #expect(recovered.count == 1 && abs(recovered[0].disk - 2) < 0.02)
  }

  @Test func aMomentIsNoDriftHoweverManyTokensItHas() {
    var run = Run(scale: 0.02)
    #expect((run.add(2000) + run.add(100, disk: 0.5) + run.add(2000)).isEmpty)
    let drifts = run.add(2000, disk: 0.5)
    #expect(drifts.count == 1 && abs(drifts[0].disk - 0.5) < 0.05)
  }

  @Test func aSlowProcessorIsNoticed() {
    var run = Run()
    let drifts = run.add(64) + run.add(96, compute: 0.5)
    #expect(drifts.count == 1 && abs(drifts[0].compute - 0.5) < 0.01 && drifts[0].disk == 1)
  }

  @Test func anotherWorkloadIsNoticed() throws {
    var run = Run()
    #expect(run.add(100, hits: 90).isEmpty)
    let drifts = run.add(120, hits: 60)
    #expect(drifts.count == 1)
    let hits = try #require(drifts.first?.hits)
    #expect(abs(hits.seen - 0.6) < 1e-9 && abs(hits.expected - 0.9) < 1e-9)
  }
}

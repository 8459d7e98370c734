import Placement
import Testing

@Suite struct LayerTimelineTests {
  /// 1,000 bytes a second from the disk after 2 s, 3,000 multiplied.
  static let profile = HardwareProfile(
    name: "slow", readBytesPerSecond: 1000, readLatencySeconds: 2, computeBytesPerSecond: 3000,
    layerSeconds: 0, tokenSeconds: 0)

  @Test func residentsTakeTheirBytes() {
    var timeline = LayerTimeline(Self.profile)
    let time = timeline.run(hits: 4, misses: 0, byteCount: 3000)
    #expect(abs(time.seconds - 4) < 1e-9)
    #expect(time.stallSeconds == 0 && time.readSeconds == 0)
  }

  @Test func aLoneMissWaitsForEachMatrix() {
    var timeline = LayerTimeline(Self.profile)
    let time = timeline.run(hits: 0, misses: 1, byteCount: 3000)
    // Matrices land at 3, 4 and 5 s; the last is multiplied in a third of a second.
    #expect(abs(time.seconds - (5 + 1.0 / 3)) < 1e-9)
    #expect(abs(time.stallSeconds - (5 + 1.0 / 3 - 1)) < 1e-9)
    #expect(abs(time.readSeconds - 5) < 1e-9)
  }

  @Test func matricesOfOneReadComeTogether() {
    var whole = Self.profile
    whole.readsPerExpert = 1
    var timeline = LayerTimeline(whole)
    // All three are there at 5 s.
    #expect(abs(timeline.run(hits: 0, misses: 1, byteCount: 3000).seconds - 6) < 1e-9)
    whole.readsPerExpert = 2
    timeline = LayerTimeline(whole)
    // Gate and up at 4 s, down at 5 s.
    #expect(abs(timeline.run(hits: 0, misses: 1, byteCount: 3000).seconds - (5 + 1.0 / 3)) < 1e-9)
    whole.readsPerExpert = 4
    #expect(whole.fault?.contains("reads_per_expert") == true)
  }

  @Test func handingInReadsKeepsTheProcessor() {
    var profile = Self.profile
    (profile.handInSeconds, profile.readHandInSeconds) = (0.25, 0.125)
    var timeline = LayerTimeline(profile)
    // Nothing is handed in.
    #expect(abs(timeline.run(hits: 4, misses: 0, byteCount: 3000).seconds - 4) < 1e-9)
    // Three reads of an expert: five eighths of a second, in which the drive is waited for anyway, ...
    #expect(abs(timeline.run(hits: 0, misses: 1, byteCount: 3000).seconds - (5 + 1.0 / 3)) < 1e-9)
    // ... or before what would else have filled the time.
    #expect(abs(timeline.run(hits: 6, misses: 1, byteCount: 3000).seconds - 7.625) < 1e-9)
    profile.readsPerExpert = 1
    #expect(profile.handInSeconds(experts: 2) == 0.5 && profile.handInSeconds(experts: 0) == 0)
    profile.readHandInSeconds = -1
    #expect(profile.fault?.contains("read_hand_in_seconds") == true)
  }

  @Test func residentsHideReads() {
    var timeline = LayerTimeline(Self.profile)
    // Six seconds of residents; the miss is there after five.
    let time = timeline.run(hits: 6, misses: 1, byteCount: 3000)
    #expect(abs(time.seconds - 7) < 1e-9)
    #expect(time.stallSeconds < 1e-9)
  }

  @Test func moreMissesTakeNoLessAndBoundsHold() {
    var timeline = LayerTimeline(Self.profile)
    var last = 0.0
    for misses in 0...8 {
      let time = timeline.run(hits: 8 - misses, misses: misses, byteCount: 700)
      let compute = 8 * 700.0 / 3000
      #expect(time.seconds >= last - 1e-9)
      #expect(time.seconds >= max(compute, time.readSeconds) - 1e-9)
      #expect(time.seconds <= compute + time.readSeconds + 1e-9)
      #expect(abs(time.seconds - time.stallSeconds - compute) < 1e-9)
      last = time.seconds
    }
  }

  @Test func waitingIsToldByItsCause() {
    var timeline = LayerTimeline(Self.profile)
    // What was read ahead needs 4 s more, and the miss's latency passes meanwhile: its matrices are there
    // at 5, 6 and 7 s.
    let time = timeline.run(hits: 0, misses: 1, ahead: [4], byteCount: 3000)
    #expect(abs(time.seconds - (7 + 1.0 / 3)) < 1e-9)
    // Waiting until 2, 3 and 4 s, each but the first with a third of a second of work before.
    #expect(abs(time.lateSeconds - (2 + 2.0 / 3 + 2.0 / 3)) < 1e-9)
    var stalls = Stalls()
    stalls.add(time, firstUses: 0.25)
    let demanded = time.stallSeconds - time.lateSeconds
    #expect(abs(stalls.firstUseSeconds - demanded / 4) < 1e-9)
    #expect(abs(stalls.evictedSeconds - 3 * demanded / 4) < 1e-9)
    #expect(abs(stalls.total - time.stallSeconds) < 1e-9)
    #expect(abs(stalls.scaled(by: 3).total - 3 * time.stallSeconds) < 1e-9)
  }

  @Test func impossibleProfilesAreNamed() {
    var profile = Self.profile
    #expect(profile.fault == nil)
    profile.readBytesPerSecond = 0
    #expect(profile.fault?.contains("read_bytes_per_second") == true)
    profile = Self.profile
    profile.layerSeconds = .nan
    #expect(profile.fault?.contains("layer_seconds") == true)
    profile = Self.profile
    profile.version = 2
    #expect(profile.fault?.contains("version 2") == true)
  }
}

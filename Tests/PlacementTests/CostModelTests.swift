import Placement
import Testing

/// A machine of round figures, and a model of one layer on it.
enum RoundFigures {
  static let work = ModelWork(
    name: "round", layers: 2, experts: 8, topK: 2, hiddenSize: 4, vocabulary: 10,
    dense: [.init(type: "F32", bytes: 2000)], head: .init(type: "F32", bytes: 1000),
    expertMatrices: Array(
      repeating: [
        .init(type: "Q4_0", bytes: 1000), .init(type: "Q4_0", bytes: 1000),
        .init(type: "Q4_0", bytes: 1000),
      ], count: 2),
    keyValueBytesPerPosition: 10, chunkTokens: 4)

  /// Reads of 1,000 bytes take 2 s and a second for each; products are 1,000 bytes of Q4_0 and 2,000 of F32
  /// a second with one token, half with four.
  static var profile: MachineProfile {
    var profile = MachineProfile(
      name: "round", isNominal: false, date: "2026-01-01T00:00:00Z",
      machine: MachineIdentity(
        processor: "round", threads: 2, memoryBytes: 1 << 30, kernels: "portable", cacheBytes: 0,
        drive: "a drive"),
      disk: [3, 6].map { depth in
        DiskRate(
          kind: .direct, blockBytes: 1000, depth: depth, bytesPerSecond: Figure(1000),
          burstSeconds: Figure(2 + Double(depth)))
      },
      memory: [MemoryRate(threads: 2, bytesPerSecond: Figure(2000))],
      products: [("Q4_0", 1000.0), ("F32", 2000.0)].flatMap { type, rate in
        [(1, rate), (4, rate / 2)].map { tokens, rate in
          ProductRate(
            type: type, kernels: "portable", tokens: tokens, isCached: false,
            bytesPerSecond: Figure(rate))
        }
      },
      layerSeconds: Figure(0.5), tokenSeconds: Figure(0.25), samplingSeconds: Figure(0.01),
      contextBytesPerSecond: Figure(100), promptContextBytesPerSecond: Figure(200),
      promptValueSeconds: Figure(0.125),
      contention: Contention(readShare: Figure(1), computeShare: Figure(1)),
      promptContention: Contention(readShare: Figure(1), computeShare: Figure(1)))
    profile.notes = ["of tests"]
    return profile
  }
}

@Suite struct CostModelTests {
  private let cost = CostModel(profile: RoundFigures.profile, work: RoundFigures.work)

  @Test func aTokensPartsAreBytesOverRates() throws {
    #expect(abs(cost.expertSeconds(tokens: 1) - 3) < 1e-9)
    // Halfway between one and four tokens in the logarithm the rate is the geometric mean.
    #expect(abs(cost.expertSeconds(tokens: 2) - 3 * 2.0.squareRoot()) < 1e-9)
    #expect(abs(cost.denseSeconds(tokens: 1) - 1) < 1e-9)
    #expect(abs(cost.contextSeconds(positions: 20) - 2) < 1e-9)
    var work = RoundFigures.work
    work.lookBacks = [.init(bytesPerPosition: 4, window: 5), .init(bytesPerPosition: 7)]
    #expect(work.lookBackBytes(positions: 3) == 33 && work.lookBackBytes(positions: 20) == 160)
    let hardware = try #require(cost.hardware(reads: .direct, positions: 20))
    // Half a second of the layer, half a second of its matrices, one of looking back.
    #expect(abs(hardware.layerSeconds - 2) < 1e-9)
    #expect(abs(hardware.tokenSeconds - (0.25 + 0.5 + 0.1)) < 1e-9)
    #expect(abs(hardware.computeBytesPerSecond - 1000) < 1e-6)
    #expect(cost.hardware(reads: .cached, positions: 1) == nil)
  }

  @Test func aBurstOfReadsComesBackAsItWasMeasured() throws {
    let reads = try #require(cost.reads(.direct))
    for experts in [1, 2] {
      let seconds = reads.latency + Double(experts) * 3000 / reads.bytesPerSecond
      #expect(abs(seconds - (2 + 3 * Double(experts))) < 1e-9)
    }
  }

  @Test func aPromptGoesChunkByChunkAndLayerByLayer() throws {
    let prompt = try #require(
      cost.prompt(tokens: 6, reads: .direct, touched: { _ in 4 }, resident: 0.5))
    // The first chunk of four tokens reads four experts of each layer, the second, of two, half of them.
    #expect(abs(prompt.readBytes - (2 * 12_000 + 2 * 6000)) < 1e-6)
    func chunk(_ tokens: Double, position: Double, bytes: Double) -> Double {
      let products = 4 * cost.expertSeconds(tokens: tokens / 2)
      // Both go on at full rate: the longer of them, and one expert's share of the shorter.
      let reading = bytes / 1000
      let layer = (reading > products ? reading + products / 4 : products + 3) + 0.5
      return 2 * layer + cost.denseSeconds(tokens: tokens)
        + tokens * (position + tokens / 2) * 10 / 200 + tokens * 4 * 2 * 0.125
    }
    let expected =
      chunk(4, position: 0, bytes: 12_000) + chunk(2, position: 4, bytes: 6000) + 0.25 + 0.5 + 0.1
    #expect(abs(prompt.seconds - expected) < 1e-6, "\(prompt.seconds), expected \(expected)")
    let resident = try #require(
      cost.prompt(tokens: 6, reads: .direct, touched: { _ in 4 }, resident: 1))
    #expect(resident.readBytes == 0 && resident.stallSeconds == 0)
    #expect(resident.seconds < prompt.seconds)
  }

  @Test func readsAndProductsOfAPromptSlowEachOtherOnlyWhileBothGoOn() throws {
    func seconds(_ readShare: Double, _ computeShare: Double, touched: Double) throws -> Double {
      var profile = RoundFigures.profile
      profile.promptContention = Contention(
        readShare: Figure(readShare), computeShare: Figure(computeShare))
      return try #require(
        CostModel(profile: profile, work: RoundFigures.work)
          .prompt(tokens: 1, reads: .direct, touched: { _ in touched }, resident: 0)
      ).seconds
    }
    // A layer's expert of one token is read and multiplied in 3 s each: at half the rate of both it takes 6 s,
    // as if one came after the other, where at the whole rate it takes 3, and then 3 for the only expert.
    let alone = try seconds(1, 1, touched: 1)
    #expect(abs(try seconds(0.5, 0.5, touched: 1) - (alone + 2 * 3)) < 1e-9)
    // Reading ends first at full rate and products were at half of theirs for its 3 s: 1.5 s are left to do.
    #expect(abs(try seconds(1, 0.5, touched: 1) - (alone + 2 * 1.5)) < 1e-9)
  }

  @Test func whatCopyingTakesIsNotHidden() {
    var hardware = HardwareProfile(
      name: "cache", readBytesPerSecond: 1000, readLatencySeconds: 0, computeBytesPerSecond: 3000,
      layerSeconds: 0, tokenSeconds: 0)
    hardware.readsOccupyProcessor = true
    var timeline = LayerTimeline(hardware)
    let time = timeline.run(hits: 3, misses: 1, byteCount: 3000)
    #expect(abs(time.seconds - (3 + 4)) < 1e-9)
    #expect(abs(time.stallSeconds - 3) < 1e-9)
    // Residents are multiplied at half their rate while something is read, and at all of it else.
    hardware.readsOccupyProcessor = nil
    hardware.computeShareWhileReading = 0.5
    timeline = LayerTimeline(hardware)
    #expect(abs(timeline.run(hits: 2, misses: 0, byteCount: 3000).seconds - 2) < 1e-9)
    // 1.5 s of products are done in the 3 s of reading, as many after them.
    #expect(abs(timeline.run(hits: 2, misses: 1, byteCount: 3000).seconds - 4.5) < 1e-9)
    // Reading at half its rate while a resident and the first two matrices are multiplied, for 5/3 s, leaves
    // half of that to read.
    hardware.computeShareWhileReading = nil
    hardware.readShareWhileComputing = 0.5
    timeline = LayerTimeline(hardware)
    let slowed = timeline.run(hits: 1, misses: 1, byteCount: 3000)
    #expect(abs(slowed.seconds - (3 + 5.0 / 6 + 1.0 / 3)) < 1e-9)
    #expect(abs(slowed.readSeconds - (3 + 5.0 / 6)) < 1e-9)
    hardware.readShareWhileComputing = 0
    #expect(hardware.fault?.contains("read_share_while_computing") == true)
  }

  @Test func fetchingPaysFromTheTokensOnAtWhichItIsFaster() throws {
    let device = DeviceRate(
      name: "device", memoryBytes: 1 << 20, bytesPerSecond: 1e6, operationsPerSecond: 1e9,
      linkBytesPerSecond: 1000, linkSeconds: 1, launchSeconds: 0)
    // The link takes 4 s: the processor is slower from two tokens on.
    #expect(cost.fetchThreshold(device) == 2)
    var slow = device
    slow.linkBytesPerSecond = 1
    #expect(cost.fetchThreshold(slow) == nil)
  }
}

@Suite struct MachineProfileTests {
  @Test func everyPresetIsPossibleAndNominal() throws {
    #expect(MachineProfile.presetNames.count >= 6)
    for name in MachineProfile.presetNames {
      let preset = try #require(MachineProfile.preset(name))
      #expect(preset.fault == nil && preset.isNominal && preset.date == nil, "\(name)")
    }
    #expect(MachineProfile.preset("abacus") == nil)
  }

  @Test func whatIsImpossibleIsNamed() {
    var profile = RoundFigures.profile
    #expect(profile.fault == nil)
    profile.disk[0].bytesPerSecond.value = 0
    #expect(profile.fault?.contains("disk.bytes_per_second is 0") == true)
    profile = RoundFigures.profile
    profile.version = 99
    #expect(profile.fault?.contains("version 99") == true)
    profile = RoundFigures.profile
    profile.products = []
    #expect(profile.fault?.contains("missing") == true)
    profile = RoundFigures.profile
    profile.layerSeconds.value = .nan
    #expect(profile.fault?.contains("layer_seconds") == true)
  }

  @Test func aFigureIsTheMedianAndItsSpread() {
    let figure = Figure(rounds: [9, 10, 12])
    #expect(figure.value == 10 && abs(figure.spread - 0.15) < 1e-12)
    #expect(Figure(rounds: [4]).spread == 0)
    #expect(Figure(rounds: [4, 8]).value == 6)
  }

  @Test func anotherMachineIsNoticed() {
    let own = RoundFigures.profile.machine
    var other = own
    #expect(own.difference(from: other) == nil)
    other.memoryBytes += 1 << 20
    #expect(own.difference(from: other) == nil)
    other.threads = 64
    #expect(own.difference(from: other)?.contains("64 threads") == true)
  }

  @Test func aFasterDriveOrProcessorChangesOnlyItsOwnFigures() {
    let profile = RoundFigures.profile
    let faster = profile.scalingDisk(by: 2)
    #expect(faster.disk[0].burstSeconds.value == profile.disk[0].burstSeconds.value / 2)
    #expect(faster.products == profile.products)
    let quicker = profile.scalingCompute(by: 2)
    #expect(quicker.disk == profile.disk)
    #expect(quicker.layerSeconds.value == profile.layerSeconds.value / 2)
    #expect(
      quicker.products[0].bytesPerSecond.value == 2 * profile.products[0].bytesPerSecond.value)
    let uneven = profile.scalingCompute(by: 2, rest: 0.5)
    #expect(uneven.products == quicker.products)
    #expect(uneven.contextBytesPerSecond == quicker.contextBytesPerSecond)
    #expect(uneven.layerSeconds.value == profile.layerSeconds.value * 2)
    #expect(uneven.handInSeconds.value == profile.handInSeconds.value * 2)
  }
}

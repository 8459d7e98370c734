import FoundationEssentials
import Placement
import Tensors
import Testing

@testable import Stoker

@Suite struct CalibrationTests {
  @Test func aTrialIsAPossibleProfileAndLeavesNoFile() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    var shares: [Double] = []
    let profile = try Calibration(folder: folder.path, effort: .trial).run(
      progress: { share, step in
        shares.append(share)
        #expect(!step.isEmpty)
      })
    #expect(profile.fault == nil)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
    #expect(shares.allSatisfy { (0...1).contains($0) } && shares == shares.sorted())
    #expect(profile.machine.threads == Machine.processorCount && !profile.isNominal)
    #expect(profile.readKinds.contains(.cached))
    #expect(Set(profile.products.map(\.type)).isSuperset(of: ["Q4_0", "Q8_0", "F32"]))
    for contention in [profile.contention, profile.promptContention] {
      #expect((0.01...1).contains(contention.readShare.value))
    }
    // Every kernel set of this processor, and one to all threads.
    #expect(
      Set(profile.products.map(\.kernels))
        == Set(KernelSet.allCases.filter { $0 <= .best }.map(\.name)))
    #expect(profile.memory.map(\.threads) == Calibration.threadCounts(upTo: Machine.processorCount))
    #expect(Calibration.threadCounts(upTo: 1) == [1])
    #expect(Calibration.threadCounts(upTo: 12) == [1, 2, 4, 8, 12])
    // As JSON it is the same again.
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    #expect(
      try decoder.decode(MachineProfile.self, from: encoder.encode(profile)).disk.count
        == profile.disk.count)
  }

  /// Also where calibration found that layers take nothing beside their products.
  @Test(arguments: [0, 3e-5]) func whatAProbeSamplesIsAPossibleProfile(layerSeconds: Double) throws
  {
    var profile = MachineProfile.preset("laptop")!
    profile.layerSeconds.value = layerSeconds
    let probe = try MachineProbe(
      Fixtures.smallestModel(Fixtures.demo), profile: profile, reads: .direct)
    for phase in [.prefill, .decode] as [Phase] {
      try probe.sample(phase)
      #expect(probe.profile(phase).fault == nil)
    }
    #expect((probe.profile(.decode).layerSeconds.value > 0) == (layerSeconds > 0))
  }

  @Test func itEndsOnRequestAndRefusesWhatIsNoFolder() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    #expect(throws: StokerError.cancelled) {
      _ = try Calibration(folder: folder.path, effort: .trial).run(isCancelled: { true })
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
    let error = #expect(throws: StokerError.self) {
      _ = try Calibration(folder: folder.path + "/none")
    }
    #expect("\(error!)".contains("there is no such folder"))
  }
}

extension MachineProfile {
  /// The names of the machines that ship with stoker, by datasheets.
  public static var presetNames: [String] { presets.map(\.0) }

  /// The machine of that name, all of whose figures are nominal; nil if there is none.
  public static func preset(_ name: String) -> MachineProfile? {
    presets.first { $0.0 == name }?.1()
  }

  private static let presets: [(String, @Sendable () -> MachineProfile)] = [
    (
      // Two channels of LPDDR5X-7500, PCIe 4.0 x 4 drive.
      "laptop",
      { nominal("laptop", threads: 8, memory: 32 << 30, bandwidth: 120e9, drive: 6.5e9) }
    ),
    (
      // Two channels of DDR5-5600, PCIe 4.0 x 4 drive, GeForce RTX 4060 with PCIe 4.0 x 8.
      "desktop-rtx4060",
      {
        nominal(
          "desktop-rtx4060", threads: 16, memory: 64 << 30, bandwidth: 89.6e9, drive: 7e9,
          device: DeviceRate(
            name: "GeForce RTX 4060", memoryBytes: 8 << 30, bytesPerSecond: 272e9,
            operationsPerSecond: 121e12, linkBytesPerSecond: 15.75e9))
      }
    ),
    (
      // Two channels of DDR5-6000, PCIe 5.0 x 4 drive, GeForce RTX 4090 with PCIe 4.0 x 16.
      "desktop-rtx4090",
      {
        nominal(
          "desktop-rtx4090", threads: 16, memory: 96 << 30, bandwidth: 96e9, drive: 12e9,
          device: DeviceRate(
            name: "GeForce RTX 4090", memoryBytes: 24 << 30, bytesPerSecond: 1008e9,
            operationsPerSecond: 330e12, linkBytesPerSecond: 31.5e9))
      }
    ),
    (
      // Two channels of DDR5-6000, PCIe 5.0 x 4 drive, GeForce RTX 5090 with PCIe 5.0 x 16.
      "desktop-rtx5090",
      {
        nominal(
          "desktop-rtx5090", threads: 16, memory: 128 << 30, bandwidth: 96e9, drive: 14e9,
          device: DeviceRate(
            name: "GeForce RTX 5090", memoryBytes: 32 << 30, bytesPerSecond: 1792e9,
            operationsPerSecond: 419e12, linkBytesPerSecond: 63e9))
      }
    ),
    (
      // Eight channels of DDR5-5200, PCIe 5.0 x 4 drive.
      "workstation",
      { nominal("workstation", threads: 32, memory: 256 << 30, bandwidth: 332e9, drive: 14e9) }
    ),
    (
      // Twelve channels of DDR5-4800, four PCIe 4.0 x 4 drives as one.
      "server",
      { nominal("server", threads: 64, memory: 768 << 30, bandwidth: 460e9, drive: 26e9) }
    ),
    (
      // Two channels of DDR4-3200, PCIe 3.0 x 4 drive.
      "old-desktop",
      { nominal("old-desktop", threads: 8, memory: 32 << 30, bandwidth: 51.2e9, drive: 3.5e9) }
    ),
    (
      // Two channels of DDR4-3200, SATA drive.
      "sata",
      { nominal("sata", threads: 8, memory: 32 << 30, bandwidth: 51.2e9, drive: 0.55e9) }
    ),
  ]

  /// A machine of these nominal figures. Of its memory's bandwidth products of one token use three
  /// quarters, and arithmetic gives each thread so much that four tokens cost as much as one.
  private static func nominal(
    _ name: String, threads: Int, memory: Int, bandwidth: Double, drive: Double,
    device: DeviceRate? = nil
  ) -> MachineProfile {
    let spread = 0.2
    func figure(_ value: Double) -> Figure { Figure(value, spread: spread) }
    /// Seconds of a read beyond its bytes: what flash takes.
    let latency = 80e-6
    let disk = [4 << 10, 128 << 10, 1 << 20, 4 << 20].flatMap { block in
      [1, 3, 8, 24].map { depth in
        let seconds = latency + Double(block * depth) / drive
        let rate = min(drive, Double(block * depth) / latency)
        return DiskRate(
          kind: .direct, blockBytes: block, depth: depth, bytesPerSecond: figure(rate),
          burstSeconds: figure(seconds))
      }
    }
    let usable = 0.75 * bandwidth
    let products = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"].flatMap { type in
      [1, 4, 16, 64, 256, 512].map { tokens in
        ProductRate(
          type: type, kernels: "nominal", tokens: tokens, isCached: false,
          bytesPerSecond: figure(usable * min(1, 4 / Double(tokens))))
      }
    }
    var profile = MachineProfile(
      name: "\(name), by datasheet", isNominal: true, date: nil,
      machine: MachineIdentity(
        processor: name, threads: threads, memoryBytes: memory, kernels: "nominal", cacheBytes: 0,
        drive: "a drive of \(Int(drive / 1e6)) MB/s"),
      disk: disk, memory: [MemoryRate(threads: threads, bytesPerSecond: figure(bandwidth))],
      products: products, layerSeconds: figure(40e-6), tokenSeconds: figure(20e-6),
      samplingSeconds: figure(1.5e-9), contextBytesPerSecond: figure(usable),
      promptContextBytesPerSecond: figure(4 * usable), promptValueSeconds: figure(5e-9),
      contention: Contention(readShare: figure(0.95), computeShare: figure(0.95)),
      promptContention: Contention(readShare: figure(0.95), computeShare: figure(0.95)))
    // A system call, and what a driver does for a request.
    profile.handInSeconds = figure(2e-6)
    profile.readHandInSeconds = figure(1e-6)
    profile.predictionSeconds = figure(1e-6)
    if let device { profile.devices = [device] }
    return profile
  }
}

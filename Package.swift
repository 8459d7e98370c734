// swift-tools-version: 6.2
import PackageDescription

let swiftSettings: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .treatAllWarnings(as: .error),
]

/// A Swift target with the package's settings. Floors are in README.md: a target depends only on
/// lower ones.
func target(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: swiftSettings)
}

/// A test target; fixtures are read from their place in the source tree.
func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
  .testTarget(
    name: name, dependencies: dependencies + ["TestSupport"], exclude: exclude,
    swiftSettings: swiftSettings)
}

let package = Package(
  name: "stoker",
  products: [
    .library(name: "Stoker", targets: ["Stoker"]),
    .executable(name: "stoker", targets: ["StokerCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
  ],
  targets: [
    // 0: C
    .systemLibrary(
      name: "CLiburing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .target(name: "CLinux"),
    .target(name: "CKernels"),
    // 1
    target("Tensors", ["CKernels", "CLinux", "COpenBLAS"]),
    target("DirectIO", ["CLiburing", "CLinux"]),
    target("Routing", []),
    target("Residency", ["Routing"]),
    // 2
    target("Checkpoints", ["DirectIO", "Tensors"]),
    target("Placement", []),
    // 3
    target("ExpertRuntime", ["Checkpoints", "DirectIO", "Residency", "Routing", "Tensors"]),
    target("Models", ["Checkpoints", "DirectIO", "ExpertRuntime", "Routing", "Tensors"]),
    target("Replay", ["Placement", "Residency", "Routing"]),
    // 4
    target(
      "Stoker",
      [
        "CLinux", "Checkpoints", "DirectIO", "ExpertRuntime", "Models", "Placement", "Replay",
        "Residency", "Routing", "Tensors", .product(name: "Logging", package: "swift-log"),
      ]),
    // 5
    .executableTarget(
      name: "StokerCLI",
      dependencies: [
        "Placement", "Replay", "Residency", "Routing", "Stoker",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ],
      resources: [.copy("Resources/demo-Q4_K_M.gguf")],
      swiftSettings: swiftSettings),
    .executableTarget(
      name: "ForeignModelExample", dependencies: ["Stoker"], swiftSettings: swiftSettings),
    // Benchmarks
    .executableTarget(
      name: "KernelBenchmark",
      dependencies: [
        "COpenBLAS", "DirectIO", "Tensors", "TestSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Benchmarks/Kernels", swiftSettings: swiftSettings),
    .executableTarget(
      name: "ReplayBenchmark",
      dependencies: [
        "Replay", "Residency", "Routing", "Stoker", "TestSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Benchmarks/Replay", swiftSettings: swiftSettings),
    .executableTarget(
      name: "PrefetchBenchmark",
      dependencies: [
        "ExpertRuntime", "Models", "Placement", "Stoker",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
      ],
      path: "Benchmarks/Prefetch", swiftSettings: swiftSettings),
    // Tests
    .target(
      name: "TestSupport", dependencies: ["Routing"], path: "Tests/TestSupport",
      swiftSettings: swiftSettings),
    .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
    tests("TensorsTests", ["Tensors"], exclude: ["Fixtures"]),
    tests("DirectIOTests", ["CLinux", "DirectIO"]),
    tests("RoutingTests", ["Routing"]),
    tests("ResidencyTests", ["Residency", "Routing"]),
    tests("PlacementTests", ["Placement"]),
    tests("ReplayTests", ["Placement", "Replay", "Residency", "Routing"]),
    tests("CheckpointsTests", ["Checkpoints", "Tensors"], exclude: ["Fixtures"]),
    tests(
      "ExpertRuntimeTests",
      ["Checkpoints", "DirectIO", "ExpertRuntime", "Residency", "Routing", "Tensors"]),
    tests("ModelsTests", ["Checkpoints", "Models", "Routing", "Tensors"]),
    tests("StokerCLITests", ["StokerCLI"]),
    tests(
      "StokerTests",
      [
        "AllocationCounter", "Placement", "Replay", "Residency", "Routing", "Stoker",
        .product(name: "Logging", package: "swift-log"),
      ]),
  ],
  swiftLanguageModes: [.v6]
)

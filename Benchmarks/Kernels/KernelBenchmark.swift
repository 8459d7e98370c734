public import ArgumentParser
import FoundationEssentials
public import Tensors

extension ElementType: ExpressibleByArgument {
  public init?(argument: String) {
    let name = argument.uppercased()
    guard let type = Self.computable.first(where: { $0.name == name }) else { return nil }
    self = type
  }

  public static var allValueStrings: [String] { computable.map(\.name) }

  /// The types there are kernels for: floats, then by size.
  static let computable = allCases.filter(\.isComputable).sorted {
    ($0.blockSize > 1 ? 1 : 0, $0.blockSize, $0.rawValue)
      < ($1.blockSize > 1 ? 1 : 0, $1.blockSize, $1.rawValue)
  }
}

extension KernelSet: ExpressibleByArgument {
  package init?(argument: String) {
    guard let set = Self.allCases.first(where: { $0.name == argument }) else { return nil }
    self = set
  }

  package static var allValueStrings: [String] { allCases.map(\.name) }
}

/// Measures the kernels against what memory and OpenBLAS reach in the same run.
@main
struct KernelBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "KernelBenchmark",
    abstract: "Measures the matrix kernels against the limits of the machine.",
    discussion: """
      Matrices are those of OLMoE-1B-7B's experts, 1024 x 2048 and 2048 x 1024 in turn, random, \
      over 256 MiB of memory with huge pages, so that no cache holds them.
        * Decode: one token, eight matrices in a parallel loop as the engine runs them, in GB/s of \
      weights, beside a loop that only reads the same memory with the same threads.
        * Prefill: several tokens with all threads, in GFLOP/s, two for each weight and token, \
      beside OpenBLAS's sgemm with float weights of the same shapes, and for each type beside \
      making tiles of \(FloatProducts.tileRows) rows floats and then calling sgemm. OpenBLAS uses \
      one thread for each of the pool's. Activations are quantized beforehand. Vector kernels go by \
      rows of weights or pack them first: the engine takes whichever is faster for so many tokens.
      Rivals take turns, repetition by repetition; figures are medians.

      Example: swift run -c release KernelBenchmark --types Q4_0 Q4_K
      """)

  @Option(
    parsing: .upToNextOption, help: "Types of weights. Default: all that there are kernels for.")
  var types: [ElementType] = []

  @Option(
    parsing: .upToNextOption, help: "Kernel sets. Default: all that this processor has.")
  var sets: [KernelSet] = []

  @Option(help: ArgumentHelp("Threads. Default: those this process may use.", valueName: "count"))
  var threads: Int?

  @Flag(help: "Take seconds instead of minutes: few repetitions, few numbers of tokens.")
  var quick = false

  @Flag(help: "Print JSON instead of Markdown: medians and bests.")
  var json = false

  func validate() throws {
    for set in sets where set > .best {
      throw ValidationError(
        "This processor has no \(set.name) kernels; the best are \(KernelSet.best.name).")
    }
    if let threads, !(1...256).contains(threads) {
      throw ValidationError("--threads must be 1 to 256.")
    }
  }

  func run() throws {
    let benchmark = try Benchmark(
      sets: sets.isEmpty ? KernelSet.allCases.filter { $0 <= .best } : sets,
      threadCount: threads ?? max(1, affinityProcessorCount()), effort: quick ? .quick : .whole)
    try benchmark.measureSquare()
    for type in types.isEmpty ? ElementType.computable : types { try benchmark.measure(type) }
    guard json else { return print(benchmark.report.markdown) }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    print(String(decoding: try encoder.encode(benchmark.report), as: UTF8.self))
  }
}

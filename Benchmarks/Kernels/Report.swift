import FoundationEssentials
import Tensors

/// What was measured: bytes and floating-point operations per second.
struct Report: Encodable {
  /// Reading memory that no cache holds.
  struct Read: Encodable {
    let threads: Int
    /// The type of the weights whose measurement it was part of.
    let type: String
    let bytesPerSecond: Spread
  }

  struct Decode: Encodable {
    let type: String
    let kernels: String
    let threads: Int
    let bytesPerSecond: Spread
    /// The median over that of reading the same memory.
    let shareOfRead: Double
  }

  struct Prefill: Encodable {
    let type: String
    let kernels: String
    let tokens: Int
    let operationsPerSecond: Spread
  }

  struct Square: Encodable {
    let rows: Int
    let columns: Int
    let tokens: Int
    let operationsPerSecond: Spread
  }

  let processor: String
  let threads: Int
  let kernelSets: [String]
  let rounds: Int
  private(set) var memoryReads: [Read] = []
  private(set) var decode: [Decode] = []
  private(set) var prefill: [Prefill] = []
  private(set) var squareSgemm: [Square] = []

  init(threads: Int, sets: [KernelSet], effort: Effort) {
    let text = String(
      decoding: FileManager.default.contents(atPath: "/proc/cpuinfo") ?? Data(), as: UTF8.self)
    let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
    processor =
      line?.split(separator: ":").last.map { $0.trimmingPrefix(" ") }.map(String.init)
      ?? "unknown"
    self.threads = threads
    kernelSets = sets.map(\.name)
    rounds = effort.rounds
  }

  mutating func addRead(threads: Int, type: ElementType, _ rate: Spread) {
    memoryReads.append(Read(threads: threads, type: type.name, bytesPerSecond: rate))
  }

  mutating func addDecode(
    type: ElementType, set: KernelSet, threads: Int, _ rate: Spread, of read: Spread
  ) {
    decode.append(
      Decode(
        type: type.name, kernels: set.name, threads: threads, bytesPerSecond: rate,
        shareOfRead: rate.median / read.median))
  }

  mutating func addPrefill(type: ElementType, kernels: String, tokens: Int, _ rate: Spread) {
    prefill.append(
      Prefill(type: type.name, kernels: kernels, tokens: tokens, operationsPerSecond: rate))
  }

  mutating func addSquare(rows: Int, columns: Int, tokens: Int, _ rate: Spread) {
    squareSgemm.append(
      Square(rows: rows, columns: columns, tokens: tokens, operationsPerSecond: rate))
  }
}

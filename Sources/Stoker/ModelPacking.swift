internal import Checkpoints
public import Routing
internal import Tensors

/// Writes a model in the packed layout, in which each expert lies in one piece with checksums, and checks files
/// of that layout.
///
/// A packed file is a checkpoint like any other: every command and call that takes a model takes it.
public struct ModelPacking {
  /// What float weights can become: ggml's formats, chosen for the least squared error.
  public enum Quantization: String, Sendable, Codable, CaseIterable {
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case q8_0, q4_0, q4_K, q6_K

    var weights: WeightQuantization { WeightQuantization(rawValue: rawValue)! }
  }

  /// What was written.
  public struct Summary: Hashable, Sendable, Codable {
    public let path: String
    public let byteCount: Int
    /// The bytes of the source that were not gone through again, as an earlier run had.
    public let resumedByteCount: Int
    /// Experts of all layers.
    public let experts: Int
    /// The bytes of the largest expert, its padding included: of one read.
    public let expertByteCount: Int
    /// Tensors that were left out: those of blocks that predict further tokens.
    public let unusedTensors: Int
  }

  /// What the checksums of a packed file say.
  public struct Verification: Hashable, Sendable, Codable {
    public let path: String
    /// Sums compared: of the header, of each tensor, of each matrix of an expert.
    public let checked: Int
    public let byteCount: Int
    /// What is not as it was written, in words; empty if all is.
    public let damaged: [String]
  }

  private let packer: Packer
  private let path: String

  /// - Parameters:
  ///   - file: the model to be packed.
  ///   - path: the file to write.
  ///   - quantization: what experts of F32, F16, BF16 or FP8 become; nil: they stay as they are.
  ///   - denseQuantization: what matrices of these types become that every token uses (not norms, biases and
  ///     routers); nil: they stay.
  ///   - trace: how experts are used: those of each layer that it uses the most lie first.
  /// - Throws: an error that names the tensor that cannot be quantized so, or the trace that is another model's.
  public init(
    _ file: ModelFile, to path: String, quantization: Quantization? = nil,
    denseQuantization: Quantization? = nil, trace: TraceSource? = nil
  ) throws {
    var options = Packer.Options()
    options.quantization = quantization?.weights
    options.denseQuantization = denseQuantization?.weights
    options.uses = try trace.map { try Self.uses($0, layout: file.layout) }
    options.weightBlock = file.description.weightBlock
    self.path = path
    packer = try Packer(
      Checkpoint.open(file.path, folders: file.folders), layout: file.layout, options: options,
      path: path)
  }

  /// The bytes of the file that will be written.
  public var byteCount: Int { packer.byteCount }

  /// Writes the file, in place of one of that name. What is written before it is whole is kept as
  /// `PATH.partial`, and the next call goes on with it.
  ///
  /// - Parameters:
  ///   - threads: threads that quantize, 1 to 256; nil: the processors this process may use.
  ///   - progress: called with the bytes read so far and in all; it ends when false is returned.
  /// - Throws: `StokerError.cancelled`, `.option`; errors that name the file that is full, locked or of another
  ///   model.
  public func write(
    threads: Int? = nil, progress: (_ done: Int, _ total: Int) -> Bool = { _, _ in true }
  ) throws -> Summary {
    let threads = threads ?? min(256, Machine.processorCount)
    guard (1...256).contains(threads) else {
      throw StokerError.option(name: "--threads", found: "\(threads)", expected: "1 to 256")
    }
    do {
      let written = try packer.write(
        to: path, threadCount: threads, kernels: Kernels(set: KernelSet.selected()),
        progress: progress)
      return Summary(
        path: path, byteCount: written.byteCount, resumedByteCount: written.resumedByteCount,
        experts: written.expertCount, expertByteCount: written.recordByteCount,
        unusedTensors: written.unusedTensors)
    } catch {
      throw Self.told(error)
    }
  }

  /// Reads a whole packed file and compares it with its checksums.
  ///
  /// - Parameter progress: called with the bytes read so far and in all; it ends when false is returned.
  /// - Throws: `StokerError.cancelled`; errors that name the file, if it cannot be opened or has no checksums.
  public static func verify(
    _ path: String, progress: (_ done: Int, _ total: Int) -> Bool = { _, _ in true }
  ) throws -> Verification {
    let checkpoint = try Checkpoint.open(path)
    let layout = try ExpertLayout(checkpoint, model: ModelDescription(checkpoint))
    do {
      let found = try PackVerification(
        checkpoint, layout: layout, kernels: Kernels(set: KernelSet.selected()),
        progress: progress)
      return Verification(
        path: path, checked: found.checked, byteCount: found.byteCount, damaged: found.damaged)
    } catch {
      throw Self.told(error)
    }
  }

  /// What callers are told of `error`.
  private static func told(_ error: any Error) -> any Error {
    if case PackingError.cancelled = error { return StokerError.cancelled }
    return error
  }

  /// How often each expert was used, [layers][experts].
  private static func uses(_ source: TraceSource, layout: ExpertLayout) throws -> [[Int]] {
    let geometry = source.header.geometry
    guard geometry.layerCount == layout.layerCount, geometry.expertCount == layout.expertCount
    else {
      throw PackingError.otherExperts(
        path: source.header.model,
        found: "\(geometry.layerCount) layers of \(geometry.expertCount) experts",
        expected: "\(layout.layerCount) layers of \(layout.expertCount)")
    }
    var uses = Array(
      repeating: Array(repeating: 0, count: layout.expertCount), count: layout.layerCount)
    try source.forEachPart { trace, _ in
      for event in 0..<trace.eventCount {
        let layer = trace.layer(of: event)
        for expert in trace.experts(of: event) { uses[layer][Int(expert)] += 1 }
      }
    }
    return uses
  }
}

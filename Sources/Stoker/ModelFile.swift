internal import Checkpoints
internal import DirectIO
internal import ExpertRuntime
internal import Foundation
public import Models
internal import Residency
internal import Tensors

/// A checkpoint that has been opened and understood, but whose weights have not been read.
public final class ModelFile {
  /// The path it was opened with.
  public let path: String
  /// Other folders with files of it.
  let folders: [String]
  /// The bytes of its files, copies apart.
  let byteCount: Int
  /// Its files, copies apart.
  let fileCount: Int
  /// The text side of the model.
  public let tokenizer: Tokenizer
  /// The files that it is read from, copies on other drives included.
  let checkpointFiles: [Checkpoint.File]
  private let packed: PackedLayout?
  private let attentionType: ElementType
  let description: ModelDescription
  let layout: ExpertLayout

  /// Opens the checkpoint at `path`: any file of it, where it is split.
  ///
  /// - Parameters:
  ///   - folders: other folders, on other drives, that hold files of it under the same names: those that are
  ///     not beside the first, and copies. Experts of which there are copies are read from all in turn, so
  ///     that the drives work at the same time.
  ///   - expertsPerToken: experts that each token is to be routed to; nil: as many as the
  ///     checkpoint says. Another number gives another output.
  /// - Throws: an error that names the file and the key or tensor that is not as expected, and what
  ///   was expected; `StokerError.option` for a number of experts the model does not have.
  public init(path: String, folders: [String] = [], expertsPerToken: Int? = nil) throws {
    self.path = path
    self.folders = folders
    let opened = try Checkpoint.open(path, folders: folders)
    byteCount = Int(opened.byteCount)
    fileCount = opened.fileCount
    var description = try ModelDescription(opened)
    if let expertsPerToken {
      guard (1...description.expertCount).contains(expertsPerToken) else {
        throw StokerError.option(
          name: "the number of experts per token", found: "\(expertsPerToken)",
          expected: "1 to \(description.expertCount)")
      }
      description.expertsPerToken = expertsPerToken
    }
    self.description = description
    layout = try ExpertLayout(opened, model: description)
    try opened.validateTensors(description)
    tokenizer = try Tokenizer(TokenizerVocabulary(opened))
    checkpointFiles = opened.files
    packed = opened.packed
    attentionType = try opened.tensor(description.outputTensor(ofLayer: 0)).type
  }

  /// The fewest and the most bytes `options` can be run with; reads no weight.
  public func requirements(_ options: ModelOptions = ModelOptions()) throws -> MemoryRequirements {
    try shape(options).requirements(process: processByteCount(options))
  }

  /// The longest context the model was trained for, in tokens.
  public var contextLength: Int { description.contextLength }

  /// The context a run has when none is asked for.
  public var defaultContext: Int { min(description.contextLength, 4096) }

  /// What is resident before anything large is allocated, and a margin for stacks, engine tables
  /// and code not yet run. It is counted in steps far larger than what varies between two starts
  /// (some 100 KiB), so that a minimum that one names is what the next accepts.
  func processByteCount(_ options: ModelOptions) -> Int {
    if let counted = options.processMemory { return counted }
    let step = 4 << 20
    let margin = 8 << 20
    return (Machine.residentByteCount + (1 << 20) + step - 1) / step * step + margin
  }

  /// The sizes of a run with `options`.
  /// - Throws: `StokerError.option`, or an error that names the file that could not be opened.
  func shape(_ options: ModelOptions) throws -> RunShape {
    let context = options.context ?? defaultContext
    guard (1...description.contextLength).contains(context) else {
      throw StokerError.option(
        name: "--context", found: "\(context)",
        expected: "1 to \(description.contextLength), the model's own context")
    }
    let threads = options.threads ?? Machine.processorCount
    guard (1...256).contains(threads) else {
      throw StokerError.option(name: "--threads", found: "\(threads)", expected: "1 to 256")
    }
    guard options.policy.canRun else {
      throw StokerError.option(
        name: "--policy", found: options.policy.name,
        expected: PolicyName.runnableNames)
    }
    let kernels = Kernels(set: try KernelSet.selected())
    let files = try checkpointFiles.open(options.direct)
    let heads = try predictorHeads(options)
    return RunShape(
      description: description, layout: layout,
      geometry: ExpertGeometry(layout: layout, files: files), files: files, kernels: kernels,
      threadCount: threads, context: context,
      tokenCapacity: min(ModelOptions.chunkTokenCount, context),
      keyValueType: options.keyValueType ?? (attentionType == .f32 ? .f32 : .f16),
      predictor: options.prefetch == .off
        ? nil : options.predictor ?? (heads == nil ? .corrected : .fitted),
      heads: heads)
  }

  /// What every read is compared with, if `options` ask for that.
  /// - Throws: an error that names the file, if it has no checksums.
  func checksums(_ options: ModelOptions) throws -> PackedChecksums? {
    guard options.verifiesReads else { return nil }
    guard let packed else { throw PackingError.noChecksums(path: path) }
    return try PackedChecksums(packed, files: checkpointFiles)
  }

  /// The heads fitted to the model, if `options` ask for them or leave it open and there are any.
  /// - Throws: `StokerError.noPredictor` if they are asked for in vain; an error that names their file.
  private func predictorHeads(
    _ options: ModelOptions
  ) throws -> (file: PredictorFile, data: DataFile)? {
    guard options.prefetch != .off, options.predictor ?? .fitted == .fitted else { return nil }
    let path = PredictorFile.path(ofModel: path)
    guard FileManager.default.fileExists(atPath: path) else {
      guard options.predictor == nil else {
        throw StokerError.noPredictor(path: path, model: self.path)
      }
      return nil
    }
    return (try PredictorFile(path: path), try DataFile(path: path, direct: .off))
  }
}

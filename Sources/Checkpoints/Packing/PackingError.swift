package import DirectIO
internal import Glibc
package import Tensors

/// Why a model could not be packed or verified.
package enum PackingError: Error {
  case checkpoint(CheckpointError)
  case io(IOError)
  case threads(WorkerPoolError)
  /// Weights that are quantized already, which would lose twice.
  case alreadyQuantized(path: String, tensor: String, type: ElementType)
  /// Rows that are not whole blocks.
  case partialRows(path: String, tensor: String, columns: Int, type: ElementType)
  /// A weight that is not finite, or too large for a scale of half precision.
  case notFinite(path: String, tensor: String)
  /// Another process writes the same file.
  case inProgress(path: String)
  /// What is left of packing something else.
  case otherRemains(path: String)
  /// A file without checksums.
  case noChecksums(path: String)
  /// A trace of another model.
  case otherExperts(path: String, found: String, expected: String)
  /// It was told to end; what has been written is gone on with the next time.
  case cancelled(path: String)
}

extension PackingError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .checkpoint(let error): "\(error)"
    case .io(let error): "\(error)"
    case .threads(let error): "\(error)"
    case .alreadyQuantized(let path, let tensor, let type):
      """
      '\(path)': tensor '\(tensor)' is \(type) already; only F32, F16, BF16 and FP8 are quantized, so pack \
      it as it is, or take the checkpoint it was made from
      """
    case .partialRows(let path, let tensor, let columns, let type):
      """
      '\(path)': rows of tensor '\(tensor)' have \(columns) values, which are not whole blocks of \
      \(type) (\(type.blockSize)); q8_0 and q4_0 have blocks of 32
      """
    case .notFinite(let path, let tensor):
      "'\(path)': tensor '\(tensor)' has a value that is not finite or is too large to be quantized"
    case .inProgress(let path):
      "'\(path)' is being written by another process; wait for it to end, or end it"
    case .otherRemains(let path):
      """
      '\(path)' is what is left of packing another model, or this one with other options; remove it, \
      or go on with these
      """
    case .noChecksums(let path):
      """
      '\(path)' has no checksums: only files that 'stoker pack' has written have them
      """
    case .otherExperts(let path, let found, let expected):
      "'\(path)' is a trace of \(found), but the model has \(expected)"
    case .cancelled(let path):
      "'\(path)' is not whole yet; the same command goes on with it"
    }
  }
}

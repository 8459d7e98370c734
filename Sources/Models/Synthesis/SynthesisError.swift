package import Checkpoints
package import Tensors

/// A reason why a model could not be synthesized.
package enum SynthesisError: Error, Hashable, Sendable {
  /// No shape has that name.
  case unknownShape(found: String, known: [String])
  /// A number that a model cannot have.
  case outOfRange(quantity: String, found: Int, minimum: Int, maximum: Int)
  /// The file could not be written.
  case checkpoint(CheckpointError)
  /// The system refused a thread.
  case threads(WorkerPoolError)
  /// The caller asked to stop; nothing is left of the file.
  case cancelled(path: String)
}

extension SynthesisError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .unknownShape(let found, let known):
      "there is no model shape '\(found)'; expected one of "
        + known.map { "'\($0)'" }.joined(separator: ", ")
    case .outOfRange(let quantity, let found, let minimum, let maximum):
      "the model was to have \(found) \(quantity); expected \(minimum) to \(maximum)"
    case .checkpoint(let error): "\(error)"
    case .threads(let error): "\(error)"
    case .cancelled(let path): "'\(path)' was not finished, as it was asked to stop"
    }
  }
}

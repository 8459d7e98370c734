internal import Dispatch
internal import Synchronization

/// A model for any number of tasks: requests are served one after the other, in the order in which they
/// come, on a thread that no task of Swift's pool is kept waiting for.
///
///     let streamer = TokenStreamer(try MoEModel(file, logger: logger))
///     for try await token in streamer.tokens(request) { print(token) }
public final class TokenStreamer: Sendable {
  private let model: Mutex<MoEModel>
  private let queue = DispatchQueue(label: "stoker.model", qos: .userInitiated)

  /// - Parameter model: used by nobody else from here on.
  public init(_ model: sending MoEModel) { self.model = Mutex(model) }

  /// The tokens of one generation, as they come.
  ///
  /// The stream ends with the generation, or with an error of `MoEModel.generate`. When its consumer lets go
  /// of it, or the consumer's task is cancelled, the generation ends too: with the token under way, a prompt
  /// with the chunk under way; one that has not begun never does.
  public func tokens(_ request: GenerationRequest) -> AsyncThrowingStream<Int32, any Error> {
    AsyncThrowingStream { continuation in
      let stop = StopSign()
      continuation.onTermination = { _ in stop.raise() }
      serve { model in
        do {
          if !stop.isRaised {
            _ = try model.generate(request, isCancelled: { stop.isRaised }) {
              continuation.yield($0)
            }
          }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
    }
  }

  /// Generates, and says what it took. If the task is cancelled, what there is by then is returned.
  /// - Throws: as `MoEModel.generate`.
  public func generate(_ request: GenerationRequest) async throws -> Generation {
    let stop = StopSign()
    return try await withTaskCancellationHandler {
      try await withModel { try $0.generate(request, isCancelled: { stop.isRaised }) }
    } onCancel: {
      stop.raise()
    }
  }

  /// Does something else with the model between two generations: changes its memory, saves its history.
  public func withModel<Result: Sendable>(
    _ body: @escaping @Sendable (MoEModel) throws -> Result
  ) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      serve { model in continuation.resume(with: Swift.Result { try body(model) }) }
    }
  }

  private func serve(_ body: @escaping @Sendable (MoEModel) -> Void) {
    queue.async { self.model.withLock { body($0) } }
  }
}

/// Tells the thread that computes that nobody waits any more.
private final class StopSign: Sendable {
  private let raised = Atomic<Bool>(false)

  var isRaised: Bool { raised.load(ordering: .relaxed) }

  func raise() { raised.store(true, ordering: .relaxed) }
}

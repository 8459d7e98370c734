@testable import DirectIO

/// A real engine over a file of which one place cannot be read: reads of it go beyond the end.
///
/// Completions come all at once, the failed one last, so that whatever the runtime does between a
/// failure and its recovery it does in every run.
final class BadSectorEngine: ReadEngine {
  private let engine: any ReadEngine
  private let file: DataFile
  private let offset: UInt64

  /// - Parameter offset: reads that begin here fail.
  init(_ engine: any ReadEngine, file: DataFile, offset: UInt64) {
    self.engine = engine
    self.file = file
    self.offset = offset
  }

  var name: String { engine.name }
  var registeredBuffers: Bool { engine.registeredBuffers }
  var registeredFiles: Bool { engine.registeredFiles }
  var fallbacks: [String] { engine.fallbacks }
  var outstandingCount: Int { engine.outstandingCount }

  func enqueue(_ request: ReadRequest) {
    guard request.span.offset == offset else { return engine.enqueue(request) }
    let nowhere = file.span(
      offset: UInt64(file.byteCount) + 4096, byteCount: request.span.byteCount)
    engine.enqueue(
      ReadRequest(
        file: request.file, span: nowhere, destination: request.destination, tag: request.tag,
        priority: request.priority))
  }

  func submit() { engine.submit() }
  func replaceArenas(_ arenas: [Arena]) { engine.replaceArenas(arenas) }
  func promote(tag: UInt64) -> Bool { engine.promote(tag: tag) }
  func cancel(tag: UInt64) -> Bool { engine.cancel(tag: tag) }

  func poll(_ body: (ReadCompletion) -> Void) {
    var completions: [ReadCompletion] = []
    while engine.outstandingCount > 0 {
      engine.wait()
      engine.poll { completions.append($0) }
    }
    for completion in completions where completion.error == nil { body(completion) }
    for completion in completions where completion.error != nil { body(completion) }
  }

  // `poll` is where the runtime waits.
  func wait() {}
}

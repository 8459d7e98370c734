import Glibc
import Synchronization

/// Whether Ctrl-C has been pressed. The first asks the running command to end cleanly; a second
/// ends the process.
enum Interrupt {
  static var isRequested: Bool { interrupted.load(ordering: .relaxed) }

  /// Starts to listen for SIGINT and SIGTERM.
  static func listen() {
    signal(SIGINT, noteInterrupt)
    signal(SIGTERM, noteInterrupt)
  }
}

/// Whether SIGHUP has asked for the plan to be read again.
enum Reload {
  /// Whether it has since this was asked last.
  static func take() -> Bool { reloading.exchange(false, ordering: .relaxed) }

  /// Starts to listen for SIGHUP, which otherwise ends the process.
  static func listen() { signal(SIGHUP, noteReload) }
}

private let reloading = Atomic<Bool>(false)

private func noteReload(_ number: Int32) { reloading.store(true, ordering: .relaxed) }

private let interrupted = Atomic<Bool>(false)

/// The signal handler: it may only store and restore.
private func noteInterrupt(_ number: Int32) {
  interrupted.store(true, ordering: .relaxed)
  signal(number, SIG_DFL)
}

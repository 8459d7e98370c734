public import Placement

extension ModelOptions {
  /// Runs as `plan` says: memory, what of it the process is counted with, context, threads, how
  /// experts are read, whether ahead.
  public mutating func obey(_ plan: Plan) {
    memory = plan.memory
    processMemory = plan.processByteCount ?? processMemory
    context = plan.context
    threads = plan.threads
    direct = plan.choice.reads == .direct ? .auto : .off
    prefetch = plan.choice.prefetch ? .auto : .off
  }

  /// The options of a run as `plan` says.
  public init(_ plan: Plan) {
    self.init()
    obey(plan)
  }
}

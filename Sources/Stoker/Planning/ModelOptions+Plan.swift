public import Placement

extension ModelOptions {
  /// Runs as `plan` says: memory, context, threads, how experts are read, whether ahead.
  public mutating func obey(_ plan: Plan) {
    memory = plan.memory
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

internal import DirectIO
public import ExpertRuntime
internal import Residency

extension MoEModel {
  static let slotEntry = "expert slots"

  /// What the experts have cost since the model was made.
  public var expertStatistics: RuntimeStatistics { transformer.runtime.statistics }

  /// Whether experts may be read ahead.
  public var readsAhead: Bool { transformer.predictor != nil }

  /// Lowers or raises the budget, between two tokens: `generate`'s `onToken` may call it. The output stays
  /// the same to the bit.
  ///
  /// The slots are divided anew. Residents that still fit stay, moved into new memory slot by slot while
  /// that of the old ones is given back; of the others those go that the policy would have made go first.
  /// A recorded run goes on being recorded, but a replay of it, in slots that stay, has other hits.
  ///
  /// - Parameter memory: bytes for everything.
  /// - Throws: `RuntimeError.budgetTooSmall` naming the minimum, `.memory` if the system refuses the memory;
  ///   all stays as it was then.
  public func setMemory(_ memory: Int) throws {
    try divide(memory: memory, readsAhead: readsAhead)
  }

  /// Begins or ends reading ahead, between two tokens and within the same budget: predictor and staging take
  /// some slots. Where there are too few slots to spare any, nothing is read ahead.
  ///
  /// - Throws: an error that names the file of the fitted heads, if they are not the model's.
  public func setReadsAhead(_ readsAhead: Bool) throws {
    guard readsAhead != self.readsAhead else { return }
    try divide(memory: ledger.budget, readsAhead: readsAhead)
  }

  /// Divides `memory` anew.
  private func divide(memory: Int, readsAhead: Bool) throws {
    var options = options
    if !readsAhead {
      options.prefetch = .off
    } else if options.prefetch == .off {
      options.prefetch = .auto
    }
    let shape = try file.shape(options)
    let requirements = shape.requirements(process: processByteCount)
    let runtime = transformer.runtime
    let plan = ExpertRuntime.slotPlan(
      geometry: runtime.geometry, expertCount: runtime.expertCount, topK: runtime.topK,
      capacity: memory - requirements.fixed, staging: readsAhead)
    guard memory >= requirements.minimumBudget, let plan else {
      throw RuntimeError.budgetTooSmall(budget: memory, minimum: requirements.minimumBudget)
    }
    let slots: Arena
    do throws(IOError) {
      slots = try Arena(byteCount: plan.byteCount)
    } catch {
      throw RuntimeError.memory(name: Self.slotEntry, reason: "\(error)")
    }
    if !readsAhead {
      transformer.predictor = nil
      ledger.remove(Self.predictorEntries)
    }
    try ledger.resize(
      budget: memory, Self.slotEntry, byteCount: MemoryLedger.footprint(plan.byteCount))
    runtime.resize(to: plan, memory: slots)
    defer { note(runtime.slotPlan, predictor: transformer.predictor?.kind) }
    if readsAhead, transformer.predictor == nil, runtime.canPrefetch, let kind = shape.predictor {
      transformer.predictor = try predictor(kind, shape, ledger: ledger)
    }
  }

  private static let predictorEntries = ["predictor", "predictor heads"]
}

package import DirectIO

/// The owner of every large allocation, and of the promise that they stay within a budget.
///
/// What is outside it (code, tokenizer tables, stacks) is entered as a reservation, so that the sum
/// of all entries bounds the resident memory of the process.
public final class MemoryLedger {
  /// One line of the ledger.
  public struct Entry: Hashable, Sendable, Codable {
    public let name: String
    public let byteCount: Int
  }

  /// The bytes that may be entered in all.
  public private(set) var budget: Int
  /// What has been entered, in order.
  public private(set) var entries: [Entry] = []

  /// An empty ledger of `budget` bytes.
  public init(budget: Int) { self.budget = budget }

  /// The bytes entered so far.
  public var byteCount: Int { entries.reduce(0) { $0 + $1.byteCount } }
  /// The bytes still free.
  public var available: Int { budget - byteCount }

  /// Enters bytes that something else allocates.
  /// - Throws: `RuntimeError.overBudget` if they do not fit.
  package func reserve(_ name: String, byteCount: Int) throws(RuntimeError) {
    guard byteCount <= available else {
      throw .overBudget(name: name, needed: byteCount, available: available)
    }
    entries.append(Entry(name: name, byteCount: byteCount))
  }

  /// Makes the budget `budget` bytes and gives the entry `name` so many, whichever of both is first to
  /// allow it.
  /// - Throws: `RuntimeError.overBudget` if the entries do not fit; nothing is changed then.
  package func resize(
    budget: Int, _ name: String, byteCount: Int
  ) throws(RuntimeError) {
    guard let index = entries.firstIndex(where: { $0.name == name }) else {
      preconditionFailure("no entry '\(name)'")
    }
    let others = self.byteCount - entries[index].byteCount
    guard byteCount <= budget - others else {
      throw .overBudget(name: name, needed: byteCount, available: budget - others)
    }
    self.budget = budget
    entries[index] = Entry(name: name, byteCount: byteCount)
  }

  /// Takes out the entries of those names: what they stood for is gone.
  package func remove(_ names: [String]) { entries.removeAll { names.contains($0.name) } }

  /// Allocates and enters an arena.
  ///
  /// - Parameter isTouched: whether the system is to give its memory now and not when it is first used: a huge
  ///   page can take it milliseconds, of which a first prompt would wait for dozens.
  /// - Throws: `RuntimeError.overBudget` if it does not fit, `.memory` if the system refuses it.
  package func allocate(
    _ name: String, byteCount: Int, isTouched: Bool = false
  ) throws(RuntimeError) -> Arena {
    try reserve(name, byteCount: Self.footprint(byteCount))
    do throws(IOError) {
      let arena = try Arena(byteCount: byteCount)
      if isTouched {
        arena.region(offset: 0, count: byteCount).initializeMemory(as: UInt8.self, repeating: 0)
      }
      return arena
    } catch {
      throw .memory(name: name, reason: "\(error)")
    }
  }

  /// Allocates and enters two arenas, one behind the other in the same memory: only the second has what is left
  /// after the last whole huge page, if it is large enough. Reads into small pages take a drive's driver
  /// longer.
  ///
  /// - Throws: `RuntimeError.overBudget` if they do not fit, `.memory` if the system refuses them.
  package func allocate(
    _ name: String, byteCount: Int, before next: String, byteCount nextByteCount: Int
  ) throws(RuntimeError) -> (Arena, Arena) {
    let start = Self.footprint(byteCount)
    try reserve(name, byteCount: start)
    try reserve(next, byteCount: Self.footprint(nextByteCount))
    do throws(IOError) {
      let both = try Arena(byteCount: start + nextByteCount)
      return (
        Arena(partOf: both, offset: 0, byteCount: byteCount),
        Arena(partOf: both, offset: start, byteCount: nextByteCount)
      )
    } catch {
      throw .memory(name: "\(name) and \(next)", reason: "\(error)")
    }
  }

  /// The resident bytes an arena of `byteCount` bytes can come to: whole pages. What is left of an arena
  /// after its last whole huge page is in small ones.
  package static func footprint(_ byteCount: Int) -> Int { (byteCount + 4095) / 4096 * 4096 }
}

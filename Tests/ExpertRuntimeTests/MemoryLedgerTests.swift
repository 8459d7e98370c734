import DirectIO
import ExpertRuntime
import Testing

@Suite struct MemoryLedgerTests {
  @Test func entriesCannotExceedTheBudget() throws {
    let ledger = MemoryLedger(budget: 10_000)
    try ledger.reserve("code", byteCount: 1_000)
    #expect(ledger.available == 9_000)
    #expect(throws: RuntimeError.overBudget(name: "slots", needed: 12_288, available: 9_000)) {
      try ledger.allocate("slots", byteCount: 8_193)
    }
    #expect(ledger.entries.map(\.name) == ["code"])
    #expect(try ledger.allocate("slots", byteCount: 8_000).byteCount == 8_000)
    #expect(ledger.byteCount == 9_192)
    try ledger.reserve("rest", byteCount: 808)
    #expect(ledger.available == 0)
  }

  @Test(arguments: [
    (0, 0), (1, 4096), (4096, 4096), (4097, 8192), ((2 << 20) - 1, 2 << 20), (2 << 20, 2 << 20),
    ((2 << 20) + 1, (2 << 20) + 4096),
  ])
  func footprintsAreWholePages(byteCount: Int, footprint: Int) {
    #expect(MemoryLedger.footprint(byteCount) == footprint)
  }

  @Test(arguments: [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"), (10 << 20, "10.0 MiB"),
    (3 << 30, "3.00 GiB"), (123 << 30, "123 GiB"), (-2048, "-2.00 KiB"),
  ])
  func bytesAreWrittenForPeople(byteCount: Int, text: String) {
    #expect(formatBytes(byteCount) == text)
  }

  @Test(arguments: [
    (0.0, 2, "0.00"), (1.005, 1, "1.0"), (-0.04, 1, "0.0"), (-1.25, 2, "-1.25"),
    (9.999, 2, "10.00"),
    (2.5, 0, "3"),
  ])
  func numbersHaveAFixedNumberOfDigits(value: Double, digits: Int, text: String) {
    #expect(formatFixed(value, digits: digits) == text)
  }
}

internal import Placement
internal import Replay

extension Planner {
  /// What a simulation came to, in the words of a plan.
  func prediction(
    _ simulation: Simulation, prompt: CostModel.Prompt, choice: Plan.Choice, peakMemory: Int
  ) -> Prediction {
    let times = simulation.row.times!
    let cost = CostModel(profile: profile, work: subject.work)
    let tpot = times.tpotMeanSeconds
    let stalls = simulation.row.stalls ?? Stalls()
    let stall = stalls.total
    let step = simulation.step
    let tokens = Double(step.tokens)
    let touched = simulation.expertCount(subject.work)
    let experts = touched * cost.expertSeconds(tokens: step.tokensPerExpert)
    let dense =
      cost.denseSeconds(tokens: tokens)
      + cost.productSeconds([subject.work.head], tokens: tokens)
    let context = tokens * cost.contextSeconds(positions: simulation.positions)
    var bytes = simulation.row.bytesPerToken
    if let account = simulation.row.prefetch, times.tokens > 0 {
      bytes += (account.issuedBytes - account.neededBytes) / Double(times.tokens)
    }
    let steady = cost.contendedBytesPerSecond(choice.reads) ?? .infinity
    let reading = tokens * bytes / steady
    // Without the waiting, a step takes what its products and the rest take.
    let computing = tpot - stall
    let weights =
      Double(subject.work.denseByteCount) + touched * Double(subject.work.meanExpertByteCount)
    let memoryFloor = weights / profile.memoryBytesPerSecond
    let binding: Prediction.Binding =
      stall > computing ? .drive : memoryFloor > 0.6 * computing ? .memory : .processor
    return Prediction(
      batch: step.tokens, timeToFirstToken: prompt.seconds, tpotMean: tpot,
      tpotP95: times.tpotP95Seconds,
      uncertainty: uncertainty(simulation, reading: stall / tpot, choice: choice),
      hitRate: simulation.row.hitRate, bytesPerToken: bytes, stalls: stalls,
      readSeconds: (simulation.row.readShare ?? 0) * tpot,
      expertSeconds: experts, denseSeconds: dense, contextSeconds: context,
      otherSeconds: max(0, computing - experts - dense - context), peakMemory: peakMemory,
      binding: binding,
      overlapBound: tokens / max(reading, computing))
  }

  /// The spreads of the machine's figures by their share of a token's time, and what as many more misses
  /// would change as there may be.
  private func uncertainty(
    _ simulation: Simulation, reading: Double, choice: Plan.Choice
  ) -> Double {
    func mean(_ figures: [Figure]) -> Double {
      figures.isEmpty ? 0 : figures.reduce(0) { $0 + $1.spread } / Double(figures.count)
    }
    let disk = mean(
      profile.disk.filter { $0.kind == choice.reads && $0.blockBytes >= 128 << 10 }
        .map(\.bytesPerSecond))
    let products = mean(
      profile.products.filter {
        $0.tokens == 1 && $0.kernels == profile.machine.kernels
      }.map(\.bytesPerSecond))
    var sum = reading * disk * reading * disk + (1 - reading) * products * (1 - reading) * products
    if missError > 0, simulation.row.hitRate < 1 {
      let misses =
        simulation.expertCount(subject.work) * (1 - simulation.row.hitRate) * missError
      let seconds =
        misses * Double(subject.work.meanExpertByteCount) / simulation.hardware.readBytesPerSecond
      let share = seconds / (simulation.row.times!.tpotMeanSeconds)
      sum += share * share
    }
    return sum.squareRoot()
  }
}

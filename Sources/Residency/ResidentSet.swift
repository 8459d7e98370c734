public import Routing

/// What serving an event took.
public struct ServedEvent: Hashable, Sendable {
  /// Needed experts that were resident when the event began.
  public var hits = 0
  /// Needed experts that were not.
  public var misses = 0
  /// The bytes of the missed experts.
  public var missedByteCount = 0
  /// Residents that had to go.
  public var evictions = 0
  /// Whether the missed experts pass through a window of slots.
  public var isStream = false
}

/// A resident that goes from one slot to another, of another plan.
public struct SlotMove: Hashable, Sendable {
  public let expert: Int32
  public let from: Int
  public let to: Int
}

/// Experts in memory under a policy, event by event: a state machine without clock, I/O or threads.
///
/// The live runtime and the replay of traces both ask it; the runtime carries out what it decides. All
/// that an event changes is settled when it begins, so that nothing depends on the order in which
/// reads finish.
public struct ResidentSet: Sendable {
  /// What is resident.
  public private(set) var table: ResidentTable
  private var policy: any EvictionPolicy
  private var slots: SlotTable?

  /// An empty set without slots: bytes are all that binds, and an event's experts may be more than
  /// these for as long as it lasts.
  /// - Parameter capacity: bytes that residents may take once an event is over.
  public init(geometry: RoutingGeometry, capacity: Int, policy: any EvictionPolicy) {
    table = ResidentTable(
      geometry: geometry, capacity: capacity, protectsEvent: !policy.mayBypass)
    self.policy = policy
  }

  /// An empty set over slots, as the runtime has them. Prompts, and events that need more experts than
  /// there are slots, pass through a window of them: see `stream`.
  /// What is staged, in slots of the plan that are not for residents, has no say in what is resident.
  /// - Parameter policy: one that keeps an event's experts.
  public init(geometry: RoutingGeometry, plan: SlotPlan, policy: any EvictionPolicy) {
    precondition(!policy.mayBypass, "an expert without a slot cannot be computed")
    table = ResidentTable(geometry: geometry, plan: plan)
    slots = SlotTable(plan: plan, geometry: geometry)
    self.policy = policy
  }

  /// Serves `event`: classifies, observes, admits, evicts.
  ///
  /// - Parameter missed: receives the missed experts, in the order in which they are to be read.
  public mutating func serve(
    _ event: borrowing RoutingEvent, missed: inout [Int32]
  ) -> ServedEvent {
    missed.removeAll(keepingCapacity: true)
    table.beginEvent(layer: event.layer)
    var served = ServedEvent()
    for expert in event.experts where !table.touch(expert) { missed.append(expert) }
    served.misses = missed.count
    served.hits = event.experts.count - missed.count
    served.missedByteCount = missed.count * table.geometry.expertByteCounts[event.layer]
    if slots?.streams(event) == true {
      served.isStream = true
      if !missed.isEmpty { stream(event, missed: &missed, served: &served) }
      return served
    }
    policy.observe(event, residents: table)
    for expert in missed { table.insert(expert) }
    while table.isOverfull, let victim = takeVictim() {
      remove(victim)
      served.evictions += 1
    }
    if slots != nil {
      for expert in missed { slots!.take(for: expert) }
    }
    return served
  }

  /// Evicts until the residents fit, those of the latest event too: its layer is over.
  public mutating func trim() {
    guard table.isOverfull else { return }
    table.beginEvent(layer: table.layer)
    while table.isOverfull, let victim = takeVictim() { remove(victim) }
  }

  /// Makes every expert resident in a slot of its own.
  public mutating func fill() {
    for layer in 0..<table.geometry.layerCount {
      table.beginEvent(layer: layer)
      for expert in table.experts(ofLayer: layer).lazy.map(Int32.init)
      where !table.contains(expert) {
        table.insert(expert)
        slots?.take(for: expert)
      }
    }
  }

  /// Tells the policy, which has seen nothing yet, what was needed in the past: as if it had been a prompt.
  ///
  /// - Parameter history: uses of a model of the same shape.
  public mutating func begin(with history: RoutingHistory) {
    for layer in 0..<table.geometry.layerCount {
      let event = history.event(layer: layer)
      guard !event.experts.isEmpty else { continue }
      table.beginEvent(layer: layer)
      policy.observeStream(event, admitted: [], residents: table)
    }
  }

  /// Makes `expert`, which nothing needs yet, resident where there is room.
  ///
  /// - Parameter pass: the pass over the layers under way.
  /// - Returns: whether there was room.
  public mutating func admit(_ expert: Int32, pass: Int) -> Bool {
    let layer = Int(expert) / table.geometry.expertCount
    precondition(!table.contains(expert), "it is a resident already")
    table.beginEvent(layer: layer)
    guard table.hasRoom(for: expert) else { return false }
    table.insert(expert)
    slots?.take(for: expert)
    policy.admit(expert, layer: layer, pass: pass, residents: table)
    return true
  }

  /// Goes over to the slots of `plan`, another division for the same experts: evicts what does not fit any
  /// more, and gives every other resident a slot. Nothing may be staged.
  ///
  /// - Returns: what stays, and from which slot to which.
  public mutating func resize(to plan: SlotPlan) -> [SlotMove] {
    let geometry = table.geometry
    table.resize(capacities: plan.classes.map(\.slotCount))
    for index in plan.classes.indices {
      table.beginEvent(layer: plan.classOfLayer.firstIndex(of: index)!)
      while table.isOverfull, let victim = takeVictim() { remove(victim) }
    }
    var moved = SlotTable(plan: plan, geometry: geometry)
    var moves: [SlotMove] = []
    for layer in 0..<geometry.layerCount {
      for expert in table.experts(ofLayer: layer).lazy.map(Int32.init) where table.contains(expert)
      {
        moved.take(for: expert)
        moves.append(SlotMove(expert: expert, from: slot(of: expert), to: moved.slot(of: expert)))
      }
    }
    slots = moved
    policy.resize(geometry: geometry, capacity: plan.meanCapacity(of: geometry))
    return moves
  }

  /// The slot that `expert`, one of the latest event's or a resident, is in or is to be read into.
  public func slot(of expert: Int32) -> Int { slots!.slot(of: expert) }

  // MARK: - Staging

  /// The slot that `expert`, no resident, is staged in. It becomes the expert's slot when an event makes
  /// it a resident.
  public func stagedSlot(of expert: Int32) -> Int? { slots?.stagedSlot(of: expert) }

  /// The staged experts that share slots with those of `layer`, the first staged first.
  public func staged(layer: Int) -> [Int32] { slots?.staged(layer: layer) ?? [] }

  /// Gives `expert`, neither resident nor staged, a staging slot; nil if none is free.
  public mutating func stage(_ expert: Int32) -> Int? {
    precondition(!table.contains(expert) && stagedSlot(of: expert) == nil, "nothing to stage")
    return slots?.stage(expert)
  }

  /// Frees the staging slot of `expert`.
  public mutating func discard(_ expert: Int32) { slots?.discard(expert) }

  // MARK: - Streams

  /// Lets the missed experts, in file order, pass through a window of slots, each slot taking the next
  /// one when it is done with the last. What decoding has earned stays, but for the window: resident
  /// experts are used where they are and are no newer for it. While there is more room than the window
  /// needs, the layer keeps its share of it for the experts that most tokens chose: something to begin
  /// decoding with.
  private mutating func stream(
    _ event: borrowing RoutingEvent, missed: inout [Int32], served: inout ServedEvent
  ) {
    missed.sort()
    let layer = event.layer
    let window = min(slots!.window(layer: layer), missed.count)
    while slots!.freeCount(layer: layer) < window {
      guard let victim = takeVictim() else {
        // What is left is the event's own: computed where it is first, then its slot joins the window.
        table.protectsEvent = false
        continue
      }
      remove(victim)
      served.evictions += 1
    }
    table.protectsEvent = true
    let share = min(
      slots!.share(layer: layer) - served.hits, slots!.freeCount(layer: layer) - window)
    let admitted = share > 0 ? busiest(share, of: missed, in: event) : []
    for expert in admitted {
      table.insert(expert)
      slots!.take(for: expert)
    }
    var turn = 0
    for expert in missed where !table.contains(expert) {
      slots!.pass(expert, through: window, turn: turn)
      turn += 1
    }
    policy.observeStream(event, admitted: admitted, residents: table)
  }

  /// The `count` of `missed` that most tokens chose, the lower number first among equals.
  private func busiest(
    _ count: Int, of missed: [Int32], in event: borrowing RoutingEvent
  ) -> [Int32] {
    guard !event.counts.isEmpty else { return Array(missed.prefix(count)) }
    var tokens: [Int32: Int32] = [:]
    for (expert, tokenCount) in zip(event.experts, event.counts) { tokens[expert] = tokenCount }
    return Array(missed.sorted { (tokens[$1]!, $0) < (tokens[$0]!, $1) }.prefix(count))
  }

  // MARK: - Victims

  /// The policy's choice. A slot must be found whatever the policy says, if there is one.
  private mutating func takeVictim() -> Int32? {
    if let victim = policy.takeVictim(residents: table) { return victim }
    guard slots != nil else { return nil }
    return (0..<table.geometry.layerCount).lazy.flatMap { [table] in table.experts(ofLayer: $0) }
      .map(Int32.init).first { [table] in table.isEvictable($0) }
  }

  private mutating func remove(_ victim: Int32) {
    table.remove(victim)
    slots?.release(victim)
  }
}

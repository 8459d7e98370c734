public import Routing

/// Decides which expert goes when room is needed.
///
/// Events are atomic (arXiv 2608.07911): what is resident is settled when an event begins; the policy
/// observes the event, and every missed expert is read and becomes resident, which may take victims.
public protocol EvictionPolicy: Sendable {
  /// Whether an expert of the event itself may be the victim, so that it is served and not kept
  /// (bypass). Otherwise all of them stay at least until the next event.
  var mayBypass: Bool { get }

  /// Takes note of `event`. Its experts are resident after it, whether they were before or not.
  mutating func observe(_ event: borrowing RoutingEvent, residents: borrowing ResidentTable)

  /// Takes note of `event`, whose experts were used where they were resident and else passed through,
  /// as a prompt's do: only the `admitted` ones, among the residents already, have become resident.
  mutating func observeStream(
    _ event: borrowing RoutingEvent, admitted: [Int32], residents: borrowing ResidentTable)

  /// Takes note that `expert` of `layer` has become resident during `pass` without being needed.
  mutating func admit(
    _ expert: Int32, layer: Int, pass: Int, residents: borrowing ResidentTable)

  /// Takes note that residents may take `capacity` bytes from now on.
  mutating func resize(geometry: RoutingGeometry, capacity: Int)

  /// Chooses the resident that goes and forgets that it was one; nil if none may go.
  mutating func takeVictim(residents: borrowing ResidentTable) -> Int32?
}

extension EvictionPolicy {
  public var mayBypass: Bool { false }

  /// Most policies only rank.
  public mutating func resize(geometry: RoutingGeometry, capacity: Int) {}

  /// A stream says nothing of what will be needed but by what it admits.
  public mutating func observeStream(
    _ event: borrowing RoutingEvent, admitted: [Int32], residents: borrowing ResidentTable
  ) {
    guard !admitted.isEmpty else { return }
    var newcomers = RoutingEvent()
    newcomers.layer = event.layer
    newcomers.pass = event.pass
    newcomers.experts = admitted
    observe(newcomers, residents: residents)
  }

  /// As if it had been needed.
  public mutating func admit(
    _ expert: Int32, layer: Int, pass: Int, residents: borrowing ResidentTable
  ) {
    var event = RoutingEvent()
    event.layer = layer
    event.pass = pass
    event.experts = [expert]
    observe(event, residents: residents)
  }
}

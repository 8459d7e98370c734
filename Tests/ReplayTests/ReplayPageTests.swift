import Foundation
import FoundationXML
import Placement
import Residency
import Routing
import TestSupport
import Testing

@testable import Replay

@Suite struct ReplayPageTests {
  private static let profile = HardwareProfile(
    name: "a <machine> & more", readBytesPerSecond: 1e6, readLatencySeconds: 1e-4,
    computeBytesPerSecond: 1e8, layerSeconds: 1e-3, tokenSeconds: 1e-3)

  private static func page(
    hardware: HardwareProfile?, policies: [PolicyName]
  ) throws -> (html: String, trace: RoutingTrace) {
    let trace = randomTrace(
      layers: 3, experts: 12, topK: 2, tokens: 40, sequences: 2,
      byteCounts: [3000, 5000, 3000], promptTokens: 6, seed: 4)
    var options = ReplayOptions()
    options.policies = policies
    options.capacities = [.share(0.25), .share(0.75)]
    options.hardware = hardware
    let rows = try Comparison(trace, name: "t", options: options).rows()
    var page = ReplayPage()
    try page.append(rows, of: TraceSource(trace), name: "a \"trace\" <b>", machine: hardware?.name)
    return (page.html, trace)
  }

  /// Parses as XML, which every tag must close for, and asks for nothing from elsewhere.
  @Test(arguments: [nil, profile]) func thePageIsWholeAndByItself(
    _ hardware: HardwareProfile?
  ) throws {
    let (html, _) = try Self.page(hardware: hardware, policies: [.lru, .nextUse, .min])
    let parser = XMLParser(
      data: Data(html.replacingOccurrences(of: "<!DOCTYPE html>\n", with: "").utf8))
    #expect(parser.parse(), "\(String(describing: parser.parserError))")
    for outside in ["http", "src=", "<script", "@import", "url("] {
      #expect(!html.contains(outside), "\(outside)")
    }
    for name in ["lru", "next-use", "min"] { #expect(html.contains("</i>\(name)</li>")) }
    #expect(html.contains("a &quot;trace&quot; &lt;b&gt;"))
    #expect(html.contains("Predicted tokens per second") == (hardware != nil))
    #expect(!html.contains("nan") && !html.contains("inf"))
  }

  @Test func distancesAndUsesAddUp() throws {
    let trace = try Self.page(hardware: nil, policies: [.lru]).trace
    let profile = try ReuseProfile(TraceSource(trace))
    var expected = Array(repeating: Array(repeating: 0, count: 12), count: 3)
    var last: [[Int: Int]] = [[:], [:], [:]]
    var tokens = [0, 0, 0]
    var distances: [Int: Int] = [:]
    var first = 0
    for event in 0..<trace.eventCount {
      let layer = trace.layer(of: event)
      let experts = Array(trace.experts(of: event))
      for token in 0..<experts.count / 2 {
        for expert in experts[2 * token..<2 * token + 2].map(Int.init) {
          if trace.phase(of: event) == .decode {
            expected[layer][expert] += 1
            if let before = last[layer][expert] {
              let distance = tokens[layer] - before
              var bin = 0
              while 1 << bin < distance { bin += 1 }
              distances[bin, default: 0] += 1
            } else {
              first += 1
            }
          }
          last[layer][expert] = tokens[layer]
        }
        tokens[layer] += 1
      }
    }
    #expect(profile.uses == expected)
    #expect(profile.firstUses == first)
    for (bin, count) in profile.distances.enumerated() {
      #expect(distances[bin, default: 0] == count)
    }
    #expect(profile.distances.reduce(first, +) == expected.joined().reduce(0, +))
  }
}

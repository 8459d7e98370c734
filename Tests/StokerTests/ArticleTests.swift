import FoundationEssentials
import Logging
import Stoker
import Testing

/// What README.md and the articles show, with only the names of files changed: it compiles with nothing but
/// the public interface, and runs.
@Suite struct ArticleTests {
  private static let model = Fixtures.demo
  private static let trace = Fixtures.repository.appendingPathComponent("traces/demo.moetrace").path

  @Test func aModelGenerates() throws {
    let file = try ModelFile(path: Self.model)
    let model = try MoEModel(
      file, options: ModelOptions(memory: 4 << 30), logger: Logger(label: "app"))
    let result = try model.generate(
      GenerationRequest(prompt: file.tokenizer.encodePrompt("The sea"), maxTokens: 64))
    #expect(result.tokens.count == 64)
    #expect(try !String(decoding: file.tokenizer.decode(result.tokens), as: UTF8.self).isEmpty)
  }

  @Test func aLayerOfOnesOwnRuns() throws {
    let experts = try ExpertRuntime.open(
      Self.model, memory: 4 << 30, tokenCapacity: 1, threads: 8, readsAhead: true)
    let hidden = (0..<experts.hiddenSize).map { Float($0 % 7) - 3 }
    var output = [Float](repeating: 0, count: experts.hiddenSize)
    let scores = (0..<experts.expertCount).map { Float($0) }
    try experts.predict(layer: 1, distance: 1, scores: scores.span)
    var routing = Routing(topK: experts.topK)
    for expert in 0..<experts.topK { routing.append(expert: expert, weight: 0.125) }
    var span = output.mutableSpan
    try experts.execute(
      layer: 0, hidden: hidden.span, routing: routing, output: &span, phase: .decode)
    #expect(output.contains { $0 != 0 } && output.allSatisfy { $0.isFinite })
  }

  @Test func expertsComeFromAFunction() throws {
    let source = try ExpertSource(
      layerCount: 2, expertCount: 16, topK: 4, hiddenSize: 64, feedForwardSize: 32,
      types: (gate: .f32, up: .f32, down: .f32)
    ) { expert, matrix, bytes in
      for index in 0..<bytes.byteCount / 4 {
        let weight = Float(expert.expert + index % 5) * (matrix == .down ? 0.01 : 0.1)
        bytes.storeBytes(of: weight, toByteOffset: 4 * index, as: Float.self)
      }
    }
    let generated = try ExpertRuntime.open(source, memory: 1 << 20, tokenCapacity: 1, threads: 2)
    var routing = Routing(topK: 4)
    for expert in 0..<4 { routing.append(expert: expert, weight: 0.25) }
    let hidden = [Float](repeating: 0.5, count: 64)
    var output = [Float](repeating: 0, count: 64)
    var span = output.mutableSpan
    try generated.execute(
      layer: 1, hidden: hidden.span, routing: routing, output: &span, phase: .decode)
    #expect(output.contains { $0 != 0 } && output.allSatisfy { $0.isFinite })
  }

  @Test func aTraceIsRead() throws {
    let trace = try RoutingTrace(path: Self.trace)
    var event = TraceEvent()
    var lines = 0
    func print(_ layer: Int, _ step: Int32, _ experts: [UInt16]) {
      lines += experts.isEmpty ? 0 : 1
    }
    for index in 0..<trace.eventCount {
      trace.read(index, into: &event)
      print(event.layer, event.step, event.experts)
    }
    #expect(lines == trace.eventCount && lines > 0)
  }

  /// Every line that is shown is in this file, in the same order.
  @Test(arguments: [
    "README.md", "Sources/Stoker/Stoker.docc/Stoker.md",
    "Sources/Stoker/Stoker.docc/YourOwnLayer.md", "Sources/Stoker/Stoker.docc/ReadATrace.md",
  ])
  func whatIsShownIsRun(_ name: String) throws {
    let own = lines(try String(contentsOfFile: #filePath, encoding: .utf8))
    let url = Fixtures.repository.appendingPathComponent(name)
    let blocks = try String(contentsOf: url, encoding: .utf8)
      .split(separator: "```swift\n").dropFirst()
      .map { lines(String($0.prefix(upTo: $0.firstRange(of: "```")!.lowerBound))) }
    #expect(!blocks.isEmpty)
    for block in blocks {
      let shown = block.filter { !$0.hasPrefix("import ") && !$0.hasPrefix("print(String(") }
      var rest = own[...]
      for line in shown {
        let place = try #require(
          rest.firstIndex(of: line), "\(name) shows what no test runs: \(line)")
        rest = rest[(place + 1)...]
      }
    }
  }

  private func lines(_ text: String) -> [String] {
    text.split(separator: "\n").map { line in
      String(line.drop { $0 == " " })
        .replacing("\"model.gguf\"", with: "Self.model")
        .replacing("\"routing.moetrace\"", with: "Self.trace")
    }.filter { !$0.isEmpty }
  }
}

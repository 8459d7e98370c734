import ArgumentParser
import Stoker

/// `stoker inspect`: what a checkpoint is and needs.
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a model is and how much memory it needs.",
    discussion: """
      Reads headers only, unless --disk asks for a measurement. The minimum budget holds everything a run needs and one layer's experts \
      of one token; the full budget holds every expert.
      """)

  @Argument(help: "A GGUF file (any of its files, if split), or a folder of safetensors files.")
  var model: String

  @Flag(help: "Measure for two seconds how fast the experts can be read from where they lie.")
  var disk = false

  @Flag(help: "Print JSON.")
  var json = false

  @OptionGroup var arguments: ModelArguments

  func run() throws {
    let file = try arguments.open(model)
    var summary = try file.summary(arguments.options())
    if disk { summary.disk = try file.measureDisk(arguments.options()) }
    if json { return try Terminal.printJSON(summary) }
    let s = summary
    var rows: [(String, String)] = [
      ("architecture", s.architecture + (s.name.map { ", \"\($0)\"" } ?? "")),
      (
        "file",
        formatBytes(Int(s.fileByteCount)) + (s.files > 1 ? " in \(s.files) files" : "")
          + (s.copies > 0 ? " and \(s.copies) copies" : "")
      ),
      ("layers", "\(s.layers), hidden size \(s.hiddenSize)"),
      (
        "attention",
        "\(s.heads) heads, \(s.keyValueHeads) key-value heads, dimension \(s.headDimension)"
          + (s.recurrentLayers > 0
            ? "; in its place a recurrent state in \(s.recurrentLayers) layers" : "")
      ),
      (
        "experts",
        "\(s.experts) per layer, top-\(s.expertsPerToken), width \(s.expertFeedForwardSize)"
          + (s.sharedFeedForwardSize > 0 ? "; shared ones of width \(s.sharedFeedForwardSize)" : "")
          + (s.denseLayers > 0
            ? "; first \(s.denseLayers == 1 ? "layer" : "\(s.denseLayers) layers") dense, width "
              + "\(s.denseFeedForwardSize)" : "")
      ),
      ("vocabulary", "\(s.vocabulary) tokens; context \(s.contextLength)"),
    ]
    for group in s.expertGroups {
      let layers =
        group.firstLayer == group.lastLayer
        ? "layer \(group.firstLayer)" : "layers \(group.firstLayer)-\(group.lastLayer)"
      rows.append(
        (
          "  \(layers)",
          "gate \(group.gateType), up \(group.upType), down \(group.downType): "
            + "\(formatBytes(group.byteCount)) per expert"
        ))
    }
    rows += [
      ("expert bytes", formatBytes(s.expertBytes)),
      ("dense bytes", formatBytes(s.denseBytes)),
      ("read per token", "\(formatBytes(s.activeBytesPerToken)) of weights"),
      (
        "key-value cache",
        "\(formatBytes(s.keyValueBytesPerToken)) per token, "
          + "\(formatBytes(s.keyValueBytesPerToken * s.context)) for \(s.context)"
      ),
    ]
    if s.recurrentLayers > 0 {
      rows.append(
        ("recurrent state", "\(formatBytes(s.recurrentStateBytes)), however long the context"))
    }
    rows += [
      ("minimum budget", "\(formatBytes(s.minimumBudget)) (context \(s.context))"),
      ("full budget", "\(formatBytes(s.fullBudget)) (context \(s.context))"),
    ]
    if let measured = s.disk {
      rows.append(
        (
          "disk",
          "\(formatBytes(Int(measured.bytesPerSecond)))/s in reads of "
            + "\(formatBytes(measured.readByteCount)), \(measured.queueDepth) at a time "
            + "(\(measured.engine), \(measured.direct ? "direct" : "through the page cache"))"
        ))
    }
    try Terminal.print(rows.map { $0.0.padding(to: 18) + $0.1 }.joined(separator: "\n"))
  }
}

/// Where a model's bytes go on a machine, how it is to be run, and what that is predicted to take.
///
/// As JSON it has the names of its properties in snake case, and is read by people too.
public struct Plan: Hashable, Sendable, Codable {
  /// The version of this form.
  public static let currentVersion = 2

  /// The model that is planned for.
  public struct Model: Hashable, Sendable, Codable {
    public var name: String
    /// Its file; nil for a shape without one.
    public var path: String?
    public var fileBytes: Int
    public var layers: Int
    public var experts: Int
    public var topK: Int

    public init(
      name: String, path: String?, fileBytes: Int, layers: Int, experts: Int, topK: Int
    ) {
      self.name = name
      self.path = path
      self.fileBytes = fileBytes
      self.layers = layers
      self.experts = experts
      self.topK = topK
    }

    /// How `other` differs, in words; nil if it does not. A file may lie elsewhere.
    public func difference(from other: Model) -> String? {
      var (own, its) = (self, other)
      own.path = nil
      its.path = nil
      if own == its { return nil }
      return "it is for '\(other.name)' of \(other.fileBytes) bytes, \(other.layers) layers of "
        + "\(other.experts) experts, top-\(other.topK); this is '\(name)' of \(fileBytes) bytes, "
        + "\(layers) layers of \(experts) experts, top-\(topK)"
    }
  }

  /// A use of host memory.
  public struct Part: Hashable, Sendable, Codable {
    public var name: String
    public var bytes: Int

    public init(name: String, bytes: Int) {
      self.name = name
      self.bytes = bytes
    }
  }

  /// What there is to choose.
  public struct Choice: Hashable, Sendable, Codable {
    /// How experts that are missed are read.
    public var reads: ReadKind
    /// Whether experts are read before the router asks.
    public var prefetch: Bool

    public init(reads: ReadKind, prefetch: Bool) {
      self.reads = reads
      self.prefetch = prefetch
    }

    /// In words.
    public var summary: String {
      let how: String
      switch reads {
      case .direct: how = "read past the page cache"
      case .buffered: how = "read through the page cache"
      case .cached: how = "read through the page cache, which has room for all of them"
      }
      return how + (prefetch ? ", ahead where that pays" : ", none ahead")
    }
  }

  /// A choice that was weighed.
  public struct Alternative: Hashable, Sendable, Codable {
    public var choice: Choice
    public var slots: Int
    public var tokensPerSecond: Double

    public init(choice: Choice, slots: Int, tokensPerSecond: Double) {
      self.choice = choice
      self.slots = slots
      self.tokensPerSecond = tokensPerSecond
    }
  }

  /// What a change would bring.
  public struct Advice: Hashable, Sendable, Codable {
    public var change: String
    public var tokensPerSecond: Double

    public init(change: String, tokensPerSecond: Double) {
      self.change = change
      self.tokensPerSecond = tokensPerSecond
    }
  }

  public var version = Self.currentVersion
  public var model: Model
  /// The machine, and when it was measured; nil for nominal figures.
  public var machine: MachineIdentity
  public var measured: String?
  /// Where the hits come from, in words.
  public var basis: String
  /// The budget, in bytes, and what it goes to.
  public var memory: Int
  public var parts: [Part]
  /// Sequences that are decoded together; nil: one.
  public var batch: Int?
  /// Positions of each sequence's key-value cache, tokens of its prompt, tokens generated.
  public var context: Int
  public var promptTokens: Int
  public var tokens: Int
  public var choice: Choice
  /// Slots for experts, all layers together, and those for experts that are read ahead.
  public var slots: Int
  public var stagingSlots: Int
  /// Threads that compute.
  public var threads: Int
  /// Tokens of a prompt that pass through the model together, and bytes of a wave of experts then.
  public var chunkTokens: Int
  public var waveBytes: Int
  /// What lies on an accelerator; nil without one.
  public var device: DevicePlacement?
  public var prediction: Prediction
  /// What else was weighed, the fastest first.
  public var alternatives: [Alternative]
  public var advice: [Advice] = []

  public init(
    model: Model, machine: MachineIdentity, measured: String?, basis: String, memory: Int,
    parts: [Part], context: Int, promptTokens: Int, tokens: Int, choice: Choice, slots: Int,
    stagingSlots: Int, threads: Int, chunkTokens: Int, waveBytes: Int, device: DevicePlacement?,
    prediction: Prediction, alternatives: [Alternative]
  ) {
    self.model = model
    self.machine = machine
    self.measured = measured
    self.basis = basis
    self.memory = memory
    self.parts = parts
    self.context = context
    self.promptTokens = promptTokens
    self.tokens = tokens
    self.choice = choice
    self.slots = slots
    self.stagingSlots = stagingSlots
    self.threads = threads
    self.chunkTokens = chunkTokens
    self.waveBytes = waveBytes
    self.device = device
    self.prediction = prediction
    self.alternatives = alternatives
  }

  /// The name of the part that is the process itself.
  public static let processPart = "process"

  /// The bytes that the process itself is counted with; nil if the plan does not say.
  public var processByteCount: Int? { parts.first { $0.name == Self.processPart }?.bytes }

  /// What is not possible in the plan, in words; nil if all is.
  public var fault: String? {
    guard version == Self.currentVersion else {
      return "version \(version), expected \(Self.currentVersion)"
    }
    guard memory > 0, context > 0, slots > 0, (1...256).contains(threads) else {
      return "memory, context, slots or threads is not above 0"
    }
    guard parts.allSatisfy({ (0...memory).contains($0.bytes) }) else {
      return "a part of the memory is below 0 or above all of it"
    }
    guard batch ?? 1 > 0 else { return "its batch is not above 0" }
    return nil
  }
}

/// What a run is predicted to be like.
public struct Prediction: Hashable, Sendable, Codable {
  /// What limits the speed.
  public enum Binding: String, Hashable, Sendable, Codable {
    /// The drive, or the copying out of the page cache.
    case drive
    /// The memory that weights are read from.
    case memory
    /// The processor.
    case processor
    /// The accelerator.
    case device
  }

  /// Seconds until the first token after the prompt.
  public var timeToFirstToken: Double
  /// Seconds of a decoded token, or of a step that decodes one of each sequence: mean and 95th percentile.
  public var tpotMean: Double
  public var tpotP95: Double
  /// Of all sequences together.
  public var tokensPerSecond: Double
  /// How far off that may be, as a share of it: from the spread of the machine's figures and of what is
  /// supposed of the routing.
  public var uncertainty: Double
  /// The share of a decoded token's experts that are resident.
  public var hitRate: Double
  /// Bytes of experts read for each decoded token.
  public var bytesPerToken: Double
  /// Of these seconds: waiting for reads by what is waited for, products of experts, the other matrices,
  /// looking back, everything besides.
  public var stalls: Stalls
  /// Seconds in which reads are under way, hidden or not.
  public var readSeconds: Double
  public var expertSeconds: Double
  public var denseSeconds: Double
  public var contextSeconds: Double
  public var otherSeconds: Double
  /// The most memory that the process comes to, in bytes.
  public var peakMemory: Int
  public var binding: Binding
  /// Tokens per second if reading, memory and processor overlapped wholly.
  public var overlapBound: Double

  /// Of a token's seconds, those of waiting for reads.
  public var stallSeconds: Double { stalls.total }

  /// - Parameter batch: sequences that are decoded together.
  public init(
    batch: Int = 1, timeToFirstToken: Double, tpotMean: Double, tpotP95: Double,
    uncertainty: Double,
    hitRate: Double, bytesPerToken: Double, stalls: Stalls, readSeconds: Double,
    expertSeconds: Double, denseSeconds: Double, contextSeconds: Double, otherSeconds: Double,
    peakMemory: Int,
    binding: Binding, overlapBound: Double
  ) {
    self.timeToFirstToken = timeToFirstToken
    self.tpotMean = tpotMean
    self.tpotP95 = tpotP95
    tokensPerSecond = Double(batch) / tpotMean
    self.uncertainty = uncertainty
    self.hitRate = hitRate
    self.bytesPerToken = bytesPerToken
    self.stalls = stalls
    self.readSeconds = readSeconds
    self.expertSeconds = expertSeconds
    self.denseSeconds = denseSeconds
    self.contextSeconds = contextSeconds
    self.otherSeconds = otherSeconds
    self.peakMemory = peakMemory
    self.binding = binding
    self.overlapBound = overlapBound
  }
}

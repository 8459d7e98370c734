/// A rule that splits text into pieces; merges never cross the border of two pieces.
///
/// The rules are the regular expressions below, written out as scanners over Unicode scalars that
/// take linear time. A byte that is not part of well-formed UTF-8 counts as a symbol that is
/// neither letter, number nor white space.
enum PreTokenizer: String, CaseIterable, Sendable {
  /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
  case gpt2 = "gpt-2"
  /// The rule of `gpt2` on text in normalization form C (OLMo 1 and OLMoE).
  case olmo = "olmo"
  /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}`
  /// `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
  case dbrx = "dbrx"
  /// The rule of `gpt2`, but that each number symbol is a piece (Granite 3, StarCoder).
  case refact = "refact"
  /// The rule of `dbrx` (GLM-4 and 4.5).
  case glm4 = "glm4"
  /// The rule of `dbrx`; a piece that is a token stays whole whatever the merges say (Llama 3).
  case llama3 = "llama-bpe"
  /// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|…)?`
  /// `|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|…)?|\p{N}{1,3}`
  /// `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+` (OpenAI's o200k: gpt-oss)
  case gpt4o = "gpt-4o"
  /// `\p{Han}+`, or the rule of `gpt4o` with words that end at such scripts and `[\r\n]*` for `[\r\n/]*` (Kimi-K2)
  case kimi = "kimi-k2"
  /// First `\p{N}{1,3}`, then `[一-龥぀-ゟ゠-ヿ]+`, and of what lies between
  /// ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+``
  /// `| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` (DeepSeek-V3 and R1)
  case deepSeek3 = "deepseek-v3"
  /// One after the other, each of what those before have left: `[\r\n]`, `\s?` and letters with case by a list,
  /// ``\s?[!-/:-~！-／：-～‘-‟　-。]+``, `\s+$`, `[一-龥ࠀ-一가-퟿]+`, each number (DeepSeek-V2 and V2-Lite)
  case deepSeekLLM = "deepseek-llm"
  /// The rule of `dbrx` with each number a piece, on text in normalization form C (Qwen 2 and 3).
  case qwen2 = "qwen2"
  /// The rule of `qwen2` with marks as parts of words: `[\p{L}\p{M}]+` for `\p{L}+`, and symbols without them
  /// (Qwen 3.5).
  case qwen35 = "qwen35"

  /// Whether text is brought to normalization form C first.
  var normalizesText: Bool { self == .olmo || self == .qwen2 || self == .qwen35 }

  /// Whether a piece that is a token as a whole is taken without consulting the merges.
  var ignoresMerges: Bool { self == .llama3 }

  /// The end of the piece that starts at `start`, which must be inside `text`.
  func pieceEnd(in text: Span<UInt8>, from start: Int) -> Int {
    switch self {
    case .gpt2, .olmo: gpt2PieceEnd(in: text, from: start)
    case .refact: gpt2PieceEnd(in: text, from: start, splitsNumbers: true)
    case .dbrx, .glm4, .llama3: cl100kPieceEnd(in: text, from: start, digitLimit: 3)
    case .qwen2: cl100kPieceEnd(in: text, from: start, digitLimit: 1)
    case .qwen35: cl100kPieceEnd(in: text, from: start, digitLimit: 1, joinsMarks: true)
    case .gpt4o: o200kPieceEnd(in: text, from: start)
    case .kimi:
      if let end = hanEnd(in: text, from: start) {
        end
      } else {
        o200kPieceEnd(in: text, from: start, withoutHan: true)
      }
    case .deepSeek3: deepSeek3PieceEnd(in: text, from: start)
    case .deepSeekLLM: deepSeekLLMPieceEnd(in: text, from: start)
    }
  }
}

/// The rule of GPT-2; its alternatives in their order.
/// - Parameter splitsNumbers: whether text is cut around each number symbol first.
private func gpt2PieceEnd(
  in text: Span<UInt8>, from start: Int, splitsNumbers: Bool = false
) -> Int {
  if let end = contractionEnd(in: text, from: start, ignoringCase: false) { return end }
  let first = TextSymbol(in: text, at: start)
  var kind = first.kind
  if splitsNumbers, kind == .number { return start + first.byteCount }
  var runStart = start
  if first.scalar == " ", start + 1 < text.count {
    let second = TextSymbol(in: text, at: start + 1).kind
    if !second.isWhitespace, !(splitsNumbers && second == .number) {
      kind = second
      runStart = start + 1
    }
  }
  if kind.isWhitespace {
    return WhitespaceRun(in: text, from: start) { splitsNumbers && $0.kind == .number }.pieceEnd
  }
  return runEnd(of: kind, in: text, from: runStart)
}

/// The rule of OpenAI's cl100k with a limit to the digits in a piece; its alternatives in their
/// order.
/// - Parameter joinsMarks: whether marks are letters.
private func cl100kPieceEnd(
  in text: Span<UInt8>, from start: Int, digitLimit: Int, joinsMarks: Bool = false
) -> Int {
  if let end = contractionEnd(in: text, from: start, ignoringCase: true) { return end }
  func end(of kind: TextSymbol.Kind, from start: Int) -> Int {
    runEnd(of: kind, in: text, from: start, joinsMarks: joinsMarks)
  }
  let first = TextSymbol(in: text, at: start)
  let kindOfFirst = first.kind(joiningMarks: joinsMarks)
  let secondStart = start + first.byteCount
  let secondKind =
    secondStart < text.count
    ? TextSymbol(in: text, at: secondStart).kind(joiningMarks: joinsMarks) : nil
  switch kindOfFirst {
  case .letter:
    return end(of: .letter, from: start)
  case .number:
    return runEnd(of: .number, in: text, from: start, symbolLimit: digitLimit)
  case .space, .other:
    if secondKind == .letter { return end(of: .letter, from: secondStart) }
  case .lineBreak:
    break
  }
  if kindOfFirst == .other || (first.scalar == " " && secondKind == .other) {
    let symbols = end(of: .other, from: kindOfFirst == .other ? start : secondStart)
    return runEnd(of: .lineBreak, in: text, from: symbols)
  }
  let run = WhitespaceRun(in: text, from: start)
  return run.lastLineBreakEnd ?? run.pieceEnd
}

/// The end of `\p{Han}+` at `start`, or nil if it does not match there.
private func hanEnd(in text: Span<UInt8>, from start: Int) -> Int? {
  var end = start
  while end < text.count, text[end] >= 0x80 {
    let symbol = TextSymbol(in: text, at: end)
    guard symbol.isHan else { break }
    end += symbol.byteCount
  }
  return end > start ? end : nil
}

/// The rule of OpenAI's o200k; its alternatives in their order.
/// - Parameter withoutHan: whether words end before ideographs, and no slash follows symbols.
private func o200kPieceEnd(
  in text: Span<UInt8>, from start: Int, withoutHan: Bool = false
) -> Int {
  let first = TextSymbol(in: text, at: start)
  let (kind, next) = (first.kind, start + first.byteCount)
  // One symbol that is neither letter, number nor line break may come before a word, marks among them,
  // which may also begin one.
  let mayPrecede = kind == .space || kind == .other
  let after = mayPrecede ? WordEnds(in: text, from: next, withoutHan: withoutHan) : nil
  let own =
    after?.mixed == nil ? WordEnds(in: text, from: start, withoutHan: withoutHan) : nil
  let word = after?.mixed ?? own?.mixed ?? (after ?? own)?.capitals
  if let word { return contractionEnd(in: text, from: word, ignoringCase: true) ?? word }
  if kind == .number {
    return runEnd(of: .number, in: text, from: start, symbolLimit: 3)
  }
  let isSpaceBeforeOther =
    first.scalar == " " && next < text.count && TextSymbol(in: text, at: next).kind == .other
  if kind == .other || isSpaceBeforeOther {
    var end = runEnd(of: .other, in: text, from: kind == .other ? start : next)
    while end < text.count, mayFollowSymbols(text[end], slash: !withoutHan) { end += 1 }
    return end
  }
  let run = WhitespaceRun(in: text, from: start)
  return run.lastLineBreakEnd ?? run.pieceEnd
}

private func mayFollowSymbols(_ byte: UInt8, slash: Bool) -> Bool {
  byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n") || slash && byte == UInt8(ascii: "/")
}

/// Where words end that start at a given place.
private struct WordEnds {
  /// The end of `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`, or nil if it does not match.
  let mixed: Int?
  /// The end of `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+`, or nil if it does not match.
  let capitals: Int?

  init(in text: Span<UInt8>, from start: Int, withoutHan: Bool) {
    var end = start
    // Where the last symbol of the first class ends that is of the second too.
    var lastOfBoth: Int?
    while end < text.count {
      let symbol = TextSymbol(in: text, at: end)
      guard let wordCase = symbol.wordCase(withoutHan: withoutHan), wordCase != .lower else {
        break
      }
      end += symbol.byteCount
      if wordCase == .neither { lastOfBoth = end }
    }
    let capitalsEnd = end
    while end < text.count {
      let symbol = TextSymbol(in: text, at: end)
      guard let wordCase = symbol.wordCase(withoutHan: withoutHan), wordCase != .upper else {
        break
      }
      end += symbol.byteCount
    }
    mixed = end > capitalsEnd ? end : lastOfBoth
    capitals = capitalsEnd > start ? capitalsEnd : nil
  }
}

/// A run of white space that starts at a given place.
struct WhitespaceRun {
  /// Where `\s+(?!\S)|\s+` ends: the last symbol of a run that is followed by something else
  /// is left to what follows, unless it is all there is.
  let pieceEnd: Int
  /// Where `\s*[\r\n]+` ends.
  let lastLineBreakEnd: Int?

  /// - Parameter isCut: whether text is cut before a symbol, so that a run before it is all there is.
  init(
    in text: Span<UInt8>, from start: Int, isCut: (TextSymbol) -> Bool = { _ in false }
  ) {
    var end = start
    var isBeforeCut = false
    var lastSymbolStart = start
    var lineBreakEnd: Int?
    while end < text.count {
      let symbol = TextSymbol(in: text, at: end)
      let kind = symbol.kind
      guard kind.isWhitespace else {
        isBeforeCut = isCut(symbol)
        break
      }
      lastSymbolStart = end
      end += symbol.byteCount
      if kind == .lineBreak { lineBreakEnd = end }
    }
    let isLast = end == text.count || isBeforeCut
    pieceEnd = isLast || lastSymbolStart == start ? end : lastSymbolStart
    lastLineBreakEnd = lineBreakEnd
  }
}

/// The end of the longest run of at most `symbolLimit` symbols of `kind`; `start` if there is none.
func runEnd(
  of kind: TextSymbol.Kind, in text: Span<UInt8>, from start: Int, symbolLimit: Int = .max,
  joinsMarks: Bool = false
) -> Int {
  var end = start
  var symbolCount = 0
  while end < text.count, symbolCount < symbolLimit {
    let symbol = TextSymbol(in: text, at: end)
    guard symbol.kind(joiningMarks: joinsMarks) == kind else { break }
    end += symbol.byteCount
    symbolCount += 1
  }
  return end
}

/// The end of `'s|'t|'re|'ve|'m|'ll|'d` at `start`, or nil if it does not match there.
private func contractionEnd(
  in text: Span<UInt8>, from start: Int, ignoringCase: Bool
) -> Int? {
  guard start + 1 < text.count, text[start] == UInt8(ascii: "'") else { return nil }
  let first = TextSymbol(in: text, at: start + 1)
  let second = start + 2 < text.count ? asciiLetter(text[start + 2], ignoringCase) : 0
  // The long s is the one letter outside ASCII that folds to a letter of the contractions.
  if ignoringCase, first.scalar == "\u{17f}" { return start + 1 + first.byteCount }
  switch (asciiLetter(text[start + 1], ignoringCase), second) {
  case (UInt8(ascii: "s"), _), (UInt8(ascii: "t"), _), (UInt8(ascii: "m"), _),
    (UInt8(ascii: "d"), _):
    return start + 2
  case (UInt8(ascii: "r"), UInt8(ascii: "e")), (UInt8(ascii: "v"), UInt8(ascii: "e")),
    (UInt8(ascii: "l"), UInt8(ascii: "l")):
    return start + 3
  default:
    return nil
  }
}

/// `byte`, in lower case if it is an ASCII capital and case is to be ignored.
private func asciiLetter(_ byte: UInt8, _ ignoringCase: Bool) -> UInt8 {
  let isCapital = byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z")
  return ignoringCase && isCapital ? byte | 0x20 : byte
}

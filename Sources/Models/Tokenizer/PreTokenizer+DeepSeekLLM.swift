internal import Checkpoints

/// The classes of symbols of DeepSeek-V2's rule, which overlap: ASCII letters are of the second too.
private struct DeepSeekLLMClasses {
  /// Letters with case, by a list that the rule spells out.
  let isLetter: Bool
  /// ASCII from `!` on but digits, its full-width forms, quotation marks, and the first punctuation of Chinese.
  let isMark: Bool
  /// From U+0800 to the end of the ideographs, and Hangul.
  let isEastern: Bool
  let isSpace: Bool
  let isNumber: Bool
  let isLineBreak: Bool

  init(_ symbol: TextSymbol) {
    let value = symbol.scalar?.value ?? 0
    isLetter = Self.letters.contains(value)
    isMark = Self.marks.contains(value)
    isEastern = (0x800...0x9fa5).contains(value) || (0xac00...0xd7ff).contains(value)
    isSpace = symbol.kind == .space
    isNumber = symbol.kind == .number
    isLineBreak = symbol.kind == .lineBreak
  }

  private static let marks = ScalarRanges([
    0x21...0x2f, 0x3a...0x7e, 0x2018...0x201f, 0x3000...0x3002, 0xff01...0xff0f, 0xff1a...0xff5e,
  ])

  private static let letters = ScalarRanges(DeepSeekLetters.ranges)
}

/// Ascending ranges of scalars.
private struct ScalarRanges {
  private let ranges: [ClosedRange<UInt32>]

  init(_ ranges: [ClosedRange<UInt32>]) { self.ranges = ranges }

  func contains(_ value: UInt32) -> Bool {
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound < value { low = middle + 1 } else { high = middle }
    }
    return low < ranges.count && ranges[low].contains(value)
  }
}

/// The rule of DeepSeek-V2: line breaks are cut out, then words, then marks, then white space at the end of a
/// piece, then runs of eastern symbols, then each number, each of what the step before has left.
func deepSeekLLMPieceEnd(in text: Span<UInt8>, from start: Int) -> Int {
  typealias Place = (symbol: DeepSeekLLMClasses, next: Int)
  func place(_ offset: Int) -> Place? {
    guard offset < text.count else { return nil }
    let symbol = TextSymbol(in: text, at: offset)
    return (DeepSeekLLMClasses(symbol), offset + symbol.byteCount)
  }
  /// Whether `\s?[letters]+` matches.
  func beginsWord(_ offset: Int) -> Bool {
    guard let (symbol, next) = place(offset) else { return false }
    return symbol.isLetter || symbol.isSpace && place(next)?.symbol.isLetter == true
  }
  /// Whether a mark is there that is not the space before a word.
  func isAtMark(_ offset: Int) -> Bool {
    place(offset)?.symbol.isMark == true && !beginsWord(offset)
  }

  /// The end of the part of a word that marks, among them the letters of ASCII, make or leave.
  func wordEnd() -> Int {
    var end = start
    if let (first, next) = place(start), !first.isLetter {
      // The space before; one that is a mark itself is alone before letters that are none.
      end = next
      if first.isMark, place(next)?.symbol.isMark == false { return end }
    }
    let isMark = place(end)?.symbol.isMark
    while let (symbol, next) = place(end), symbol.isLetter, symbol.isMark == isMark { end = next }
    return end
  }

  /// The end of a run of marks, perhaps after a space, or of what is neither word nor mark; white space at its
  /// end is left to the next piece, unless it is all there is.
  func restEnd(isMarks: Bool) -> Int {
    var (end, visibleEnd) = (start, start)
    if isMarks, !isAtMark(start), let (_, next) = place(start) { end = next }
    while let (symbol, next) = place(end), !symbol.isLineBreak, !beginsWord(end),
      isAtMark(end) == isMarks, isMarks || !(symbol.isSpace && isAtMark(next))
    {
      end = next
      if !symbol.isSpace { visibleEnd = end }
    }
    return visibleEnd > start ? visibleEnd : end
  }

  guard let (first, second) = place(start) else { return start }
  if first.isLineBreak || first.isNumber { return second }
  let end =
    beginsWord(start)
    ? wordEnd() : restEnd(isMarks: isAtMark(start) || first.isSpace && isAtMark(second))
  // Eastern symbols and others do not share a piece, and numbers share none.
  var pieceEnd = second
  while pieceEnd < end, let (symbol, next) = place(pieceEnd), symbol.isEastern == first.isEastern,
    !symbol.isNumber
  {
    pieceEnd = next
  }
  return pieceEnd
}

internal import Checkpoints

/// The tokens of a vocabulary as the bytes they stand for, sorted by use.
struct TokenIndex {
  /// What each token decodes to.
  private(set) var tokens = StringTable()
  /// The tokens that text and merges are made of: normal ones, then user-defined ones.
  private(set) var table: TokenTable
  /// The tokens that are found in text only on request.
  private(set) var controlIDs: [Int32] = []
  /// The tokens that are always found in text, before it is split.
  private(set) var userDefinedIDs: [Int32] = []
  /// The tokens that merges may make.
  private(set) var normalIDs: [Int32] = []
  /// GGUF's byte tokens (`<0x41>`), for bytes that no normal token stands for.
  private var spelledByteIDs: [UInt8: Int32] = [:]

  /// Reads `tokens` of the given types, of which there are as many.
  ///
  /// - Parameter bytesOfNormal: the bytes that a normal token's text stands for; nil if it can be decoded
  ///   but no merge makes it.
  init(
    _ source: StringTable, types: [TokenType], bytesOfNormal: (Span<UInt8>) -> [UInt8]?
  ) {
    for index in 0..<source.count {
      let id = Int32(index)
      switch types[index] {
      case .normal:
        if let bytes = source.withSpan(at: index, bytesOfNormal) {
          tokens.append(bytes)
          normalIDs.append(id)
          continue
        }
      case .control, .unknown: controlIDs.append(id)
      case .userDefined: userDefinedIDs.append(id)
      case .byte:
        if let byte = spelledByte(source[index]) {
          tokens.append(CollectionOfOne(byte))
          spelledByteIDs[byte] = spelledByteIDs[byte] ?? id
          continue
        }
      case .unused: break
      }
      tokens.append(source[index])
    }
    table = TokenTable(strings: tokens, capacity: normalIDs.count + userDefinedIDs.count)
    for id in normalIDs { table.insert(id) }
    for id in userDefinedIDs { table.insert(id) }
  }

  /// The ids of the tokens of all single bytes.
  /// - Throws: `TokenizerError.missingByteToken`.
  func byteTokenIDs() throws(TokenizerError) -> [Int32] {
    var ids: [Int32] = []
    for byte in UInt8.min...UInt8.max {
      guard let id = table.id(of: [byte].span) ?? spelledByteIDs[byte] else {
        throw .missingByteToken(byte)
      }
      ids.append(id)
    }
    return ids
  }
}

/// The byte that a text such as `<0x0A>` spells.
private func spelledByte(_ text: ArraySlice<UInt8>) -> UInt8? {
  guard text.count == 6, text.starts(with: "<0x".utf8), text.last == UInt8(ascii: ">") else {
    return nil
  }
  return UInt8(String(decoding: text.dropFirst(3).dropLast(), as: UTF8.self), radix: 16)
}

/// The types of a vocabulary's tokens, once its counts and ids have been checked.
func tokenTypes(of vocabulary: TokenizerVocabulary) throws(TokenizerError) -> [TokenType] {
  let tokenCount = vocabulary.tokens.count
  guard tokenCount > 0, tokenCount <= Int(Int32.max) else {
    throw .unusableTokenCount(tokenCount)
  }
  for (role, id) in [("bos", vocabulary.bosID), ("eos", vocabulary.eosID)] {
    guard let id else { continue }
    guard id >= 0, Int(id) < tokenCount else {
      throw .specialTokenOutOfRange(role: role, id: id, tokenCount: tokenCount)
    }
  }
  guard !vocabulary.addBOS || vocabulary.bosID != nil else { throw .missingBeginningOfSequence }
  if let values = vocabulary.tokenTypes {
    guard values.count == tokenCount else {
      throw .tokenTypeCountMismatch(types: values.count, tokens: tokenCount)
    }
    // A type of a later GGUF is no ordinary text: it decodes to its text and is never produced.
    return values.map { TokenType(rawValue: $0) ?? .unused }
  }
  var types = Array(repeating: TokenType.normal, count: tokenCount)
  for case let id? in [vocabulary.bosID, vocabulary.eosID] { types[Int(id)] = .control }
  return types
}

/// Looks up the tokens that each merge joins and makes.
/// - Throws: `TokenizerError.malformedMerge`, `.unknownMergeToken`.
func mergeTable(
  _ merges: StringTable, table: TokenTable
) throws(TokenizerError) -> MergeTable {
  let alphabet = ByteAlphabet()
  var result = MergeTable(capacity: merges.count)
  for index in 0..<merges.count {
    let text = merges[index]
    let parts = text.split(
      separator: UInt8(ascii: " "), maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
      throw .malformedMerge(index: index, text: String(decoding: text, as: UTF8.self))
    }
    var ids: [Int32] = []
    for token in [parts[0], parts[1], parts[0] + parts[1]] {
      guard let bytes = alphabet.bytes(of: token.span), let id = table.id(of: bytes.span) else {
        throw .unknownMergeToken(index: index, token: String(decoding: token, as: UTF8.self))
      }
      ids.append(id)
    }
    result.insert(
      MergeTable.Merge(rank: UInt32(index), id: ids[2]), left: ids[0], right: ids[1])
  }
  return result
}

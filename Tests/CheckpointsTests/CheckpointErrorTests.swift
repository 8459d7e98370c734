import Tensors
import Testing

@testable import Checkpoints

@Suite struct CheckpointErrorTests {
  /// One of each case; the path comes first in all of them.
  static let all: [CheckpointError] = [
    .system(operation: "open it", path: "p", errno: 2), .notRegularFile(path: "p"),
    .insufficientSpace(path: "p", needed: 2, available: 1),
    .invalidMagic(path: "p", found: [1, 2, 3, 4]), .bigEndian(path: "p"),
    .unsupportedVersion(path: "p", found: 9),
    .truncated(path: "p", item: "the version", offset: 4, needed: 4, available: 1),
    .countExceedsFile(path: "p", item: "the tensor count", found: 9, available: 1),
    .countExceedsLimit(path: "p", item: "the tensor count", found: 9, limit: 1),
    .headerTooLarge(path: "p", item: "'k'", limit: 1),
    .invalidLength(path: "p", item: "metadata key 0", found: 0, minimum: 1, maximum: 9),
    .invalidUTF8(path: "p", item: "'k'"), .duplicateKey(path: "p", key: "k"),
    .unknownMetadataType(path: "p", key: "k", found: 99),
    .invalidBool(path: "p", key: "k", found: 2), .nestingTooDeep(path: "p", key: "k", limit: 4),
    .invalidAlignment(path: "p", found: 3), .duplicateTensor(path: "p", tensor: "t"),
    .unknownElementType(path: "p", tensor: "t", found: 99),
    .invalidDimensionCount(path: "p", tensor: "t", found: 5),
    .invalidDimension(path: "p", tensor: "t", axis: 1, found: 0),
    .tensorTooLarge(path: "p", tensor: "t", shape: [1]),
    .partialBlock(path: "p", tensor: "t", type: .q8_0, rowLength: 3),
    .misalignedTensor(path: "p", tensor: "t", offset: 1, alignment: 32),
    .tensorOutOfRange(path: "p", tensor: "t", offset: 0, byteCount: 9, fileByteCount: 1),
    .overlappingTensors(path: "p", first: "t", second: "u"),
    .differentCopy(path: "p", of: "q"), .uselessFolder(path: "p", file: "q"),
    .missingShard(path: "p", openedFrom: "o"), .checkpointTooLarge(path: "p"),
    .invalidSplitName(path: "p", expected: "-00001-of-00002.gguf"),
    .splitMismatch(path: "p", key: "split.no", found: 1, expected: 2),
    .conflictingMetadata(path: "p", key: "k", firstPath: "o"),
    .missingKey(path: "p", key: "k", expected: "integer"),
    .wrongType(path: "p", key: "k", found: "string", expected: "integer"),
    .invalidValue(path: "p", key: "k", found: "0", expected: "1 to 2"),
    .unsupportedArchitecture(path: "p", found: "llama", supported: ["olmoe"]),
    .missingTensor(path: "p", tensor: "t"), .unsupportedTensor(path: "p", tensor: "t"),
    .wrongShape(path: "p", tensor: "t", found: [1], expected: [2]),
    .unsupportedElementType(path: "p", tensor: "t", found: .q2_K, supported: [.f32]),
    .wrongDataSize(path: "p", tensor: "t", found: 1, expected: 2),
    .excessData(path: "p", byteCount: 1),
  ]

  @Test(arguments: all)
  func everyErrorIsASentenceThatNamesItsFile(error: CheckpointError) {
    #expect(error.description.contains("'p'"))
    #expect(!error.description.contains("CheckpointError"))
  }

  @Test func errorsNameWhatWasFoundAndExpected() {
    #expect(
      CheckpointError.wrongShape(path: "m.gguf", tensor: "t", found: [1, 2], expected: [2, 1])
        .description == "'m.gguf': tensor 't' has shape [1, 2], expected [2, 1]")
    #expect(
      CheckpointError.system(operation: "open it", path: "m.gguf", errno: 2).description
        == "'m.gguf': cannot open it: No such file or directory (errno 2)")
  }
}

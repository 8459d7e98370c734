internal import Glibc
package import Tensors

/// Why a checkpoint cannot be read, understood or written.
package enum CheckpointError: Error, Hashable, Sendable {
  // MARK: Files

  /// A system call failed; `errno` is its code.
  case system(operation: String, path: String, errno: Int32)
  /// A directory, device or pipe.
  case notRegularFile(path: String)
  /// The file system has not the bytes that the file needs.
  case insufficientSpace(path: String, needed: UInt64, available: UInt64)

  // MARK: The header of a GGUF file

  /// The first four bytes are not 'GGUF'.
  case invalidMagic(path: String, found: [UInt8])
  /// A GGUF file in the other byte order.
  case bigEndian(path: String)
  /// A GGUF version other than 2 and 3.
  case unsupportedVersion(path: String, found: UInt32)
  /// The file ends inside `item`, which begins at byte `offset`.
  case truncated(path: String, item: String, offset: UInt64, needed: UInt64, available: UInt64)
  /// A count or length that the rest of the file cannot hold.
  case countExceedsFile(path: String, item: String, found: UInt64, available: UInt64)
  /// A count beyond `GGUFLimits`.
  case countExceedsLimit(path: String, item: String, found: UInt64, limit: UInt64)
  /// The header goes beyond `GGUFLimits.headerByteCount` bytes in `item`.
  case headerTooLarge(path: String, item: String, limit: UInt64)
  /// A name of no bytes, or of too many.
  case invalidLength(path: String, item: String, found: UInt64, minimum: Int, maximum: Int)
  /// Text that is not UTF-8.
  case invalidUTF8(path: String, item: String)
  /// A metadata key that occurs twice.
  case duplicateKey(path: String, key: String)
  /// A value type that GGUF does not have.
  case unknownMetadataType(path: String, key: String, found: UInt32)
  /// A bool that is neither 0 nor 1.
  case invalidBool(path: String, key: String, found: UInt8)
  /// Arrays in arrays beyond `GGUFLimits.nestingDepth`.
  case nestingTooDeep(path: String, key: String, limit: Int)
  /// An alignment that is no power of two, or too small or large.
  case invalidAlignment(path: String, found: UInt64)

  // MARK: Tensors of a GGUF file

  /// A tensor name that occurs twice, in one file or in two of a split.
  case duplicateTensor(path: String, tensor: String)
  /// A tensor type that ggml does not have, or has retired.
  case unknownElementType(path: String, tensor: String, found: UInt32)
  /// No dimensions, or more than four.
  case invalidDimensionCount(path: String, tensor: String, found: UInt32)
  /// A dimension of zero or beyond what a process can address.
  case invalidDimension(path: String, tensor: String, axis: Int, found: UInt64)
  /// A size beyond what a process can address.
  case tensorTooLarge(path: String, tensor: String, shape: [Int])
  /// Rows that are not whole blocks of the type.
  case partialBlock(path: String, tensor: String, type: ElementType, rowLength: Int)
  /// An offset, from the beginning of the data, that breaks the alignment.
  case misalignedTensor(path: String, tensor: String, offset: UInt64, alignment: UInt64)
  /// A tensor that ends beyond the file.
  case tensorOutOfRange(
    path: String, tensor: String, offset: UInt64, byteCount: Int, fileByteCount: UInt64)
  /// Two tensors that share bytes.
  case overlappingTensors(path: String, first: String, second: String)

  // MARK: Folders

  /// A file that is no JSON, or not the JSON that is expected.
  case invalidJSON(path: String, reason: String)

  // MARK: Split checkpoints

  /// A file of a split checkpoint is not there.
  case missingShard(path: String, openedFrom: String)
  /// Files that together exceed `Int`, which only sparse ones can.
  case checkpointTooLarge(path: String)
  /// A file in another folder that has the name of one of the checkpoint's and is another one.
  case differentCopy(path: String, of: String)
  /// A folder that has no file of the checkpoint.
  case uselessFolder(path: String, file: String)
  /// A file's name contradicts the place in the split that its metadata states.
  case invalidSplitName(path: String, expected: String)
  /// Files that do not belong to the same split.
  case splitMismatch(path: String, key: String, found: Int, expected: Int)
  /// A key with different values in two files of a split.
  case conflictingMetadata(path: String, key: String, firstPath: String)

  // MARK: Metadata and model

  /// A metadata key that is needed.
  case missingKey(path: String, key: String, expected: String)
  /// A metadata value of another type than the key has.
  case wrongType(path: String, key: String, found: String, expected: String)
  /// A metadata value that makes no sense or is not supported.
  case invalidValue(path: String, key: String, found: String, expected: String)
  /// A model that cannot be run.
  case unsupportedArchitecture(path: String, found: String, supported: [String])
  /// A tensor that the model needs.
  case missingTensor(path: String, tensor: String)
  /// A tensor that the model is not known to have.
  case unsupportedTensor(path: String, tensor: String)
  /// A tensor whose shape contradicts the model's numbers.
  case wrongShape(path: String, tensor: String, found: [Int], expected: [Int])
  /// A tensor stored in a type that cannot be computed in its place.
  case unsupportedElementType(
    path: String, tensor: String, found: ElementType, supported: [ElementType])

  // MARK: Writing

  /// More data than the tensor has, or the file finished before all of it.
  case wrongDataSize(path: String, tensor: String, found: Int, expected: Int)
  /// Data appended after that of the last tensor.
  case excessData(path: String, byteCount: Int)
}

extension CheckpointError: CustomStringConvertible {
  /// A sentence that names the file, what was found and what was expected.
  package var description: String {
    fileDescription ?? headerDescription ?? tensorDescription ?? modelDescription
  }

  private var fileDescription: String? {
    switch self {
    case .system(let operation, let path, let code):
      "'\(path)': cannot \(operation): \(String(cString: strerror(code))) (errno \(code))"
    case .notRegularFile(let path):
      "'\(path)' is not a regular file"
    case .insufficientSpace(let path, let needed, let available):
      "'\(path)' needs \(needed) bytes, but its file system has only \(available) bytes free"
    case .invalidJSON(let path, let reason):
      "'\(path)' is not the JSON that is expected: \(reason)"
    case .missingShard(let path, let origin):
      "'\(path)' is missing; the split checkpoint opened as '\(origin)' needs it"
    case .differentCopy(let path, let other):
      "'\(path)' has the name of '\(other)' but is another file; give a folder with copies of the model's own"
    case .uselessFolder(let path, let file):
      "'\(path)' has none of the model's files, such as '\(file)'"
    case .checkpointTooLarge(let path):
      "the files of '\(path)' together exceed \(Int.max) bytes"
    case .invalidSplitName(let path, let expected):
      "'\(path)' is part of a split checkpoint, so its name must end in '\(expected)'"
    case .splitMismatch(let path, let key, let found, let expected):
      "'\(path)': '\(key)' is \(found), expected \(expected)"
    case .conflictingMetadata(let path, let key, let first):
      "'\(path)': '\(key)' differs from its value in '\(first)' of the same checkpoint"
    case .wrongDataSize(let path, let tensor, let found, let expected):
      "'\(path)': tensor '\(tensor)' was given \(found) bytes of data, expected \(expected)"
    case .excessData(let path, let byteCount):
      "'\(path)': \(byteCount) bytes of data after the last tensor, expected none"
    default: nil
    }
  }

  private var headerDescription: String? {
    switch self {
    case .invalidMagic(let path, let found):
      "'\(path)' is not a GGUF file: it begins with bytes \(found), expected "
        + "\(GGUFFormat.magic) ('GGUF')"
    case .bigEndian(let path):
      "'\(path)' is a big-endian GGUF file, expected little-endian"
    case .unsupportedVersion(let path, let found):
      "'\(path)' is of GGUF version \(found), expected 2 or 3"
    case .truncated(let path, let item, let offset, let needed, let available):
      "'\(path)' is truncated: \(item) at byte \(offset) needs \(needed) bytes, but the file has "
        + "\(available) more"
    case .countExceedsFile(let path, let item, let found, let available):
      "'\(path)': \(item) is \(found), which cannot fit in the \(available) bytes left of the file"
    case .countExceedsLimit(let path, let item, let found, let limit):
      "'\(path)': \(item) is \(found), expected at most \(limit)"
    case .headerTooLarge(let path, let item, let limit):
      "'\(path)': the header reaches past \(limit) bytes in \(item), the most that is accepted"
    case .invalidLength(let path, let item, let found, let minimum, let maximum):
      "'\(path)': \(item) has \(found) bytes, expected \(minimum) to \(maximum)"
    case .invalidUTF8(let path, let item):
      "'\(path)': \(item) is not valid UTF-8"
    case .duplicateKey(let path, let key):
      "'\(path)': metadata key '\(key)' occurs twice, expected once"
    case .unknownMetadataType(let path, let key, let found):
      "'\(path)': '\(key)' has the unknown value type \(found), expected 0 to 12"
    case .invalidBool(let path, let key, let found):
      "'\(path)': '\(key)' holds a bool stored as \(found), expected 0 or 1"
    case .nestingTooDeep(let path, let key, let limit):
      "'\(path)': '\(key)' nests arrays deeper than \(limit) levels, the most that is accepted"
    case .invalidAlignment(let path, let found):
      "'\(path)': '\(GGUFFormat.alignmentKey)' is \(found), expected a power of two from "
        + "\(GGUFLimits.minimumAlignment) to \(GGUFLimits.maximumAlignment)"
    default: nil
    }
  }

  private var tensorDescription: String? {
    switch self {
    case .duplicateTensor(let path, let tensor):
      "'\(path)': tensor '\(tensor)' occurs twice, expected once"
    case .unknownElementType(let path, let tensor, let found):
      "'\(path)': tensor '\(tensor)' has the unknown element type \(found)"
    case .invalidDimensionCount(let path, let tensor, let found):
      "'\(path)': tensor '\(tensor)' has \(found) dimensions, expected 1 to "
        + "\(GGUFLimits.maximumDimensionCount)"
    case .invalidDimension(let path, let tensor, let axis, let found):
      "'\(path)': dimension \(axis) of tensor '\(tensor)' is \(found), expected 1 to \(Int.max)"
    case .tensorTooLarge(let path, let tensor, let shape):
      "'\(path)': tensor '\(tensor)' of shape \(shape) exceeds \(Int.max) bytes"
    case .partialBlock(let path, let tensor, let type, let rowLength):
      "'\(path)': rows of tensor '\(tensor)' have \(rowLength) values, expected a multiple of "
        + "\(type.blockSize), the block of \(type.name)"
    case .misalignedTensor(let path, let tensor, let offset, let alignment):
      "'\(path)': tensor '\(tensor)' is at offset \(offset), expected a multiple of \(alignment)"
    case .tensorOutOfRange(let path, let tensor, let offset, let byteCount, let fileByteCount):
      "'\(path)': tensor '\(tensor)' takes \(byteCount) bytes from offset \(offset) of the data, "
        + "beyond the \(fileByteCount) bytes of the file"
    case .overlappingTensors(let path, let first, let second):
      "'\(path)': tensors '\(first)' and '\(second)' overlap"
    default: nil
    }
  }

  private var modelDescription: String {
    switch self {
    case .missingKey(let path, let key, let expected):
      "'\(path)': metadata key '\(key)' is missing, expected \(expected)"
    case .wrongType(let path, let key, let found, let expected):
      "'\(path)': '\(key)' is of type \(found), expected \(expected)"
    case .invalidValue(let path, let key, let found, let expected):
      "'\(path)': '\(key)' is \(found), expected \(expected)"
    case .unsupportedArchitecture(let path, let found, let supported):
      "'\(path)' has architecture '\(found)', which is not supported; supported are "
        + supported.joined(separator: ", ")
    case .missingTensor(let path, let tensor):
      "'\(path)': tensor '\(tensor)' is missing"
    case .unsupportedTensor(let path, let tensor):
      "'\(path)': tensor '\(tensor)' is not supported, and the model would be wrong without it"
    case .wrongShape(let path, let tensor, let found, let expected):
      "'\(path)': tensor '\(tensor)' has shape \(found), expected \(expected)"
    case .unsupportedElementType(let path, let tensor, let found, let supported):
      "'\(path)': tensor '\(tensor)' is stored as \(found.name), expected one of "
        + supported.map(\.name).joined(separator: ", ")
    // Named one by one, so that a new case does not compile without its sentence.
    case .system, .notRegularFile, .insufficientSpace, .invalidJSON, .missingShard, .differentCopy,
      .uselessFolder,
      .checkpointTooLarge,
      .invalidSplitName, .splitMismatch, .conflictingMetadata, .wrongDataSize, .excessData,
      .invalidMagic, .bigEndian, .unsupportedVersion, .truncated, .countExceedsFile,
      .countExceedsLimit, .headerTooLarge, .invalidLength, .invalidUTF8, .duplicateKey,
      .unknownMetadataType, .invalidBool, .nestingTooDeep, .invalidAlignment, .duplicateTensor,
      .unknownElementType, .invalidDimensionCount, .invalidDimension, .tensorTooLarge,
      .partialBlock, .misalignedTensor, .tensorOutOfRange, .overlappingTensors:
      preconditionFailure("the sentence of this case belongs in one of the properties above")
    }
  }
}

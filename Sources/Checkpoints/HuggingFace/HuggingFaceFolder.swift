internal import FoundationEssentials

/// A folder as Hugging Face's hub has it: `config.json`, `tokenizer.json`, perhaps `generation_config.json`, and
/// safetensors files, one or, with `model.safetensors.index.json`, several.
enum HuggingFaceFolder {
  private static let index = "model.safetensors.index.json"
  private static let single = "model.safetensors"

  /// The folder that `path` is or is a file of; nil if it is neither.
  static func folder(of path: String) -> String? {
    // Through links too, as the hub's cache has them.
    var isFolder = false
    if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder), isFolder {
      return path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path
    }
    guard path.hasSuffix(".safetensors") || path.hasSuffix("/\(index)") else { return nil }
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// - Throws: `CheckpointError` naming the file that is missing or not as it should be.
  static func open(
    _ folder: String, others: CheckpointFolders
  ) throws(CheckpointError) -> Checkpoint {
    // Of a model that sees too, the part that reads.
    let config = try JSONFile("\(folder)/config.json").flattened("text_config")
    let name = folder.split(separator: "/").last.map(String.init) ?? folder
    let description = try HuggingFaceConfig(config, name: name)
    let headers = try headers(folder, others: others)
    let tensors = try HuggingFaceTensors(headers, config: description)
    let generationPath = "\(folder)/generation_config.json"
    let generation =
      FileManager.default.fileExists(atPath: generationPath) ? try JSONFile(generationPath) : nil
    return try Checkpoint(
      path: folder, headers: headers, tensors: tensors,
      metadata: description.metadata.merging(
        tokenizer(folder, config: config, generation: generation)
      ) { own, _ in own })
  }

  /// The tokenizer, of `tokenizer.json` or, where there is none, of `tiktoken.model`.
  private static func tokenizer(
    _ folder: String, config: JSONFile, generation: JSONFile?
  ) throws(CheckpointError) -> [String: MetadataValue] {
    let path = "\(folder)/tokenizer.json"
    let other = "\(folder)/\(TiktokenVocabulary.fileName)"
    let size = try config.integer("vocab_size")
    let files = FileManager.default
    guard !files.fileExists(atPath: path), files.fileExists(atPath: other) else {
      return try HuggingFaceTokenizer(
        path: path, vocabularySize: size, config: config, generation: generation
      ).metadata
    }
    return try TiktokenVocabulary(
      path: other, configPath: "\(folder)/tokenizer_config.json", vocabularySize: size
    ).metadata.merging(
      HuggingFaceTokenizer.specialTokens(config: config, generation: generation)
    ) { $1 }
  }

  private struct Index: Decodable {
    let weightMap: [String: String]

    private enum CodingKeys: String, CodingKey { case weightMap = "weight_map" }
  }

  private static func headers(
    _ folder: String, others: CheckpointFolders
  ) throws(CheckpointError) -> [SafetensorsHeader] {
    let indexPath = "\(folder)/\(index)"
    guard FileManager.default.fileExists(atPath: indexPath) else {
      return [try SafetensorsHeader(path: "\(folder)/\(single)", file: 0)]
    }
    let map = try JSONFile.decode(Index.self, path: indexPath).weightMap
    let names = Set(map.values).sorted()
    guard !names.isEmpty, names.count <= 65_535 else {
      throw .invalidValue(
        path: indexPath, key: "weight_map", found: "of \(names.count) files", expected: "1 to 65535"
      )
    }
    var headers: [SafetensorsHeader] = []
    var found: [String: String] = [:]
    for (number, name) in names.enumerated() {
      guard !name.contains("/"), name.hasSuffix(".safetensors") else {
        throw .invalidValue(
          path: indexPath, key: "weight_map", found: "'\(name)'",
          expected: "the name of a .safetensors file beside it")
      }
      var path = "\(folder)/\(name)"
      if !FileManager.default.fileExists(atPath: path) {
        guard let found = others.find(path) else {
          throw .missingShard(path: path, openedFrom: indexPath)
        }
        path = found
      }
      let header = try SafetensorsHeader(path: path, file: number)
      for tensor in header.tensors {
        guard found.updateValue(name, forKey: tensor.name) == nil else {
          throw .duplicateTensor(path: path, tensor: tensor.name)
        }
      }
      headers.append(header)
    }
    // In the order of names, so that it is always the same one that is missed.
    for (tensor, name) in map.sorted(by: { $0.key < $1.key }) where found[tensor] != name {
      throw .missingTensor(path: "\(folder)/\(name)", tensor: tensor)
    }
    return headers
  }
}

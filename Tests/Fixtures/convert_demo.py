#!/usr/bin/env python3
"""Converts a Hugging Face Qwen3-MoE checkpoint folder (the demo model) to an F32 GGUF file.

    convert_demo.py HF_DIR OUT.gguf [--compare OTHER.gguf]

Needs only: pip install gguf numpy. safetensors' own numpy reader refuses BF16, so the container
(8-byte little-endian header length, JSON header, raw tensors) is read here by hand.
`--compare` fails unless the metadata equals OTHER's; only general.file_type may differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, TokenType

import gguf_model
from gguf_model import Names, Vocabulary

# A bare GPT-2 ByteLevel split is what llama.cpp calls the pre-tokenizer "gpt-2".
GPT2_PRE_TOKENIZER = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


class SafetensorsFolder:
    """All tensors of a folder's *.safetensors files, read as float32 on demand."""

    def __init__(self, folder: Path) -> None:
        self.entries: dict[str, tuple[np.memmap, dict]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            raw = np.memmap(path, dtype=np.uint8, mode="r")
            header_size = int.from_bytes(raw[:8].tobytes(), "little")
            header = json.loads(raw[8 : 8 + header_size].tobytes())
            header.pop("__metadata__", None)
            payload = raw[8 + header_size :]
            self.entries.update({name: (payload, entry) for name, entry in header.items()})
        if not self.entries:
            raise FileNotFoundError(f"{folder} holds no *.safetensors file")
        self.unread = set(self.entries)

    def tensor(self, name: str) -> np.ndarray:
        """The named tensor as float32, in its stored shape."""
        payload, entry = self.entries[name]
        self.unread.discard(name)
        begin, end = entry["data_offsets"]
        data = payload[begin:end].tobytes()
        if entry["dtype"] == "BF16":
            # BF16 is the upper half of a float32.
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] in ("F32", "F16"):
            values = np.frombuffer(data, "<f4" if entry["dtype"] == "F32" else "<f2")
        else:
            raise ValueError(f"{name} has type {entry['dtype']}, expected BF16, F16 or F32")
        return values.astype(np.float32).reshape(entry["shape"])


def read_vocabulary(folder: Path, config: dict) -> Vocabulary:
    """Tokens, types and merges of tokenizer.json, padded to the model's vocabulary size."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    model, pre = tokenizer["model"], tokenizer["pre_tokenizer"]
    if model["type"] != "BPE" or any(pre.get(k) != v for k, v in GPT2_PRE_TOKENIZER.items()):
        raise ValueError(f"{folder}: expected a BPE tokenizer with GPT-2's pre-tokenizer")

    ids = dict(model["vocab"])
    added = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    ids.update({content: entry["id"] for content, entry in added.items()})
    by_id = {token: content for content, token in ids.items()}
    tokens, types = [], []
    for token in range(config["vocab_size"]):
        content = by_id.get(token, f"[PAD{token}]")
        tokens.append(content)
        if token not in by_id:
            types.append(TokenType.UNUSED)
        elif content in added:
            special = added[content]["special"]
            types.append(TokenType.CONTROL if special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL)
    # Older tokenizer.json files hold "a b" strings, newer ones ["a", "b"] pairs.
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]

    special_ids = {}
    for kind, key in (("eos", "eos_token"), ("padding", "pad_token"), ("bos", "bos_token")):
        if settings.get(key) is not None:
            special_ids[kind] = ids[settings[key]]
        elif config.get(f"{kind}_token_id") is not None:
            special_ids[kind] = config[f"{kind}_token_id"]
    return Vocabulary("gpt-2", tokens, types, merges, special_ids)


def size_label(folder: SafetensorsFolder, config: dict) -> str:
    """llama.cpp's label of an MoE model: expert count x parameters outside the unused experts."""
    count = {name: int(np.prod(entry["shape"])) for name, (_, entry) in folder.entries.items()}
    expert = sum(n for name, n in count.items() if ".experts." in name)
    experts = gguf_model.expert_count(config)
    parameters = sum(count.values()) - expert + expert / experts
    return f"{experts}x{parameters / 1e6:.1f}M"


def differences(path: Path, other: Path) -> list[str]:
    """Sentences on every metadata key that is not the same in both files; file_type is exempt."""
    ours, theirs = GGUFReader(path).fields, GGUFReader(other).fields
    found = []
    for key in sorted(set(ours) | set(theirs)):
        if key not in ours or key not in theirs:
            found.append(f"{key} is only in {path if key in ours else other}")
        elif ours[key].types != theirs[key].types:
            found.append(f"{key} has type {ours[key].types}, {other} has {theirs[key].types}")
        elif key != "general.file_type" and ours[key].contents() != theirs[key].contents():
            found.append(f"{key} has another value than in {other}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", type=Path, metavar="OTHER.gguf")
    arguments = parser.parse_args()

    config = json.loads((arguments.hf_dir / "config.json").read_text(encoding="utf-8"))
    folder = SafetensorsFolder(arguments.hf_dir)
    gguf_model.write_gguf(
        arguments.out,
        config,
        lambda name: folder.tensor(name) if name in folder.entries else None,
        read_vocabulary(arguments.hf_dir, config),
        Names("Demo Model", size_label(folder, config)),
    )
    if folder.unread:
        some = sorted(folder.unread)[:3]
        raise ValueError(f"{len(folder.unread)} tensors were not converted, such as {some}")
    gguf_model.verify(arguments.out)
    if arguments.compare is not None:
        found = differences(arguments.out, arguments.compare)
        print("\n".join(found) or f"metadata equals that of {arguments.compare}")
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

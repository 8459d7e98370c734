#!/usr/bin/env python3
"""Compares a fixture with llama.cpp: logits of its prompts, greedy tokens, and tokenized texts.

    check_with_llama_cpp.py MODEL.gguf REFERENCE.json LOGITS.f32 [LOGITS.f32 ...]
    check_with_llama_cpp.py --record

Takes the tiny models' NAME.json as well as the demo model's reference.json. Needs llama-cpp-python
and numpy. A cross-check for whoever remakes the fixtures; no test runs it. `--record` does so for every tiny
model that llama.cpp can judge and writes what it found to llama-cpp.json, from which ORACLES.md is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

MAX_LOGIT_DIFFERENCE = 2e-4  # about 2e-5 is seen, with keys and values cached in F32
GGML_TYPE_F32 = 0


# Why llama.cpp cannot judge a fixture.
NOT_JUDGED = {
    "tiny-olmoe": "it wants ungrouped heads",
    "tiny-olmoe-clip": "it ignores the clamp",
    "tiny-gpt-oss": "it rounds YaRN's ramp",
    "tiny-gpt-oss-mxfp4": "it rounds YaRN's ramp",
    "tiny-deepseek2-lite": "it wants 27 layers",
    "tiny-phimoe": "it weighs experts by a softmax over all",
    "tiny-deepseek2": "it scores groups as V3 does",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("reference", type=Path, nargs="?")
    parser.add_argument("logits", type=Path, nargs="*")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.record:
        return record(Path(__file__).parent)
    if not arguments.logits:
        parser.error("a model, its reference and its logits are needed")
    worst, faults, texts = compare(arguments.model, arguments.reference, arguments.logits)
    print(f"{arguments.model.name}: largest logit difference {worst:.2g}, {texts} texts")
    print("\n".join(faults) or "agrees with llama.cpp")
    return 1 if faults else 0


def record(folder: Path) -> int:
    """Judges every tiny model and writes llama-cpp.json."""
    found = {}
    for model in sorted(folder.glob("tiny-*.gguf")):
        name = model.stem
        if name in NOT_JUDGED:
            found[name] = NOT_JUDGED[name]
            continue
        files = (folder / f"{name}.json", [folder / f"{name}.logits.f32"])
        worst, faults, _ = compare(model, *files)
        found[name] = "differs" if faults else "agrees"
        print(f"{name}: {worst:.2g} {' '.join(faults)}", flush=True)
    text = json.dumps(found, indent=1) + "\n"
    (folder / "llama-cpp.json").write_text(text, encoding="utf-8")
    return 1 if "differs" in found.values() else 0


def compare(model_path: Path, reference_path: Path, logits: list[Path]) -> tuple[float, list[str], int]:
    """The largest difference of a logit, what is wrong, and the number of texts."""
    reference = json.loads(reference_path.read_text(encoding="utf-8"))
    texts = reference["texts"] if isinstance(reference, dict) else []
    prompts = reference["prompts"] if isinstance(reference, dict) else reference
    if not texts:
        texts = [{"text": p["prompt"], "ids": p["ids"]} for p in prompts]

    model = llama_cpp.Llama(
        str(model_path), n_ctx=256, n_threads=2, n_threads_batch=2, logits_all=True,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, flash_attn=False, verbose=False,
    )  # fmt: skip
    expected = np.concatenate([np.fromfile(path, "<f4") for path in logits])
    expected = expected.reshape(-1, model.n_vocab())
    faults, first_row, worst = [], 0, 0.0
    for prompt in prompts:
        count = len(prompt["ids"])
        model.reset()
        model.eval(prompt["ids"])
        found = model.scores[:count]
        worst = max(worst, float(np.abs(found - expected[first_row : first_row + count]).max()))
        first_row += count
        sequence = list(prompt["ids"])
        while len(sequence) < len(prompt["greedy_ids"]):
            sequence.append(int(model.scores[len(sequence) - 1].argmax()))
            model.eval(sequence[-1:])
        if sequence != prompt["greedy_ids"]:
            faults.append(f"greedy tokens of the {count}-token prompt differ")
    if first_row != len(expected):
        faults.append(f"the logits files hold {len(expected)} rows, the prompts {first_row} tokens")
    if worst > MAX_LOGIT_DIFFERENCE:
        faults.append(f"logits differ by {worst:.2g}, more than {MAX_LOGIT_DIFFERENCE:.2g}")
    for case in texts:
        ids = model.tokenize(case["text"].encode(), add_bos=False, special=True)
        if ids != case["ids"]:
            faults.append(f"{case['text']!r} gives tokens {ids}, expected {case['ids']}")
    return worst, faults, len(texts)


if __name__ == "__main__":
    sys.exit(main())

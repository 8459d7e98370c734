#!/usr/bin/env python3
"""Compares a fixture with llama.cpp: logits of its prompts, greedy tokens, and tokenized texts.

    check_with_llama_cpp.py MODEL.gguf REFERENCE.json LOGITS.f32 [LOGITS.f32 ...]

Takes the tiny models' NAME.json as well as the demo model's reference.json. Needs llama-cpp-python
and numpy. A cross-check for whoever remakes the fixtures; no test runs it.
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("logits", type=Path, nargs="+")
    arguments = parser.parse_args()
    reference = json.loads(arguments.reference.read_text(encoding="utf-8"))
    texts = reference["texts"] if isinstance(reference, dict) else []
    prompts = reference["prompts"] if isinstance(reference, dict) else reference
    if not texts:
        texts = [{"text": p["prompt"], "ids": p["ids"]} for p in prompts]

    model = llama_cpp.Llama(
        str(arguments.model), n_ctx=256, n_threads=2, n_threads_batch=2, logits_all=True,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, flash_attn=False, verbose=False,
    )  # fmt: skip
    expected = np.concatenate([np.fromfile(path, "<f4") for path in arguments.logits])
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
    print(f"{arguments.model.name}: largest logit difference {worst:.2g}, {len(texts)} texts")
    print("\n".join(faults) or "agrees with llama.cpp")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Logits at positions far beyond those of the other fixtures, by Hugging Face transformers.

    make_long_prompts.py

Writes long-prompts.json: for some of the tiny checkpoints of make_tiny_models.py the ids of a prompt of 250 tokens
and the logits after the last tokens. Their YaRN goes four times as far as the 64 positions it begins from, and
windows are passed many times.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import make_tiny_models as tiny
import tiny_vocabulary

MODELS = (
    "tiny-mixtral", "tiny-granitemoe", "tiny-glm4moe", "tiny-gpt-oss", "tiny-deepseek3",
    "tiny-phimoe", "tiny-qwen3next", "tiny-qwen35moe",
)
LENGTH = 250
LAST = 4


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(2)
    entries = {}
    for name in MODELS:
        model = tiny.MODELS[name]
        network = tiny.build(model, model.seed)
        random = np.random.default_rng([model.seed, 2])
        ids = random.integers(0, tiny_vocabulary.FIRST_CONTROL, LENGTH).tolist()
        logits = network(torch.tensor([ids]), use_cache=False).logits[0, -LAST:]
        rows = [[round(value, 6) for value in row] for row in logits.tolist()]
        entries[name] = {"ids": ids, "logits": rows}
        print(name, f"{logits.min():.2f} ... {logits.max():.2f}")
    text = json.dumps(entries, separators=(",", ":"))
    (Path(__file__).parent / "long-prompts.json").write_text(text + "\n")


main()

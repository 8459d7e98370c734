#!/usr/bin/env python3
"""Writes rope.json: the frequencies and cosine factors that transformers computes for rotary position
embedding, plain and scaled. Run with transformers 5 and torch: make_rope_fixture.py"""
import json
import pathlib

from transformers import Qwen3MoeConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

CASES = [
    {"head_dim": 64, "rope_theta": 1e4, "rope_type": "linear", "factor": 4.0},
    {"head_dim": 128, "rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0,
     "original_max_position_embeddings": 32768},
    {"head_dim": 64, "rope_theta": 1e4, "rope_type": "yarn", "factor": 8.0,
     "original_max_position_embeddings": 1024},
    {"head_dim": 32, "rope_theta": 5e5, "rope_type": "yarn", "factor": 2.5,
     "original_max_position_embeddings": 4096},
    {"head_dim": 64, "rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0,
     "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
] + [
    {"head_dim": 16, "rope_theta": 1e4, "rope_type": "longrope", "factor": 32.0,
     "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.1, 2.6],
     "long_factor": [1.0, 1.1, 1.3, 1.7, 2.5, 4.1, 7.3, 13.7],
     "original_max_position_embeddings": 4096, "context": context}
    for context in (4096, 4097)
]


def main():
    out = []
    for case in CASES:
        rope = {key: value for key, value in case.items() if key not in ("head_dim", "context")}
        original = case.get("original_max_position_embeddings", 4096)
        config = Qwen3MoeConfig(
            hidden_size=4 * case["head_dim"], num_attention_heads=4, head_dim=case["head_dim"],
            max_position_embeddings=int(original * case["factor"]), rope_parameters=rope)
        frequencies, magnitude = ROPE_INIT_FUNCTIONS[case["rope_type"]](
            config, device="cpu", seq_len=case.get("context"))
        out.append({**case, "frequencies": frequencies.tolist(), "magnitude": float(magnitude)})
    path = pathlib.Path(__file__).with_name("rope.json")
    path.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()

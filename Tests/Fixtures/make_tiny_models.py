#!/usr/bin/env python3
"""Makes the tiny random MoE checkpoints and what Hugging Face transformers computes with them.

    make_tiny_models.py [--out DIR] [--find-seeds] [NAME ...]

For each model NAME: NAME.gguf (F32), NAME.json (prompts, greedy continuations, routing),
NAME.logits.f32 and, for one of each architecture, the folder NAME as transformers saves it. Needs torch, transformers, tokenizers, gguf, numpy. `--find-seeds` prints the first
seed of each model whose decisions all have clear margins, instead of writing anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

import gguf_model
import tiny_vocabulary

PROMPT_LENGTHS = (1, 7, 40)
GREEDY_COUNT = 32
# Two correct float32 implementations differ by about 1e-5 here; every decision is clearer by far.
MIN_GREEDY_GAP = 3e-3  # top-1 minus top-2 logit of a greedy step
MIN_ROUTER_GAP = 1e-4  # between neighbours among the top k + 1 of what the router compares


@dataclass
class TinyModel:
    """How one fixture is made."""

    seed: int
    family: str
    """The classes' names in transformers, without what they end in."""
    config: dict
    shard: str | None = None
    """The size of the files of a folder, if one is written."""
    packs_experts: bool = False
    """Whether the folder's experts are 4-bit floats, as gpt-oss is published."""
    block: tuple[int, int] | None = None
    """Rows and columns of the blocks with one scale, if the folder's matrices are 8-bit floats."""

    @property
    def pre(self) -> str:
        """The pre-tokenizer."""
        return {"Olmoe": "olmo", "Qwen3_5Moe": "qwen35"}.get(self.family, "qwen2")

    def network(self) -> torch.nn.Module:
        """The checkpoint in float32, eager everywhere, its numbers still to be made."""
        # Qwen3.5's is that of the part that reads.
        name = next(
            f"{self.family}{ending}" for ending in ("TextConfig", "Config")
            if hasattr(transformers, f"{self.family}{ending}"))  # fmt: skip
        config = getattr(transformers, name)(**COMMON | self.config)
        return getattr(transformers, f"{self.family}ForCausalLM")._from_config(
            config, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32
        )


COMMON = {
    "vocab_size": tiny_vocabulary.SIZE,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "eos_token_id": tiny_vocabulary.FIRST_CONTROL + 2,
    "pad_token_id": tiny_vocabulary.FIRST_CONTROL,
    "bos_token_id": None,
}
OLMOE = {
    "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "tie_word_embeddings": False,
}  # fmt: skip
# The expert width is what keeps a file of 3 x 16 experts below 1 MB.
QWEN3 = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "head_dim": 32, "num_local_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 8,
    "norm_topk_prob": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_TIED = QWEN3 | {
    "num_hidden_layers": 2, "moe_intermediate_size": 16, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}  # fmt: skip
QWEN3_FLOAT8 = QWEN3 | {
    "num_hidden_layers": 2, "num_local_experts": 8, "moe_intermediate_size": 32,
}  # fmt: skip
# As many key-value heads as heads, like the published OLMoE; small enough to be cheap.
OLMOE_CLIP = OLMOE | {
    "hidden_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 4, "num_experts": 4,
    "num_experts_per_tok": 2, "clip_qkv": 1.5,
}  # fmt: skip
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_key_value_heads": 2, "intermediate_size": 24,
    "tie_word_embeddings": False,
}  # fmt: skip
MIXTRAL = SMALL | {"num_local_experts": 8, "num_experts_per_tok": 2}
QWEN2 = SMALL | {
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 40, "norm_topk_prob": False,
}  # fmt: skip
GRANITE = SMALL | {
    "num_local_experts": 8, "num_experts_per_tok": 3, "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5, "attention_multiplier": 0.2, "logits_scaling": 0.75,
}  # fmt: skip
GLM4 = SMALL | {
    "head_dim": 32, "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 16,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
    "use_qk_norm": True, "attention_bias": True,
}  # fmt: skip
GLM4_FLOAT8 = GLM4 | {"intermediate_size": 32, "moe_intermediate_size": 32}
ERNIE = SMALL | {
    "moe_num_experts": 8, "moe_k": 3, "moe_intermediate_size": 16, "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1, "tie_word_embeddings": True,
}  # fmt: skip
# Every other layer sees the last 8 tokens; the borders of YaRN's ramp are between pairs.
GPT_OSS = SMALL | {
    "head_dim": 16, "intermediate_size": 32, "num_local_experts": 8,
    "num_experts_per_tok": 3, "sliding_window": 8,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 8.0, "beta_slow": 1.0,
        "truncate": False, "original_max_position_embeddings": 64,
    },
}  # fmt: skip
# As V2-Lite: queries are not compressed, the router is softmax alone.
DEEPSEEK = SMALL | {
    "num_key_value_heads": 4, "kv_lora_rank": 32, "q_lora_rank": None, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 24, "n_routed_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 16, "n_shared_experts": 2, "first_k_dense_replace": 1,
    "topk_method": "greedy", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0,
    "norm_topk_prob": False, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}  # fmt: skip
DEEPSEEK_V2 = DEEPSEEK | {
    "q_lora_rank": 40, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
    "routed_scaling_factor": 4.0,
}  # fmt: skip
DEEPSEEK_V3 = DEEPSEEK_V2 | {
    "routed_scaling_factor": 2.5, "norm_topk_prob": True, "n_shared_experts": 1,
    "n_routed_experts": 12,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "beta_fast": 8.0, "beta_slow": 1.0,
        "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 64,
    },
}  # fmt: skip
DEEPSEEK_V3_FLOAT8 = DEEPSEEK_V3 | {
    "kv_lora_rank": 64, "q_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 32,
    "intermediate_size": 32, "moe_intermediate_size": 32, "n_routed_experts": 8,
    "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
# The factors of short contexts, which are those of the whole one.
PHI = SMALL | {
    "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 24,
    "attention_bias": True, "lm_head_bias": True, "sliding_window": 256,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_mscale": 1.2, "long_mscale": 1.2,
        "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.1, 2.6],
        "long_factor": [1.0, 1.1, 1.3, 1.7, 2.5, 4.1, 7.3, 13.7],
        "original_max_position_embeddings": 256,
    },
}  # fmt: skip
# Two layers in three have a state in place of attention; each key head serves two value heads.
QWEN3_NEXT = SMALL | {
    "num_hidden_layers": 3, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 3,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24, "norm_topk_prob": True,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "full_attention_interval": 3,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
}  # fmt: skip
QWEN35 = {key: value for key, value in QWEN3_NEXT.items() if key != "intermediate_size"}

MODELS = {
    "tiny-olmoe": TinyModel(2, "Olmoe", OLMOE),
    "tiny-olmoe-clip": TinyModel(6, "Olmoe", OLMOE_CLIP, "1GB"),
    "tiny-qwen3moe": TinyModel(15, "Qwen3Moe", QWEN3),
    "tiny-qwen3moe-tied": TinyModel(4, "Qwen3Moe", QWEN3_TIED, "1GB"),
    "tiny-qwen3moe-fp8": TinyModel(1, "Qwen3Moe", QWEN3_FLOAT8, "1GB", (24, 32)),
    "tiny-mixtral": TinyModel(3, "Mixtral", MIXTRAL, "300KB"),
    "tiny-qwen2moe": TinyModel(1, "Qwen2Moe", QWEN2, "1GB"),
    "tiny-granitemoe": TinyModel(2, "GraniteMoe", GRANITE),
    "tiny-granitemoe-shared": TinyModel(
        1, "GraniteMoeShared", GRANITE | {"shared_intermediate_size": 40}, "1GB"
    ),
    "tiny-glm4moe": TinyModel(3, "Glm4Moe", GLM4, "1GB"),
    # Without the norms of queries and keys that only the largest of the family has.
    # A scale for each row.
    "tiny-glm4moe-fp8": TinyModel(1, "Glm4Moe", GLM4_FLOAT8, "1GB", (1, 1 << 24)),
    "tiny-glm4moe-air": TinyModel(1, "Glm4Moe", GLM4 | {"use_qk_norm": False}),
    "tiny-ernie4_5moe": TinyModel(1, "Ernie4_5_Moe", ERNIE, "1GB"),
    "tiny-gpt-oss": TinyModel(4, "GptOss", GPT_OSS),
    "tiny-gpt-oss-mxfp4": TinyModel(1, "GptOss", GPT_OSS, "1GB", packs_experts=True),
    "tiny-deepseek2-lite": TinyModel(2, "DeepseekV2", DEEPSEEK, "1GB"),
    "tiny-deepseek2": TinyModel(1, "DeepseekV2", DEEPSEEK_V2),
    "tiny-deepseek3": TinyModel(30, "DeepseekV3", DEEPSEEK_V3, "1GB"),
    "tiny-deepseek3-fp8": TinyModel(2, "DeepseekV3", DEEPSEEK_V3_FLOAT8, "1GB", (32, 32)),
    "tiny-phimoe": TinyModel(2, "Phimoe", PHI, "1GB"),
    "tiny-qwen3next": TinyModel(2, "Qwen3Next", QWEN3_NEXT, "1GB"),
    "tiny-qwen35moe": TinyModel(2, "Qwen3_5Moe", QWEN35, "1GB"),
}


def build(model: TinyModel, seed: int) -> torch.nn.Module:
    """The random checkpoint; the numbers come from numpy's PCG64."""
    network = model.network().eval()
    random = np.random.default_rng(seed)
    numbers = dict(network.named_parameters())
    # What corrects the choice of experts is no parameter in some families.
    numbers |= {name: b for name, b in network.named_buffers() if name.endswith("correction_bias")}
    for name, parameter in sorted(numbers.items()):
        values = random.standard_normal(tuple(parameter.shape))
        if name.endswith("A_log"):
            values -= 1  # Heads that forget at once and heads that hardly do.
        elif name.endswith("bias"):
            values *= 0.1 if "correction" in name else 0.3
        elif parameter.ndim == 1:
            around_zero = "Qwen3Next" in model.family or "Qwen3_5" in model.family
            values = (not around_zero or name.endswith("linear_attn.norm.weight")) + 0.1 * values
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
            # Control and padding rows stay faint, so that greedy decoding never picks them.
            values[tiny_vocabulary.FIRST_CONTROL :] *= 0.1
            values *= 0.3
        elif name.endswith(("mlp.gate.weight", "router.weight")):
            values *= 0.25
        else:
            # Above 1/sqrt(fan-in), so that the layers outweigh the embedding in the residual.
            values *= 1.5 / np.sqrt(parameter.shape[-1])
        parameter.data = torch.from_numpy(values.astype(np.float32))
        if model.packs_experts:
            parameter.data = parameter.data.bfloat16().float()
    network.tie_weights()
    if model.block:
        quantize(network, model.block)
    if model.packs_experts:
        pack_experts(network)
    return network


def matrices(name: str, parameter: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """The projections that a parameter holds, by the names they have in files."""
    prefix, _, suffix = name.rpartition(".experts.")
    if not prefix:
        return [(name, parameter)] if name.endswith(("_proj.weight", "_with_mqa.weight")) else []
    found = []
    for expert, matrix in enumerate(parameter):
        parts = matrix.chunk(2) if suffix == "gate_up_proj" else [matrix]
        names = ["gate_proj", "up_proj"] if suffix == "gate_up_proj" else ["down_proj"]
        found += [(f"{prefix}.experts.{expert}.{n}.weight", p) for n, p in zip(names, parts)]
    return found


@torch.no_grad()
def quantize(network: torch.nn.Module, block: tuple[int, int]) -> None:
    """Rounds projections to E4M3 with a scale for each block, and keeps both as `network.float8`."""
    network.float8 = {}
    for name, parameter in network.named_parameters():
        for own, matrix in matrices(name, parameter):
            rows, columns = (-(-size // step) for size, step in zip(matrix.shape, block))
            scales = torch.zeros(rows, columns)
            bits = torch.zeros(matrix.shape, dtype=torch.float8_e4m3fn)
            for r in range(rows):
                for c in range(columns):
                    at = (slice(r * block[0], (r + 1) * block[0]),
                          slice(c * block[1], (c + 1) * block[1]))  # fmt: skip
                    scales[r, c] = matrix[at].abs().max() / 448
                    if block[0] == 1:
                        scales[r, c] = scales[r, c].bfloat16()
                    bits[at] = (matrix[at] / scales[r, c]).clamp(-448, 448).to(torch.float8_e4m3fn)
                    matrix[at] = bits[at].float() * scales[r, c]
            network.float8[own] = bits
            if block[0] == 1:
                network.float8[f"{own}_scale"] = scales.bfloat16()
            else:
                network.float8[f"{own}_scale_inv"] = scales


@torch.no_grad()
def pack_experts(network: torch.nn.Module) -> None:
    """Rounds experts to 4-bit floats (MXFP4) along their inputs, as transformers unpacks them, and keeps blocks
    and scales as `network.packed`."""
    from transformers.integrations.mxfp4 import FP4_VALUES, convert_moe_packed_tensors

    network.packed = {}
    values = torch.tensor(FP4_VALUES)
    for name, parameter in network.named_parameters():
        if not name.endswith((".experts.gate_up_proj", ".experts.down_proj")):
            continue
        rows = parameter.transpose(1, 2)  # [expert, out, in]
        groups = rows.reshape(*rows.shape[:2], -1, 32)
        largest = groups.abs().amax(-1).clamp(min=1e-30)
        exponent = (largest / 6).log2().ceil()
        scaled = groups / exponent.exp2()[..., None]
        codes = (scaled[..., None] - values).abs().argmin(-1).to(torch.uint8)
        blocks = codes[..., 0::2] | codes[..., 1::2] << 4
        scales = (exponent + 127).to(torch.uint8)
        parameter.data = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        assert torch.allclose(
            parameter.transpose(1, 2).reshape(groups.shape),
            values[codes.long()] * exponent.exp2()[..., None])
        network.packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}


def write_packed(network: torch.nn.Module, folder: Path) -> None:
    """The folder as gpt-oss is published: experts in 4-bit floats, the rest in BF16."""
    from safetensors.torch import save_file

    tensors = {
        name: value.bfloat16() for name, value in network.state_dict().items()
        if f"{name}_blocks" not in network.packed
    }  # fmt: skip
    save_file(tensors | network.packed, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_float8(network: torch.nn.Module, block: tuple[int, int], folder: Path) -> None:
    """The folder as DeepSeek-V3 and Qwen3-FP8 are published, or, with a scale for each row, as
    compressed-tensors writes it."""
    from safetensors.torch import save_file

    plain = {name: torch.from_numpy(a.copy()) for name, a in checkpoint_tensors(network).items()}
    save_file(plain | network.float8, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
        "weight_block_size": list(block),
    }  # fmt: skip
    if block[0] == 1:
        config["quantization_config"] = {
            "quant_method": "compressed-tensors", "format": "float-quantized",
            "ignore": ["lm_head"], "config_groups": {"group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
            }},
        }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def publish_with_sight(folder: Path) -> None:
    """Brings a folder to the form in which Qwen3.5 is published: the part that reads is one of two, with a
    configuration of its own, experts lie together, and there are tensors that predict further tokens."""
    from safetensors.torch import load_file, save_file

    tensors, stacks = {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        own = name.replace("model.", "model.language_model.", 1)
        prefix, _, rest = own.partition(".mlp.experts.")
        if not rest:
            tensors[own] = tensor
            continue
        expert, part, _ = rest.split(".")
        stacks.setdefault(f"{prefix}.mlp.experts", {})[int(expert), part] = tensor
    for prefix, parts in stacks.items():
        experts = range(len(parts) // 3)
        tensors[f"{prefix}.gate_up_proj"] = torch.stack([
            torch.cat([parts[e, "gate_proj"], parts[e, "up_proj"]]) for e in experts])
        tensors[f"{prefix}.down_proj"] = torch.stack([parts[e, "down_proj"] for e in experts])
    tensors["model.visual.patch_embed.proj.weight"] = torch.zeros(4, 3)
    tensors["mtp.fc.weight"] = torch.zeros(8, 16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    outer = {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe",
        "text_config": config, "tie_word_embeddings": False, "vision_config": {"depth": 1},
    }  # fmt: skip
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(outer, indent=2) + "\n")


class Recorder:
    """Collects the router's choice of every layer of one forward pass."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.logits: list[torch.Tensor] = []
        self.experts: list[torch.Tensor] = []
        self.thresholds: list[float] = []
        for name, module in network.named_modules():
            if name.endswith(("mlp.gate", "mlp.router", "block_sparse_moe.router")):
                module.register_forward_hook(self.record)

    def record(self, module: torch.nn.Module, inputs: tuple, output: tuple) -> None:
        logits, _, experts = output
        if (statics := getattr(module, "moe_statics", None)) is not None:  # ERNIE
            logits = logits.softmax(-1) + statics.e_score_correction_bias
        elif (bias := getattr(module, "e_score_correction_bias", None)) is not None:  # GLM
            logits = logits.sigmoid() + bias
        if type(module).__name__ == "PhimoeTopKRouter":
            # What is near the threshold below which experts do not count must be clear too.
            best = logits.max(-1, keepdim=True).values
            for best in (best, logits.topk(2).values[..., 1:]):
                distance = (best - logits) / logits.abs().clamp(min=best)
                self.thresholds.append((distance - 0.02).abs().min().item())
        order = logits.gather(-1, experts).argsort(dim=-1, descending=True)
        self.logits.append(logits)
        self.experts.append(experts.gather(-1, order))

    def take(self) -> tuple[list, float]:
        """Experts [token][layer][rank] and the smallest gap between neighbouring router logits."""
        used = self.experts[0].shape[-1]
        top = torch.stack(self.logits).sort(dim=-1, descending=True).values[..., : used + 1]
        gap = (top[..., :-1] - top[..., 1:]).min().item()
        gap = min([gap] + self.thresholds)
        experts = torch.stack(self.experts, dim=1).tolist()
        self.logits, self.experts, self.thresholds = [], [], []
        return experts, gap


@torch.no_grad()
def run_prompt(network: torch.nn.Module, recorder: Recorder, ids: list[int]) -> dict:
    """Logits and routing of the prompt, and the greedy continuation, each step recomputed whole."""
    sequence, greedy_gap, router_gap = list(ids), np.inf, np.inf
    for step in range(GREEDY_COUNT):
        logits = network(torch.tensor([sequence]), use_cache=False).logits[0]
        experts, gap = recorder.take()
        if step == 0:
            prompt_logits, routing = logits.numpy(), experts
        best, second = logits[-1].topk(2).values.tolist()
        greedy_gap, router_gap = min(greedy_gap, best - second), min(router_gap, gap)
        sequence.append(int(logits[-1].argmax()))
    return {
        "ids": ids, "greedy_ids": sequence, "routing": routing, "logits": prompt_logits,
        "greedy_gap": greedy_gap, "router_gap": router_gap,
    }  # fmt: skip


def run_model(model: TinyModel, seed: int) -> tuple[torch.nn.Module, list[dict]]:
    """The checkpoint of `seed` and its results for prompts drawn from the same seed."""
    network = build(model, seed)
    recorder = Recorder(network)
    random = np.random.default_rng([seed, 1])
    limit = tiny_vocabulary.FIRST_CONTROL
    prompts = [random.integers(0, limit, count).tolist() for count in PROMPT_LENGTHS]
    return network, [run_prompt(network, recorder, ids) for ids in prompts]


def objection(results: list[dict]) -> str | None:
    """Why a seed makes a poor fixture, or None: unclear decisions, or a text that says nothing."""
    for result in results:
        continuation = result["greedy_ids"][len(result["ids"]) :]
        if result["greedy_gap"] < MIN_GREEDY_GAP:
            return f"greedy gap {result['greedy_gap']:.2g}"
        if result["router_gap"] < MIN_ROUTER_GAP:
            return f"router gap {result['router_gap']:.2g}"
        if len(set(continuation)) < 8:
            return f"only {len(set(continuation))} different greedy tokens"
        if max(continuation) >= tiny_vocabulary.FIRST_CONTROL:
            return "greedy decoding picks a control token"
    return None


def checkpoint_tensors(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """The state under the names checkpoints use: transformers 5 fuses the experts in memory."""
    tensors = {}
    for name, value in network.state_dict().items():
        array = value.numpy()
        prefix, _, suffix = name.rpartition(".experts.")
        if prefix and "GptOss" in type(network).__name__:
            tensors |= interleaved_experts(prefix, suffix, array)
        elif suffix == "gate_up_proj":
            for expert, fused in enumerate(array):  # [2 * width, hidden]: gate rows, then up rows
                gate, up = np.split(fused, 2)
                tensors[f"{prefix}.experts.{expert}.gate_proj.weight"] = gate
                tensors[f"{prefix}.experts.{expert}.up_proj.weight"] = up
        elif suffix == "down_proj":
            for expert, down in enumerate(array):
                tensors[f"{prefix}.experts.{expert}.down_proj.weight"] = down
        else:
            tensors[name] = array
    return tensors


def interleaved_experts(prefix: str, suffix: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of gpt-oss's experts: [expert, in, out], gate and up taking turns."""
    if suffix.endswith("bias"):
        names = {"gate_up_proj_bias": ("gate", "up"), "down_proj_bias": ("down",)}[suffix]
        return {
            f"{prefix}.experts.{part}_proj.bias": array[:, index :: len(names)]
            for index, part in enumerate(names)
        }
    names = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}[suffix]
    return {
        f"{prefix}.experts.{expert}.{part}_proj.weight": weight[:, index :: len(names)].T
        for expert, weight in enumerate(array)
        for index, part in enumerate(names)
    }


def write_model(name: str, model: TinyModel, out: Path) -> str:
    """Writes the three files of one fixture; returns a line about it."""
    network, results = run_model(model, model.seed)
    if reason := objection(results):
        raise ValueError(f"{name} with seed {model.seed}: {reason}; choose another seed")
    config = network.config.to_dict() | {"architectures": [type(network).__name__]}
    gguf_path = out / f"{name}.gguf"
    tensors = checkpoint_tensors(network)
    parameters = sum(p.numel() for p in network.parameters())
    label = f"{gguf_model.expert_count(config)}x{parameters / 1e3:.0f}K"
    gguf_model.write_gguf(
        gguf_path, config, tensors.get, tiny_vocabulary.gguf_vocabulary(model.pre),
        gguf_model.Names(name, label), with_vocab_size=True,
    )  # fmt: skip
    gguf_model.verify(gguf_path)
    if model.shard is not None:
        folder = out / name
        network.save_pretrained(folder, max_shard_size=model.shard)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if model.family == "Qwen3_5Moe":
            publish_with_sight(folder)
        if model.packs_experts:
            write_packed(network, folder)
        if model.block:
            write_float8(network, model.block, folder)
        tiny_vocabulary.tokenizer(model.pre).save(str(folder / "tokenizer.json"), pretty=False)
    logits = np.concatenate([result["logits"] for result in results]).astype("<f4")
    (out / f"{name}.logits.f32").write_bytes(logits.tobytes())
    keys = ("ids", "greedy_ids", "routing")
    description = {
        "model": name,
        "architecture": gguf_model.ARCHITECTURES[config["architectures"][0]],
        "seed": model.seed,
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, "
        f"gguf {gguf_version()}, numpy {np.__version__}",
        "vocabulary_size": config["vocab_size"],
        "prompts": [{key: result[key] for key in keys} for result in results],
        "texts": tiny_vocabulary.text_cases(model.pre),
    }
    text = json.dumps(description, separators=(",", ":"), ensure_ascii=True)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    greedy_gap = min(result["greedy_gap"] for result in results)
    router_gap = min(result["router_gap"] for result in results)
    distinct = [len(set(r["greedy_ids"][len(r["ids"]) :])) for r in results]
    return (
        f"{name}: {gguf_path.stat().st_size} bytes, "
        f"logits {logits.min():.2f} ... {logits.max():.2f} (std {logits.std():.2f}), "
        f"min greedy gap {greedy_gap:.4f}, min router gap {router_gap:.4f}, "
        f"different greedy tokens {distinct}"
    )


def gguf_version() -> str:
    from importlib.metadata import version

    return version(gguf.__name__)


def find_seed(model: TinyModel) -> int:
    """The first seed with nothing to object to."""
    for seed in range(1, 10_000):
        if objection(run_model(model, seed)[1]) is None:
            return seed
    raise ValueError("no seed below 10000 fits")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--find-seeds", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    for name in arguments.names or MODELS:
        if arguments.find_seeds:
            print(f"{name}: seed {find_seed(MODELS[name])}", flush=True)
        else:
            print(write_model(name, MODELS[name], arguments.out), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes a Qwen3-MoE or OLMoE checkpoint as an F32 GGUF v3 file. Needs gguf and numpy only.

Metadata keys and tensor names are those of llama.cpp's convert_hf_to_gguf.py. Neither architecture
permutes the query and key projections: both use rotary embeddings in the NeoX (half-split) order,
which is the order Hugging Face stores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION, GGUFReader, GGUFWriter, LlamaFileType, TokenType

ARCHITECTURES = {"OlmoeForCausalLM": "olmoe", "Qwen3MoeForCausalLM": "qwen3moe"}

# Suffixes under `model.layers.N.` and `blk.N.`, without the expert stacks.
LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
}
EXPERT_TENSORS = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
}


@dataclass
class Vocabulary:
    """A byte-level BPE vocabulary as GGUF stores it; `pre` names the pre-tokenizer."""

    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    special_ids: dict[str, int]  # "eos" / "padding" / "bos" -> token id, in the order written
    add_bos: bool | None = None  # None leaves the key out


@dataclass
class Names:
    """The descriptive `general.*` strings of a file."""

    name: str
    size_label: str


def write_gguf(
    path: Path,
    config: dict,
    tensor: Callable[[str], np.ndarray],
    vocabulary: Vocabulary,
    names: Names,
    with_vocab_size: bool = False,
) -> None:
    """Writes `config` and the tensors `tensor(hugging_face_name)` gives; every tensor becomes F32.

    `with_vocab_size` adds `ARCH.vocab_size`, which llama.cpp's converter leaves out for BPE models.
    """
    architecture = ARCHITECTURES[config["architectures"][0]]
    refuse_unsupported(config)
    writer = GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(names.name)
    writer.add_size_label(names.size_label)
    add_hyperparameters(writer, architecture, config)
    if with_vocab_size:
        writer.add_vocab_size(config["vocab_size"])
    add_vocabulary(writer, vocabulary)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(LlamaFileType.ALL_F32)

    def add(gguf_name: str, array: np.ndarray) -> None:
        writer.add_tensor(gguf_name, np.ascontiguousarray(array, dtype=np.float32))

    add("token_embd.weight", tensor("model.embed_tokens.weight"))
    for layer in range(config["num_hidden_layers"]):
        source = f"model.layers.{layer}."
        for suffix, gguf_suffix in LAYER_TENSORS.items():
            add(f"blk.{layer}.{gguf_suffix}.weight", tensor(f"{source}{suffix}.weight"))
        for suffix, gguf_suffix in EXPERT_TENSORS.items():
            experts = range(expert_count(config))
            stack = [tensor(f"{source}mlp.experts.{e}.{suffix}.weight") for e in experts]
            add(f"blk.{layer}.{gguf_suffix}.weight", np.stack(stack))  # [expert, out, in]
    add("output_norm.weight", tensor("model.norm.weight"))
    if not config["tie_word_embeddings"]:
        add("output.weight", tensor("lm_head.weight"))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expert_count(config: dict) -> int:
    """Number of routed experts per layer; transformers 5 renamed Qwen's key."""
    return config["num_local_experts"] if "num_local_experts" in config else config["num_experts"]


def refuse_unsupported(config: dict) -> None:
    """Raises ValueError for what this converter would otherwise write wrongly."""
    if config.get("attention_bias"):
        raise ValueError("attention_bias is true, but attention biases are not converted")
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise ValueError("the checkpoint has dense layers, but only all-MoE models are converted")
    rope_type = (config.get("rope_parameters") or {}).get("rope_type", "default")
    if rope_type != "default":
        raise ValueError(f"rope_type is {rope_type!r}, but only 'default' is converted")


def add_hyperparameters(writer: GGUFWriter, architecture: str, config: dict) -> None:
    rope = config.get("rope_parameters") or config
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config.get("rope_theta", rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(expert_count(config))
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if architecture == "qwen3moe":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("clip_qkv") is not None:
        writer.add_clamp_kqv(config["clip_qkv"])


def add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for kind, token in vocabulary.special_ids.items():
        writer.add_uint32(f"tokenizer.ggml.{kind}_token_id", token)
    if vocabulary.add_bos is not None:
        writer.add_add_bos_token(vocabulary.add_bos)


def verify(path: Path, tensor_count: int) -> None:
    """Reads the file back; raises ValueError unless all tensors are there, finite and F32."""
    reader = GGUFReader(path)
    if len(reader.tensors) != tensor_count:
        raise ValueError(f"{path} holds {len(reader.tensors)} tensors, expected {tensor_count}")
    for entry in reader.tensors:
        if entry.tensor_type.name != "F32" or not np.isfinite(entry.data).all():
            raise ValueError(f"{path}: tensor {entry.name} is not finite F32")


def tensor_count(config: dict) -> int:
    """Number of tensors `write_gguf` writes for `config`."""
    per_layer = len(LAYER_TENSORS) + len(EXPERT_TENSORS)
    return config["num_hidden_layers"] * per_layer + (2 if config["tie_word_embeddings"] else 3)

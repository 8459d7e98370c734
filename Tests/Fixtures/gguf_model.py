"""Writes a checkpoint of a mixture of experts as an F32 GGUF v3 file. Needs gguf and numpy only.

Metadata keys and tensor names are those of llama.cpp's convert_hf_to_gguf.py. It permutes the query
and key projections of Mixtral and Granite, whose pairs of rotated values lie side by side in GGUF;
Hugging Face stores them half a head apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import (
    GGML_QUANT_VERSION,
    ExpertGatingFuncType,
    GGUFReader,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    TokenType,
)

ARCHITECTURES = {
    "OlmoeForCausalLM": "olmoe",
    "Qwen3MoeForCausalLM": "qwen3moe",
    "Qwen2MoeForCausalLM": "qwen2moe",
    "MixtralForCausalLM": "llama",
    "GraniteMoeForCausalLM": "granitemoe",
    "GraniteMoeSharedForCausalLM": "granitemoe",
    "Glm4MoeForCausalLM": "glm4moe",
    "Ernie4_5_MoeForCausalLM": "ernie4_5-moe",
    "GptOssForCausalLM": "gpt-oss",
    "DeepseekV2ForCausalLM": "deepseek2",
    "DeepseekV3ForCausalLM": "deepseek2",
    "PhimoeForCausalLM": "phimoe",
    "Qwen3NextForCausalLM": "qwen3next",
    "Qwen3_5MoeForCausalLM": "qwen35moe",
}
RECURRENT = {"qwen3next", "qwen35moe"}
PERMUTED = {"llama", "granitemoe"}

# Suffixes under `model.layers.N.` and `blk.N.`, without the expert stacks. A layer has some of them.
LAYER_TENSORS = {
    "input_layernorm.weight": "attn_norm.weight",
    "input_layernorm.bias": "attn_norm.bias",
    "post_attention_layernorm.bias": "ffn_norm.bias",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "self_attn.o_proj.bias": "attn_output.bias",
    "self_attn.sinks": "attn_sinks.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.router.weight": "ffn_gate_inp.weight",
    "mlp.router.bias": "ffn_gate_inp.bias",
    "mlp.experts.gate_proj.bias": "ffn_gate_exps.bias",
    "mlp.experts.up_proj.bias": "ffn_up_exps.bias",
    "mlp.experts.down_proj.bias": "ffn_down_exps.bias",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mlp.gate.moe_statics.e_score_correction_bias": "exp_probs_b.bias",
    "block_sparse_moe.router.weight": "ffn_gate_inp.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "shared_mlp.output_linear.weight": "ffn_down_shexp.weight",
} | {
    f"mlp.{shared}.{part}_proj.weight": f"ffn_{part}_shexp.weight"
    for shared in ("shared_expert", "shared_experts")
    for part in ("gate", "up", "down")
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
    tensor: Callable[[str], np.ndarray | None],
    vocabulary: Vocabulary,
    names: Names,
    with_vocab_size: bool = False,
) -> None:
    """Writes `config` and the tensors `tensor(hugging_face_name)` gives, None where the model has none;
    every tensor becomes F32.

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
            if (array := tensor(source + suffix)) is None:
                continue
            if architecture in PERMUTED and gguf_suffix in ("attn_q.weight", "attn_k.weight"):
                heads = "num_attention_heads" if "attn_q" in gguf_suffix else "num_key_value_heads"
                array = side_by_side(array, config[heads])
            if gguf_suffix == "ffn_norm.weight" and (
                architecture in RECURRENT | {"glm4moe", "gpt-oss"}
            ):
                gguf_suffix = "post_attention_norm.weight"
            if architecture in RECURRENT and suffix.endswith("norm.weight"):
                array = array + (0 if suffix.startswith("linear_attn") else 1)
            if gguf_suffix in ("ffn_gate_inp_shexp.weight", "exp_probs_b.bias"):
                array = array.reshape(-1)
            add(f"blk.{layer}.{gguf_suffix}", array)
        if (fused := tensor(f"{source}shared_mlp.input_linear.weight")) is not None:
            for part, half in zip(("gate", "up"), np.split(fused, 2)):
                add(f"blk.{layer}.ffn_{part}_shexp.weight", half)
        if (both := tensor(f"{source}self_attn.kv_b_proj.weight")) is not None:
            plain = config["qk_nope_head_dim"]
            heads = both.reshape(config["num_attention_heads"], -1, both.shape[-1])
            add(f"blk.{layer}.attn_k_b.weight", heads[:, :plain].swapaxes(1, 2))
            add(f"blk.{layer}.attn_v_b.weight", heads[:, plain:])
        if architecture in RECURRENT and tensor(f"{source}linear_attn.A_log") is not None:
            for name, array in linear_attention(config, lambda part: tensor(source + part)).items():
                add(f"blk.{layer}.{name}", array)
        mixture = "block_sparse_moe" if architecture == "granitemoe" else "mlp"
        for suffix, gguf_suffix in EXPERT_TENSORS.items():
            experts = range(expert_count(config))
            stack = [tensor(f"{source}{mixture}.experts.{e}.{suffix}.weight") for e in experts]
            if stack[0] is not None:
                add(f"blk.{layer}.{gguf_suffix}.weight", np.stack(stack))  # [expert, out, in]
    add("output_norm.weight", tensor("model.norm.weight") + (architecture in RECURRENT))
    if not config["tie_word_embeddings"]:
        add("output.weight", tensor("lm_head.weight"))
    for name, source in (("output_norm.bias", "model.norm.bias"), ("output.bias", "lm_head.bias")):
        if (array := tensor(source)) is not None:
            add(name, array)
    if architecture == "phimoe":
        for kind in ("long", "short"):
            factors = config["rope_parameters"][f"{kind}_factor"]
            add(f"rope_factors_{kind}.weight", np.array(factors, np.float32))

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def linear_attention(
    config: dict, tensor: Callable[[str], np.ndarray | None]
) -> dict[str, np.ndarray]:
    """The tensors of a layer with a recurrent state. Where one matrix makes queries, keys, values and gates, those
    of a key head lie together, and are taken apart; otherwise value heads come to take turns with key heads."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    width, share = config["linear_key_head_dim"], values // keys
    part = lambda name: tensor(f"linear_attn.{name}")  # noqa: E731
    joint = part("in_proj_qkvz.weight")

    def in_turns(array: np.ndarray, size: int, axis: int = 0) -> np.ndarray:
        if joint is not None:
            return array
        array = np.moveaxis(array, axis, 0)
        heads = array.reshape(keys, share, size, *array.shape[1:]).swapaxes(0, 1)
        return np.moveaxis(heads.reshape(array.shape), 0, axis)

    def with_turned_values(array: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [array[: 2 * keys * width], in_turns(array[2 * keys * width :], width)])

    tensors = {
        "ssm_a": in_turns(-np.exp(part("A_log")), 1),
        "ssm_dt.bias": in_turns(part("dt_bias"), 1),
        "ssm_conv1d.weight": with_turned_values(part("conv1d.weight")[:, 0]),
        "ssm_out.weight": in_turns(part("out_proj.weight"), width, axis=1),
    }
    if joint is not None:
        heads = joint.reshape(keys, -1, joint.shape[-1])
        cuts = np.cumsum([width, width, share * width])
        mixed = [p.reshape(-1, joint.shape[-1]) for p in np.split(heads, cuts, axis=1)]
        return tensors | {
            "attn_qkv.weight": np.concatenate(mixed[:3]), "attn_gate.weight": mixed[3],
            "ssm_ba.weight": part("in_proj_ba.weight"),
        }  # fmt: skip
    return tensors | {
        "attn_qkv.weight": with_turned_values(part("in_proj_qkv.weight")),
        "attn_gate.weight": in_turns(part("in_proj_z.weight"), width),
        "ssm_beta.weight": in_turns(part("in_proj_b.weight"), 1),
        "ssm_alpha.weight": in_turns(part("in_proj_a.weight"), 1),
    }


def side_by_side(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a projection with the values that are rotated together next to each other."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def first_of(config: dict, *keys: str) -> int:
    """The value of the first of `keys` that there is: the families name the same thing differently."""
    return next(config[key] for key in keys if config.get(key) is not None)


def expert_count(config: dict) -> int:
    """Number of routed experts per layer; transformers 5 renamed Qwen's key."""
    keys = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return first_of(config, *keys)


def refuse_unsupported(config: dict) -> None:
    """Raises ValueError for what this converter would otherwise write wrongly."""
    if config.get("attention_bias") and config["model_type"] not in (
        "glm4_moe", "gpt_oss", "phimoe",
    ):
        raise ValueError("attention_bias is true, but attention biases are not converted")
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise ValueError("the checkpoint has dense layers, but only all-MoE models are converted")
    rope_type = (config.get("rope_parameters") or {}).get("rope_type", "default")
    if rope_type != "default" and config["model_type"] not in ("gpt_oss", "deepseek_v3", "phimoe"):
        raise ValueError(f"rope_type is {rope_type!r}, but only 'default' is converted")


def add_hyperparameters(writer: GGUFWriter, architecture: str, config: dict) -> None:
    rope = config.get("rope_parameters") or config
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    if "intermediate_size" in config:
        writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(
        1 if architecture == "deepseek2" else config["num_key_value_heads"])
    writer.add_rope_freq_base(config.get("rope_theta", rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(expert_count(config))
    writer.add_expert_used_count(first_of(config, "num_experts_per_tok", "moe_k"))
    if architecture in RECURRENT | {"qwen3moe", "glm4moe", "gpt-oss"}:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if architecture in ("llama", "granitemoe"):
        writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("clip_qkv") is not None:
        writer.add_clamp_kqv(config["clip_qkv"])
    if architecture in RECURRENT | {"qwen2moe"}:
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if architecture == "granitemoe":
        if "shared_intermediate_size" in config:
            writer.add_expert_shared_feed_forward_length(config["shared_intermediate_size"])
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if architecture == "glm4moe":
        writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_expert_gating_func(ExpertGatingFuncType.SIGMOID)
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_expert_weights_norm(config["norm_topk_prob"])
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
    if architecture == "deepseek2":
        add_latent_attention(writer, config)
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        sigmoid = config["model_type"] == "deepseek_v3"
        writer.add_expert_gating_func(
            ExpertGatingFuncType.SIGMOID if sigmoid else ExpertGatingFuncType.SOFTMAX)
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_expert_weights_norm(config["norm_topk_prob"])
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
    if architecture in RECURRENT:
        add_linear_attention(writer, config)
        writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
        if architecture == "qwen35moe":
            writer.add_rope_dimension_sections([1, 1, 0, 0])
    if architecture == "phimoe":
        writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(rope["short_mscale"])
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gpt-oss":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_expert_feed_forward_length(config["intermediate_size"])
        add_yarn(writer, rope)
    if architecture == "ernie4_5-moe":
        shared = config["moe_num_shared_experts"]
        writer.add_interleave_moe_layer_step(config["moe_layer_interval"])
        writer.add_leading_dense_block_count(config["moe_layer_start_index"])
        writer.add_expert_shared_count(shared)
        writer.add_expert_shared_feed_forward_length(config["moe_intermediate_size"] * shared)


def add_yarn(writer: GGUFWriter, rope: dict) -> None:
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def add_linear_attention(writer: GGUFWriter, config: dict) -> None:
    """The sizes of layers with a recurrent state, under the names of state-space models."""
    heads, width = config["linear_num_value_heads"], config["linear_value_head_dim"]
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_inner_size(heads * width)
    first = config["layer_types"].index("full_attention")
    writer.add_full_attention_interval(first + 1)


def add_latent_attention(writer: GGUFWriter, config: dict) -> None:
    """Attention as one head of compressed keys and values, and what that head stands for."""
    rank, rotated = config["kv_lora_rank"], config["qk_rope_head_dim"]
    if config["q_lora_rank"] is not None:
        writer.add_q_lora_rank(config["q_lora_rank"])
    writer.add_kv_lora_rank(rank)
    writer.add_key_length(rank + rotated)
    writer.add_value_length(rank)
    writer.add_key_length_mla(config["qk_nope_head_dim"] + rotated)
    writer.add_value_length_mla(config["v_head_dim"])
    writer.add_rope_dimension_count(rotated)
    rope = config["rope_parameters"]
    if rope["rope_type"] == "yarn":
        add_yarn(writer, rope)
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])


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


def verify(path: Path) -> None:
    """Reads the file back; raises ValueError unless all tensors are finite and F32."""
    for entry in GGUFReader(path).tensors:
        if entry.tensor_type.name != "F32" or not np.isfinite(entry.data).all():
            raise ValueError(f"{path}: tensor {entry.name} is not finite F32")

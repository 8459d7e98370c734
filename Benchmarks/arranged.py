#!/usr/bin/env python3
"""What it costs to bring 4-bit floats into order as they are read.

    Benchmarks/arranged.py [--runs 5]

A folder of gpt-oss-20b's dimensions with four layers of random weights, as it is published (MXFP4, scales apart,
rows of gate and up taking turns), and the same packed. Runs alternate between both, with a quarter of the experts in
memory, read with O_DIRECT. Needs numpy.
"""
import json
import shutil
import statistics

import common
import numpy as np

LAYERS, HIDDEN, INNER, EXPERTS, VOCABULARY = 4, 2880, 2880, 32, 320
HEADS, SHARED_HEADS, DIMENSION = 64, 8, 64
FIXTURE = common.REPOSITORY / "Tests" / "Fixtures" / "tiny-gpt-oss-mxfp4"


def tensors(random):
    """Names, types, shapes and bytes of all tensors, one after the other."""
    def floats(name, *shape, scale=1.0):
        values = random.standard_normal(shape, np.float32) * scale
        return name, "BF16", shape, (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()

    def bytes_of(name, low, high, *shape):
        return name, "U8", shape, random.integers(low, high, shape, np.uint8).tobytes()

    def norm(name):
        ones = np.full(HIDDEN, 0x3F80, np.uint16)
        return name, "BF16", (HIDDEN,), ones.tobytes()

    yield floats("model.embed_tokens.weight", VOCABULARY, HIDDEN)
    yield norm("model.norm.weight")
    yield floats("lm_head.weight", VOCABULARY, HIDDEN, scale=0.02)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield norm(prefix + "input_layernorm.weight")
        yield norm(prefix + "post_attention_layernorm.weight")
        yield floats(prefix + "self_attn.sinks", HEADS)
        for part, heads in (("q", HEADS), ("k", SHARED_HEADS), ("v", SHARED_HEADS)):
            yield floats(f"{prefix}self_attn.{part}_proj.weight", heads * DIMENSION, HIDDEN, scale=0.02)
            yield floats(f"{prefix}self_attn.{part}_proj.bias", heads * DIMENSION, scale=0.02)
        yield floats(prefix + "self_attn.o_proj.weight", HIDDEN, HEADS * DIMENSION, scale=0.02)
        yield floats(prefix + "self_attn.o_proj.bias", HIDDEN, scale=0.02)
        yield floats(prefix + "mlp.router.weight", EXPERTS, HIDDEN, scale=0.02)
        yield floats(prefix + "mlp.router.bias", EXPERTS, scale=0.02)
        for part, rows, columns in (("gate_up_proj", 2 * INNER, HIDDEN), ("down_proj", HIDDEN, INNER)):
            name = f"{prefix}mlp.experts.{part}"
            yield bytes_of(f"{name}_blocks", 0, 256, EXPERTS, rows, columns // 32, 16)
            yield bytes_of(f"{name}_scales", 118, 122, EXPERTS, rows, columns // 32)
            yield floats(f"{name}_bias", EXPERTS, rows, scale=0.02)


def write_folder(folder):
    """Writes the model, once for its header, then for its bytes; a seed makes both alike."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, end = {}, 0
    for name, kind, shape, data in tensors(np.random.default_rng(1)):
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for *_, data in tensors(np.random.default_rng(1)):
            file.write(data)
    config = json.loads((FIXTURE / "config.json").read_text())
    config |= {
        "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_local_experts": EXPERTS, "num_experts_per_tok": 4, "num_attention_heads": HEADS,
        "num_key_value_heads": SHARED_HEADS, "head_dim": DIMENSION, "sliding_window": 128,
        "max_position_embeddings": 131072,
        "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(FIXTURE / "tokenizer.json", folder)


def main():
    parser = common.argument_parser(__doc__, runs=5)
    arguments = parser.parse_args()
    stoker = common.build("stoker")
    folder = arguments.work_directory / "gpt-oss-folder"
    packed = arguments.work_directory / "gpt-oss-packed.gguf"
    if not (folder / "config.json").exists():
        write_folder(folder)
    common.run([stoker, "pack", folder, packed, "--force"])
    print(f"Processor: {common.processor()}, {arguments.threads} threads.\n")
    # The vocabulary is that of a fixture, of 320 tokens.
    ids = [",".join(str(37 * n % 256) for n in range(count)) for count in (32, 96)]
    summary = common.inspect(stoker, folder, "--context", 512)
    memory = summary["full_budget"] - int(0.75 * summary["expert_bytes"])
    kinds = {"folder": folder, "packed": packed}
    runs, disks = {kind: [] for kind in kinds}, {kind: [] for kind in kinds}
    for _ in range(arguments.runs):
        for kind, path in kinds.items():
            runs[kind].append(common.run_stoker(stoker, path, ids, arguments.threads, memory))
            disks[kind].append(common.inspect(stoker, path, "--disk")["disk"])
    common.print_header("layout", "read by", "GB/s", "tokens/s at 25 %", "hits", "first token s",
                        "of packed")
    for kind in kinds:
        rate = statistics.median(disk["bytes_per_second"] for disk in disks[kind])
        speeds = [common.median(runs[each], "tokens_per_second") for each in (kind, "packed")]
        common.print_row(
            kind, disks[kind][0]["engine"], f"{rate / 1e9:.2f}", f"{speeds[0]:.2f}",
            f"{100 * common.median(runs[kind], 'decode_hit_rate'):.0f} %",
            f"{statistics.median(row['run']['time_to_first_token'] for row in runs[kind]):.2f}",
            f"{speeds[0] / speeds[1]:.2f}")


if __name__ == "__main__":
    main()

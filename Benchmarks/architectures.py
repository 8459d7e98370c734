#!/usr/bin/env python3
"""How fast each architecture decodes at real layer dimensions with a quarter of its experts in memory.

    Benchmarks/architectures.py [--runs 3]

`stoker synth --like` makes a model of each with fewer layers, Q4_0. Runs alternate between a budget of 25 %
of the experts and all of them; the bound is 1 / max(bytes read / bandwidth, time with every expert resident),
with the bytes of the same runs and the bandwidth that `stoker inspect --disk` measures between them.
"""
import statistics

import common

# Layers, so that a file has some 2 GB.
MODELS = {
    "olmoe-1b-7b": 8, "qwen3-30b-a3b": 6, "mixtral-8x7b": 3, "qwen1.5-moe-a2.7b": 8,
    "granite-3.1-3b-a800m": 32, "glm-4.5-air": 3, "ernie-4.5-21b-a3b": 6, "gpt-oss-20b": 4,
    "deepseek-v2-lite": 7, "phi-3.5-moe": 3, "qwen3-next-80b-a3b": 4, "qwen3.5-35b-a3b": 4,
}
CONTEXT = 256


def main():
    parser = common.argument_parser(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = parser.parse_args()
    stoker = common.build("stoker")
    print(f"Processor: {common.processor()}, {arguments.threads} threads.\n")
    common.print_header("like", "layers", "GB", "tokens/s at 25 %", "MB per token", "hits", "GB/s",
                        "tokens/s resident", "bound", "of the bound")
    ids = common.random_ids(32, 96, below=30000)
    for like in arguments.models:
        model = common.synthesize(stoker, arguments.work_directory, like, "q4_0", layers=MODELS[like])
        summary = common.inspect(stoker, model, "--context", CONTEXT)
        memory = summary["full_budget"] - int(0.75 * summary["expert_bytes"])
        quarter, whole, disks = [], [], []
        for _ in range(arguments.runs):
            quarter.append(common.run_stoker(stoker, model, ids, arguments.threads, memory))
            disks.append(common.inspect(stoker, model, "--disk")["disk"]["bytes_per_second"])
            whole.append(common.run_stoker(stoker, model, ids, arguments.threads))
        speed, resident = (common.median(rows, "tokens_per_second") for rows in (quarter, whole))
        read = common.median(quarter, "read_bytes_per_token")
        disk = statistics.median(disks)
        bound = 1 / max(read / disk, 1 / resident)
        common.print_row(
            like, str(MODELS[like]), f"{model.stat().st_size / 1e9:.1f}", f"{speed:.2f}", f"{read / 1e6:.1f}",
            f"{100 * common.median(quarter, 'decode_hit_rate'):.0f} %", f"{disk / 1e9:.2f}", f"{resident:.2f}",
            f"{bound:.2f}", f"{speed / bound:.2f}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Speed with every expert in memory: Stoker beside llama.cpp, and beside what the machine can do.

    sudo Benchmarks/cpu.py [--runs 5] [--models NAME ...] [--quick] [--work-directory DIR]

Synthesises the models unless they are there (OLMoE-1B-7B's dimensions in three quantizations,
Qwen3-30B-A3B's with six layers; 17 GB), then measures in turn, `--runs` times per model: prefill
(512 ids) and then decode (64 forced ids) of both engines on the same file and ids with two threads,
prefill (1,024 ids) of Stoker with every expert and with a quarter of the experts resident, page
cache dropped before, and what memory, sgemm and the disk reach. Prints Markdown tables of medians. Neither engine's time includes loading the model. With --quick the models
have two layers of 16 experts: a test of this script, not of an engine.

Needs root (dropping the page cache), ../shared/tools (llama_baseline.py), OpenBLAS, and
llama-cpp-python, which is installed into .build-venv where --llama-python names no other
interpreter (it builds from source, about ten minutes).
"""
import json
import sys

import common
from common import median, spread

OLMOE, QWEN = ("olmoe-1b-7b", {}), ("qwen3-30b-a3b", {"layers": 6})
MODELS = {
    "olmoe-q4_0": (*OLMOE, "q4_0"), "olmoe-q8_0": (*OLMOE, "q8_0"), "olmoe-q4_K": (*OLMOE, "q4_K"),
    "qwen3-q4_K": (*QWEN, "q4_K")}
PREFILL_COUNT, DECODE_COUNT, LONG_COUNT = 512, 64, 1024
IDS = common.random_ids(PREFILL_COUNT, DECODE_COUNT)
LONG_IDS = common.random_ids(LONG_COUNT, 1)
RESIDENT_SHARE = 0.25


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="tiny models, to test the script")
    return parser.parse_args()


def run_stoker(stoker, model, ids, threads, memory=None):
    report = common.run_stoker(stoker, model, ids, threads, memory)
    run = report["run"]
    shape = run["configuration"]
    if memory is None and shape["slots"] != shape["experts"]:
        sys.exit(f"{model.name}: {shape['slots']} of {shape['experts']} experts fit this machine")
    return {
        "tokens_per_s": report["tokens_per_second"], "ttft_s": run["time_to_first_token"],
        "prefill_per_s": run["prompt_tokens"] / run["time_to_first_token"],
        "resident": shape["slots"] / shape["experts"], "kernels": shape["kernels"],
        "bytes_read": run["experts"]["prefill"]["demanded_byte_count"]}


def run_llama(python, model, ids, threads):
    report = common.run_llama(python, model, ids, threads)
    report["prefill_per_s"] = (ids[0].count(",") + 1) / report["ttft_s"]
    return report


def budget(stoker, model, threads):
    """The --memory at which RESIDENT_SHARE of the experts have slots, if that is enough to run."""
    facts = common.inspect(
        stoker, model, "--threads", threads, "--context", LONG_COUNT + 1)
    experts, active = facts["layers"] * facts["experts"], facts["experts_per_token"]
    # The smallest budget has slots for one token's experts of one layer, the full one for all.
    slot = (facts["full_budget"] - facts["minimum_budget"]) / (experts - active)
    slots = max(active, RESIDENT_SHARE * experts)
    return round(facts["minimum_budget"] + (slots - active) * slot)


def active_weights(facts):
    """Weights that each token of a prompt is multiplied with, the output head excluded."""
    heads = 2 * facts["heads"] + 2 * facts["key_value_heads"]
    attention = heads * facts["head_dimension"]
    experts = 3 * facts["experts_per_token"] * facts["expert_feed_forward_size"]
    return facts["layers"] * facts["hidden_size"] * (attention + facts["experts"] + experts)


def measure_machine(program, threads, kernels, quant):
    """Bytes/s of memory reads and operations/s of sgemm with all threads."""
    report = json.loads(common.run(
        [program, "--json", "--quick", "--threads", threads, "--sets", kernels, "--types", quant]))
    reads = [row for row in report["memory_reads"] if row["threads"] == threads]
    return {
        "memory": reads[0]["bytes_per_second"]["median"],
        "sgemm": report["square_sgemm"][0]["operations_per_second"]["median"]}


class Measurements:
    """What the rounds gave for one model."""

    def __init__(self, name, stoker, arguments):
        self.name = name
        like, sizes, self.quant = MODELS[name]
        if arguments.quick:
            sizes = {"layers": 2, "experts": 16}
        self.model = common.synthesize(
            stoker, arguments.work_directory, like, self.quant, **sizes)
        self.facts = common.inspect(stoker, self.model)
        self.rows = {}

    def add(self, kind, row):
        self.rows.setdefault(kind, []).append(row)

    def measure(self, stoker, kernel_benchmark, python, threads):
        self.add("stoker", run_stoker(stoker, self.model, IDS, threads))
        self.add("llama", run_llama(python, self.model, IDS, threads))
        self.add("machine", measure_machine(
            kernel_benchmark, threads, self.rows["stoker"][0]["kernels"], self.quant))
        self.add("resident", run_stoker(stoker, self.model, LONG_IDS, threads))
        self.add("disk", common.measure_disk(stoker, self.model))
        memory = budget(stoker, self.model, threads)
        common.drop_page_cache()
        self.add("offloaded", run_stoker(stoker, self.model, LONG_IDS, threads, memory))

    def print_decode(self):
        ours, theirs = self.rows["stoker"], self.rows["llama"]
        speed = median(ours, "tokens_per_s")
        byte_count = self.facts["active_bytes_per_token"]
        memory = median(self.rows["machine"], "memory")
        common.print_row(
            self.name, spread(ours, "tokens_per_s", 2), spread(theirs, "tokens_per_s", 2),
            f"{speed / median(theirs, 'tokens_per_s'):.2f}", f"{byte_count / 1e6:.0f}",
            f"{byte_count * speed / 1e9:.1f}", f"{memory / 1e9:.1f}",
            f"{byte_count * speed / memory:.2f}")

    def print_prefill(self):
        ours, theirs = self.rows["stoker"], self.rows["llama"]
        speed = median(ours, "prefill_per_s")
        operations = 2 * active_weights(self.facts) * speed
        sgemm = median(self.rows["machine"], "sgemm")
        common.print_row(
            self.name, spread(ours, "ttft_s", 2), spread(theirs, "ttft_s", 2), f"{speed:.0f}",
            f"{median(theirs, 'prefill_per_s'):.0f}",
            f"{speed / median(theirs, 'prefill_per_s'):.2f}", f"{operations / 1e9:.0f}",
            f"{sgemm / 1e9:.0f}", f"{operations / sgemm:.2f}")

    def print_offloaded(self):
        all_resident, offloaded = self.rows["resident"], self.rows["offloaded"]
        speed = median(offloaded, "prefill_per_s")
        byte_count = median(offloaded, "bytes_read")
        disk = median(self.rows["disk"], "bytes_per_second")
        common.print_row(
            self.name, spread(all_resident, "prefill_per_s", 1), spread(offloaded, "prefill_per_s", 1),
            f"{speed / median(all_resident, 'prefill_per_s'):.2f}",
            f"{100 * offloaded[0]['resident']:.1f} %", f"{byte_count / 1e9:.2f}", f"{disk / 1e9:.2f}",
            f"{LONG_COUNT * disk / byte_count:.1f}" if byte_count else "-")


def main():
    arguments = parse_arguments()
    common.check_machine("dropping the page cache needs it")
    python = common.llama_python(arguments)
    stoker, kernel_benchmark = common.build("stoker"), common.build("KernelBenchmark")
    models = [Measurements(name, stoker, arguments) for name in arguments.models]
    for round_index in range(arguments.runs):
        for model in models:
            print(f"round {round_index + 1} of {arguments.runs}, {model.name}", file=sys.stderr)
            model.measure(stoker, kernel_benchmark, python, arguments.threads)

    first = models[0].rows
    common.print_machine(
        arguments.threads, first["stoker"][0]["kernels"], first["llama"][0]["version"])
    print(f"\nDecode, {DECODE_COUNT} tokens after {PREFILL_COUNT}:\n")
    common.print_header(
        "model", "Stoker tokens/s", "llama.cpp tokens/s", "ratio", "MB of weights per token",
        "Stoker GB/s", "memory reads GB/s", "share")
    for model in models:
        model.print_decode()
    print(f"\nPrefill, {PREFILL_COUNT} tokens:\n")
    common.print_header(
        "model", "TTFT Stoker (s)", "TTFT llama.cpp (s)", "Stoker tokens/s", "llama.cpp tokens/s",
        "ratio", "Stoker GFLOP/s", "sgemm GFLOP/s", "share")
    for model in models:
        model.print_prefill()
    print(f"\nPrefill of Stoker, {LONG_COUNT} tokens, every expert against a quarter resident:\n")
    common.print_header(
        "model", "all resident tokens/s", "a quarter tokens/s", "ratio", "experts with slots",
        "GB read", "disk GB/s", "the disk alone tokens/s")
    for model in models:
        model.print_offloaded()


if __name__ == "__main__":
    main()

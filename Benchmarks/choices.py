#!/usr/bin/env python3
"""Whether the planned way to run a model is the fastest there is, by running the alternatives.

    sudo Benchmarks/choices.py [--runs 3] [--cells olmoe-q4_0:25 ...]

For each cell, a model and a share of its experts, reads in turn every way that may be chosen: past the page
cache with none ahead, what pays, and at most 1, 2 or 4 experts of a layer ahead; and through the page cache
with none ahead and what pays. Prints the medians of tokens/s and what `stoker plan` chose from a trace of the
same prompt. All is done in a memory control group of the budget and a thirty-second of the experts (at least
4 MiB), and the page cache is dropped before every run, so that none beside the budget answers. The profile of the
machine is the one that Benchmarks/plan.py measured, if it has been run, else it is measured first.

Needs root and ../shared/tools (capped.sh).
"""
import json
import os
import random
import statistics
import sys

import common
import plan

# --direct and --prefetch.
WAYS = [("on", "off"), ("on", "auto"), ("on", "1"), ("on", "2"), ("on", "4"), ("off", "off"), ("off", "auto")]
NAMES = ["direct", "direct, auto", "direct, 1", "direct, 2", "direct, 4", "buffered", "buffered, auto"]


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=3)
    parser.add_argument("--cells", nargs="+",
                        default=["olmoe-q4_0:25", "olmoe-q4_0:50", "qwen3-6-q4_K:25", "qwen3-6-q4_K:50"])
    parser.add_argument("--tokens", type=int, default=128)
    return parser.parse_args()


def budget(stoker, model, share, tokens):
    """The budget that holds so many percent of the experts, and the cap on it and the page cache together."""
    summary = common.inspect(stoker, model, "--context", 384 + tokens)
    memory = summary["full_budget"] - int(summary["expert_bytes"] * (1 - share / 100))
    memory = max(memory, summary["minimum_budget"] + (1 << 20))
    return memory, memory + max(4 << 20, summary["expert_bytes"] // 32)


def capped(limit):
    return [common.TOOLS / "capped.sh", limit]


def run(stoker, model, memory, limit, tokens, prompt, way, threads):
    direct, prefetch = way
    common.drop_page_cache()
    report = json.loads(common.run(
        [*capped(limit), stoker, "run", model, "--memory", memory, "--context", 384 + tokens,
         "--prompt-file", prompt, "--max-tokens", tokens, "--ignore-end", "--no-history", "--direct", direct,
         "--prefetch", prefetch, "--threads", threads, "--json"],
        env={**os.environ, "XDG_CACHE_HOME": "/nonexistent"}))
    return report["statistics"]["tokens_per_second"]


def main():
    arguments = parse_arguments()
    common.check_machine("memory control groups need it")
    stoker, directory, prompt = plan.prepare(arguments)
    common.keep_profile(stoker, directory)
    common.print_header("model", "experts", *NAMES, "planned", "of the best")
    for cell in arguments.cells:
        name, share = cell.split(":")
        print(cell, file=sys.stderr)
        tokens = plan.token_count(name, arguments)
        model = plan.find_model(stoker, directory, name)
        trace = directory / f"{name}.moetrace"
        plan.record(stoker, model, trace, prompt, tokens)
        memory, limit = budget(stoker, model, int(share), tokens)
        chosen = json.loads(common.run(
            [*capped(limit), stoker, "plan", model, "--memory", memory, "--trace", trace,
             "--max-tokens", tokens, "--context", 384 + tokens, "--threads", arguments.threads, "--json"]))
        speeds = {way: [] for way in WAYS}
        # So fast that a run is short.
        for _ in range(arguments.runs * (3 if name == "demo" else 1)):
            for way in random.sample(WAYS, len(WAYS)):
                speeds[way].append(
                    run(stoker, model, memory, limit, tokens, prompt, way, arguments.threads))
        medians = {way: statistics.median(values) for way, values in speeds.items()}
        planned = ("on" if chosen["choice"]["reads"] == "direct" else "off",
                   "auto" if chosen["choice"]["prefetch"] else "off")
        common.print_row(
            name, f"{chosen['slots']} of {chosen['model']['layers'] * chosen['model']['experts']}",
            *(f"{medians[way]:.2f}" for way in WAYS), NAMES[WAYS.index(planned)],
            f"{medians[planned] / max(medians.values()):.3f}")


if __name__ == "__main__":
    main()

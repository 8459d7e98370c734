#!/usr/bin/env python3
"""Whether the planned way to run a model is the fastest there is, by running the alternatives.

    Benchmarks/choices.py [--runs 3] [--cells olmoe-q4_0:25 ...]

For each cell, a model and a share of its experts, reads every way that may be chosen past the page cache:
none ahead, what pays, and at most 1, 2 or 4 experts of a layer ahead, in turn, and prints the medians beside
what `stoker plan` chose from a trace of the same prompt. The profile of the machine is the one that
Benchmarks/plan.py measured, if it has been run, else it is measured first.
"""
import json
import os
import statistics
import sys

import common
import plan

WAYS = ["off", "auto", "1", "2", "4"]


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=3)
    parser.add_argument("--cells", nargs="+",
                        default=["demo:25", "olmoe-q4_0:25", "olmoe-q4_0:50", "qwen3-6-q4_K:25"])
    parser.add_argument("--tokens", type=int, default=128)
    return parser.parse_args()


def budget(stoker, model, share, tokens):
    summary = common.inspect(stoker, model, "--context", 384 + tokens)
    memory = summary["full_budget"] - int(summary["expert_bytes"] * (1 - share / 100))
    return max(memory, summary["minimum_budget"] + (1 << 20))


def run(stoker, model, memory, tokens, prompt, way, threads):
    report = json.loads(common.run(
        [stoker, "run", model, "--memory", memory, "--context", 384 + tokens, "--prompt-file", prompt,
         "--max-tokens", tokens, "--ignore-end", "--no-history", "--prefetch", way, "--threads", threads,
         "--json"], env={**os.environ, "XDG_CACHE_HOME": "/nonexistent"}))
    return report["statistics"]["tokens_per_second"]


def main():
    arguments = parse_arguments()
    stoker = common.build("stoker")
    directory = arguments.work_directory
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    if not (directory / "cache/stoker/machine.json").exists():
        common.run([stoker, "calibrate", "--directory", directory])
    prompt = directory / "prompt.txt"
    prompt.write_text(plan.TEXT)
    common.print_header("model", "experts", *WAYS, "planned", "of the best")
    for cell in arguments.cells:
        name, share = cell.split(":")
        print(cell, file=sys.stderr)
        tokens = plan.token_count(name, arguments)
        model = plan.find_model(stoker, directory, name)
        trace = directory / f"{name}.moetrace"
        plan.record(stoker, model, trace, prompt, tokens)
        memory = budget(stoker, model, int(share), tokens)
        chosen = json.loads(common.run(
            [stoker, "plan", model, "--memory", memory, "--trace", trace, "--max-tokens", tokens,
             "--context", 384 + tokens, "--threads", arguments.threads, "--json"]))
        speeds = {way: [] for way in WAYS}
        for _ in range(arguments.runs):
            for way in WAYS:
                speeds[way].append(
                    run(stoker, model, memory, tokens, prompt, way, arguments.threads))
        medians = {way: statistics.median(values) for way, values in speeds.items()}
        planned = "auto" if chosen["choice"]["prefetch"] else "off"
        common.print_row(
            name, f"{chosen['slots']} of {chosen['model']['layers'] * chosen['model']['experts']}",
            *(f"{medians[way]:.2f}" for way in WAYS), planned,
            f"{medians[planned] / max(medians.values()):.3f}")


if __name__ == "__main__":
    main()

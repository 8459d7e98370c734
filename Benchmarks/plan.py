#!/usr/bin/env python3
"""How far off `stoker plan` is, over models, budgets and ways to read.

    Benchmarks/plan.py [--models demo olmoe-q4_0 ...] [--shares 15 25 50 75 100] [--runs 1]

Measures the machine once and records a trace of each model, as hits are a matter of the trace and not of
the machine; then, cell by cell in a random order, `stoker plan --verify` runs the same prompt in a smaller
budget and prints what was predicted beside what was measured: blind, from the machine as it was measured at
first, and probed, with the rates of the drive and of the products as they were during the cell's run,
sampled between its tokens.
"""
import json
import os
import random
import statistics
import sys

import common

MODELS = {
    # So fast that many tokens are needed for a time; its context has no room for more.
    "demo": None,
    "olmoe-q4_0": ("olmoe-1b-7b", "q4_0", {}),
    "olmoe-q8_0": ("olmoe-1b-7b", "q8_0", {}),
    "qwen3-6-q4_K": ("qwen3-30b-a3b", "q4_K", {"layers": 6}),
}
TEXT = ("In the evening she wrote to her brother that the road over the pass was open again, that two of "
        "the horses had gone lame, and that nobody in the village believed the story of the miller. ")


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=1)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--shares", nargs="+", type=int, default=[15, 25, 50, 75, 100])
    parser.add_argument("--tokens", type=int, default=128)
    return parser.parse_args()


def prepare(arguments):
    """Builds stoker and lets it keep the machine's profile in the working folder; returns it, the folder and a
    prompt's file."""
    stoker = common.build("stoker")
    directory = arguments.work_directory
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    prompt = directory / "prompt.txt"
    prompt.write_text(TEXT)
    return stoker, directory, prompt


def find_model(stoker, directory, name):
    if MODELS[name] is None:
        return common.REPOSITORY / "Sources/StokerCLI/Resources/demo-Q4_K_M.gguf"
    like, quant, sizes = MODELS[name]
    return common.synthesize(stoker, directory, like, quant, **sizes)


def token_count(name, arguments):
    return 5 * arguments.tokens if name == "demo" else arguments.tokens


def record(stoker, model, path, prompt, tokens):
    """A trace of the prompt and the tokens after it, with every expert resident, and of what the model's predictor
    makes of them: plans then know what reading ahead would find."""
    path.unlink(missing_ok=True)
    common.run([stoker, "run", model, "--prompt-file", prompt, "--max-tokens", tokens, "--ignore-end",
                "--no-history", "--record", path, "--record-candidates"])


def error(predicted, measured):
    return predicted / measured - 1


def verify(stoker, cell, arguments):
    name, model, trace, share, direct = cell
    tokens = token_count(name, arguments)
    # Enough for the prompt, which takes more tokens of a synthetic vocabulary.
    context = 384 + tokens
    summary = common.inspect(stoker, model, "--context", context, "--prefetch", "off")
    memory = summary["full_budget"] - int(summary["expert_bytes"] * (1 - share / 100))
    memory = max(memory, summary["minimum_budget"] + (1 << 20))
    rows = json.loads(common.run(
        [stoker, "plan", model, "--memory", memory, "--trace", trace, "--verify", "--direct", direct,
         "--prompt-file", arguments.work_directory / "prompt.txt", "--max-tokens", tokens, "--context", context,
         "--threads", arguments.threads, "--json"]))
    return rows[0]


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def main():
    arguments = parse_arguments()
    stoker, directory, prompt = prepare(arguments)
    models = {name: find_model(stoker, directory, name) for name in arguments.models}
    cells = []
    for name, model in models.items():
        trace = directory / f"{name}.moetrace"
        record(stoker, model, trace, prompt, token_count(name, arguments))
        cells += [(name, model, trace, share, direct)
                  for share in arguments.shares for direct in ("on", "off")]
    common.run([stoker, "calibrate", "--directory", directory, "--threads", arguments.threads])
    rows = {}
    # The demo model's runs are so short that one alone says little.
    round_cells = [cell for cell in cells for _ in range(3 if cell[0] == "demo" else 1)]
    for round_index in range(arguments.runs):
        for index, cell in enumerate(random.Random(round_index).sample(round_cells, len(round_cells))):
            print(f"round {round_index + 1}, run {index + 1} of {len(round_cells)}: {cell[0]} {cell[3]} % "
                  f"direct {cell[4]}", file=sys.stderr)
            rows.setdefault(cell, []).append(verify(stoker, cell, arguments))
    print_table(cells, rows)


def row_error(row, prediction, figure):
    return error(row[prediction][figure], row["measured"][figure])


def median_row(rows, prediction, figure):
    return sorted(rows, key=lambda row: row_error(row, prediction, figure))[len(rows) // 2]


def print_table(cells, rows):
    print(f"Processor: {common.processor()}.\n")
    common.print_header(
        "model", "experts", "reads", "tokens/s", "blind", "error", "probed", "error", "drive", "products",
        "first token (s)", "probed", "error", "hits", "predicted", "MB per token", "predicted")
    errors = {key: [] for key in ("blind", "probed", "first")}
    for cell in cells:
        # Of several runs the one whose error is the median, of tokens/s and of the first token by itself.
        row = median_row(rows[cell], "probed", "tokens_per_second")
        first = median_row(rows[cell], "probed", "time_to_first_token")
        measured, probed = row["measured"], row["probed"]
        errors["blind"].append(row_error(row, "blind", "tokens_per_second"))
        errors["probed"].append(row_error(row, "probed", "tokens_per_second"))
        errors["first"].append(row_error(first, "probed", "time_to_first_token"))
        reads = row["choice"]["reads"] + (", ahead" if row["choice"]["prefetch"] else "")
        common.print_row(
            cell[0], f"{row['slots']} of {row['experts']}", reads,
            f"{measured['tokens_per_second']:.2f}", f"{row['blind']['tokens_per_second']:.2f}",
            f"{100 * errors['blind'][-1]:+.1f} %",
            f"{probed['tokens_per_second']:.2f}", f"{100 * errors['probed'][-1]:+.1f} %",
            f"{row['disk_ratio']:.2f}", f"{row['compute_ratio']:.2f}",
            f"{first['measured']['time_to_first_token']:.3f}",
            f"{first['probed']['time_to_first_token']:.3f}",
            f"{100 * errors['first'][-1]:+.1f} %", f"{100 * measured['hit_rate']:.1f} %",
            f"{100 * probed['hit_rate']:.1f} %", f"{measured['bytes_per_token'] / 1e6:.1f}",
            f"{probed['bytes_per_token'] / 1e6:.1f}")
    print()
    for name, key in (("tokens/s, blind", "blind"), ("tokens/s, probed", "probed"),
                      ("first token, probed", "first")):
        sizes = [abs(value) for value in errors[key]]
        print(f"Error of {name}: median {100 * statistics.median(sizes):.1f} %, 95th percentile "
              f"{100 * quantile(sizes, 0.95):.1f} %, mean with sign "
              f"{100 * statistics.mean(errors[key]):+.1f} %, {len(sizes)} cells.")


if __name__ == "__main__":
    main()

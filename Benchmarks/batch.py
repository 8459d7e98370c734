#!/usr/bin/env python3
"""How far off `stoker plan --batch` is, and what decoding several sequences together brings.

    Benchmarks/batch.py [--models olmoe-q4_0 qwen3-6-q4_K] [--shares 25 50] [--batches 1 2 4 8 16] [--runs 3]

A recorded run of each model is cut into as many sequences as are decoded together, which is what a plan and
`stoker replay --live` do with a trace of one: the plan predicts, the live replay puts every step's tokens through
the whole model, with the trace's routing and direct reads. Runs of all cells take turns, in a random order.
The machine is measured at the beginning, with Benchmarks/plan.py's profile if it is there.
"""
import json
import random
import statistics
import sys

import common
import plan


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", default=["olmoe-q4_0", "qwen3-6-q4_K"])
    parser.add_argument("--shares", nargs="+", type=int, default=[25, 50])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=256)
    return parser.parse_args()


def slot_bytes(plan):
    return next(part["bytes"] for part in plan["parts"] if part["name"] == "expert slots")


def planned(stoker, cell, context, arguments):
    """The plan with so large a share of the experts, whatever the sequences' caches take."""
    _, model, trace, share, batch = cell

    def at(memory):
        return json.loads(common.run(
            [stoker, "plan", model, "--memory", memory, "--batch", batch, "--trace", trace, "--direct", "on",
             "--prefetch", "off", "--context", context, "--prompt-tokens", 64,
             "--max-tokens", arguments.tokens // batch, "--threads", arguments.threads, "--json"]))

    whole = at("1TiB")
    return at(sum(part["bytes"] for part in whole["parts"]) - int(slot_bytes(whole) * (1 - share / 100)))


def measure(stoker, cell, slots, arguments):
    _, model, trace, _, batch = cell
    return json.loads(common.run(
        [stoker, "replay", trace, "--live", model, "--memory", slots, "--batch", batch, "--direct", "on",
         "--threads", arguments.threads, "--json"]))[0]


def main():
    arguments = parse_arguments()
    stoker, directory, prompt = plan.prepare(arguments)
    common.keep_profile(stoker, directory)
    context = 384 + arguments.tokens
    cells, plans = [], {}
    for name in arguments.models:
        model = plan.find_model(stoker, directory, name)
        trace = directory / f"{name}-batch.moetrace"
        plan.record(stoker, model, trace, prompt, arguments.tokens)
        cells += [(name, model, trace, share, batch)
                  for share in arguments.shares for batch in arguments.batches]
    for cell in cells:
        plans[cell] = planned(stoker, cell, context, arguments)
    rows = {}
    for round_index in range(arguments.runs):
        for index, cell in enumerate(random.Random(round_index).sample(cells, len(cells))):
            print(f"round {round_index + 1}, run {index + 1} of {len(cells)}: {cell[0]} {cell[3]} % "
                  f"batch {cell[4]}", file=sys.stderr)
            rows.setdefault(cell, []).append(measure(stoker, cell, slot_bytes(plans[cell]), arguments))
    print(f"Processor: {common.processor()}.\n")
    common.print_header("model", "experts", "together", "tokens/s", "predicted", "error", "of one", "predicted",
                        "hits", "predicted", "MB per token", "predicted")
    errors, gain_errors = [], []
    for cell in cells:
        found, expected = rows[cell], plans[cell]["prediction"]
        speed = common.median(found, "tokens_per_second")
        first = (*cell[:4], arguments.batches[0])
        gain = speed / common.median(rows[first], "tokens_per_second")
        expected_gain = expected["tokens_per_second"] / plans[first]["prediction"]["tokens_per_second"]
        errors.append(plan.error(expected["tokens_per_second"], speed))
        if cell != first:
            gain_errors.append(plan.error(expected_gain, gain))
        common.print_row(
            cell[0], f"{cell[3]} %", str(cell[4]), common.spread(found, "tokens_per_second", 2),
            f"{expected['tokens_per_second']:.2f}", f"{100 * errors[-1]:+.1f} %", f"{gain:.2f}", f"{expected_gain:.2f}",
            f"{100 * found[0]['measured_hit_rate']:.1f} %", f"{100 * expected['hit_rate']:.1f} %",
            f"{found[0]['bytes_per_token'] / 1e6:.1f}", f"{expected['bytes_per_token'] / 1e6:.1f}")
    print()
    for name, values in (("tokens/s", errors), ("what more than one together bring", gain_errors)):
        sizes = [abs(value) for value in values]
        print(f"Error of {name}: median {100 * statistics.median(sizes):.1f} %, largest {100 * max(sizes):.1f} %, "
              f"mean with sign {100 * statistics.mean(values):+.1f} %, {len(sizes)} cells.")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Decode speed of a model larger than its memory, Stoker beside llama.cpp on the same file and ids.

    sudo Benchmarks/offload.py [--runs 3] [--caps 2G 3G none] [--work-directory DIR]

Synthesises the model (OLMoE-1B-7B's dimensions, Q4_0, 3.6 GiB) unless it is there, then runs both
engines in turn, `--runs` times per memory cap: page cache dropped, a prompt of 32 ids, 64 forced ids,
two threads, each alone in a memory control group. Prints one Markdown table of medians.

Needs root (control groups, dropping the page cache), ../shared/tools (capped.sh,
llama_baseline.py), and llama-cpp-python, which is installed into .build-venv where --llama-python
names no other interpreter (it builds from source, about ten minutes).
"""
import sys

import common
from common import median, spread

UNITS = {"K": 10, "M": 20, "G": 30}
# Left to the kernel inside a cap: page tables, the ring, file metadata.
HEADROOM = 96 << 20


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=3)
    parser.add_argument("--caps", nargs="+", default=["2G", "3G", "none"])
    return parser.parse_args()


def byte_count(size):
    return int(size[:-1]) << UNITS[size[-1]]


def capped(cap):
    """The words that run a command under a cap; none for no cap."""
    return [] if cap == "none" else [common.TOOLS / "capped.sh", cap]


def run_stoker(stoker, model, ids, cap, threads):
    common.drop_page_cache()
    memory = None if cap == "none" else byte_count(cap) - HEADROOM
    report = common.run_stoker(stoker, model, ids, threads, memory, capped(cap))
    return {
        "tokens_per_s": report["tokens_per_second"], "ttft_s": report["run"]["time_to_first_token"],
        "hit_rate": report["decode_hit_rate"], "bytes_per_token": report["read_bytes_per_token"],
        "kernels": report["run"]["configuration"]["kernels"]}


def run_llama(python, model, ids, cap, threads):
    common.drop_page_cache()
    plain = [] if cap == "none" else ["--no-repack"]
    return common.run_llama(python, model, ids, threads, capped(cap), plain)


def main():
    arguments = parse_arguments()
    common.check_machine("control groups and dropping the page cache need it")
    python = common.llama_python(arguments)
    stoker = common.build("stoker")
    model = common.synthesize(stoker, arguments.work_directory, "olmoe-1b-7b", "q4_0")
    ids = common.random_ids(32, 64)

    ours, theirs, disks = {}, {}, []
    for round_index in range(arguments.runs):
        disks.append(common.measure_disk(stoker, model))
        for cap in arguments.caps:
            print(f"round {round_index + 1} of {arguments.runs}, cap {cap}", file=sys.stderr)
            ours.setdefault(cap, []).append(run_stoker(stoker, model, ids, cap, arguments.threads))
            theirs.setdefault(cap, []).append(
                run_llama(python, model, ids, cap, arguments.threads))
    print_table(arguments, ours, theirs, disks)


def print_table(arguments, ours, theirs, disks):
    disk = median(disks, "bytes_per_second")
    first = arguments.caps[0]
    common.print_machine(arguments.threads, ours[first][0]["kernels"], theirs[first][0]["version"])
    common.print_disk(disks)
    common.print_header(
        "cap", "Stoker tokens/s", "llama.cpp tokens/s", "ratio", "hit rate", "MB read per token",
        "serial bound tokens/s", "of the bound", "TTFT Stoker, llama.cpp (s)")
    resident = 1 / median(ours["none"], "tokens_per_s") if "none" in ours else None
    for cap in arguments.caps:
        mine, other = ours[cap], theirs[cap]
        speed = median(mine, "tokens_per_s")
        read = median(mine, "bytes_per_token")
        bound = 1 / (read / disk + resident) if resident and cap != "none" else None
        common.print_row(
            "none, all resident" if cap == "none" else cap + "iB",
            spread(mine, "tokens_per_s", 2), spread(other, "tokens_per_s", 2),
            f"{speed / median(other, 'tokens_per_s'):.2f}",
            f"{100 * median(mine, 'hit_rate'):.1f} %", f"{read / 1e6:.0f}",
            f"{bound:.2f}" if bound else "-", f"{speed / bound:.2f}" if bound else "-",
            f"{median(mine, 'ttft_s'):.2f}, {median(other, 'ttft_s'):.2f}")


if __name__ == "__main__":
    main()

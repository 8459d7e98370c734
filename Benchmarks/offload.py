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
import argparse
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY.parent / "shared" / "tools"
UNITS = {"K": 10, "M": 20, "G": 30}
# Left to the kernel inside a cap: page tables, the ring, file metadata.
HEADROOM = 96 << 20


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--caps", nargs="+", default=["2G", "3G", "none"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work-directory", type=pathlib.Path, default=REPOSITORY / ".build-bench")
    parser.add_argument("--llama-python", help="a Python that imports llama_cpp")
    return parser.parse_args()


def run(command, **options):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:4]))} ... failed:\n{result.stderr[-2000:]}")
    return result.stdout


def llama_python(arguments):
    if arguments.llama_python:
        return arguments.llama_python
    python = REPOSITORY / ".build-venv" / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", python.parent.parent])
    if subprocess.run([python, "-c", "import llama_cpp"], capture_output=True).returncode != 0:
        print("building llama-cpp-python (about ten minutes)", file=sys.stderr)
        run([python, "-m", "pip", "install", "-q", "llama-cpp-python"])
    return python


def byte_count(size):
    return int(size[:-1]) << UNITS[size[-1]]


def capped(cap):
    """The words that run a command under a cap; none for no cap."""
    return [] if cap == "none" else [TOOLS / "capped.sh", cap]


def drop_page_cache():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def run_stoker(stoker, model, ids, cap, threads):
    drop_page_cache()
    memory = [] if cap == "none" else ["--memory", byte_count(cap) - HEADROOM]
    report = json.loads(run(
        [*capped(cap), stoker, "run", model, "--token-ids", ids[0], "--forced-ids", ids[1],
         "--threads", threads, "--json", *memory]))["statistics"]
    return {
        "tokens_per_s": report["tokens_per_second"], "ttft_s": report["run"]["time_to_first_token"],
        "hit_rate": report["decode_hit_rate"], "bytes_per_token": report["demanded_bytes_per_token"],
        "kernels": report["run"]["configuration"]["kernels"]}


def run_llama(python, model, ids, cap, threads):
    drop_page_cache()
    plain = [] if cap == "none" else ["--no-repack"]
    return json.loads(run(
        [*capped(cap), python, TOOLS / "llama_baseline.py", model, "--prompt-ids", ids[0],
         "--forced-ids", ids[1], "--threads", threads, *plain]).splitlines()[-1])


def measure_disk(stoker, model):
    drop_page_cache()
    return json.loads(run([stoker, "inspect", model, "--disk", "--json"]))["disk"]


def main():
    arguments = parse_arguments()
    if os.geteuid() != 0:
        sys.exit("run as root: control groups and dropping the page cache need it")
    if not TOOLS.exists():
        sys.exit(f"{TOOLS} is missing: capped.sh and llama_baseline.py are read from there")
    python = llama_python(arguments)
    run(["swift", "build", "-c", "release", "--product", "stoker"], cwd=REPOSITORY)
    stoker = REPOSITORY / ".build" / "release" / "stoker"
    arguments.work_directory.mkdir(parents=True, exist_ok=True)
    model = arguments.work_directory / "olmoe-1b-7b-q4_0.gguf"
    if not model.exists():
        run([stoker, "synth", model, "--like", "olmoe-1b-7b", "--quant", "q4_0", "--seed", 1])
    source = random.Random(1)
    ids = [",".join(str(source.randrange(1000, 50000)) for _ in range(n)) for n in (32, 64)]

    ours, theirs, disks = {}, {}, []
    for round_index in range(arguments.runs):
        disks.append(measure_disk(stoker, model))
        for cap in arguments.caps:
            print(f"round {round_index + 1} of {arguments.runs}, cap {cap}", file=sys.stderr)
            ours.setdefault(cap, []).append(run_stoker(stoker, model, ids, cap, arguments.threads))
            theirs.setdefault(cap, []).append(
                run_llama(python, model, ids, cap, arguments.threads))
    print_table(arguments, ours, theirs, disks)


def print_table(arguments, ours, theirs, disks):
    def median(rows, key):
        return statistics.median(row[key] for row in rows)

    def spread(rows, key, digits):
        values = sorted(row[key] for row in rows)
        return (f"{statistics.median(values):.{digits}f} "
                f"({values[0]:.{digits}f}-{values[-1]:.{digits}f})")

    processor = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    disk = statistics.median(row["bytes_per_second"] for row in disks)
    first = disks[0]
    print(f"Processor: {processor.group(1) if processor else 'unknown'}, "
          f"{arguments.threads} threads, {ours[arguments.caps[0]][0]['kernels']} kernels. "
          f"llama.cpp: llama-cpp-python {theirs[arguments.caps[0]][0]['version']}.")
    print(f"Disk: {disk / 1e9:.2f} GB/s ({first['engine']}, reads of "
          f"{first['read_byte_count'] / 2**20:.2f} MiB, {first['queue_depth']} at a time, "
          f"direct: {first['direct']}), median of {len(disks)}.\n")
    print("| cap | Stoker tokens/s | llama.cpp tokens/s | ratio | hit rate | MB read per token | "
          "serial bound tokens/s | of the bound | TTFT Stoker, llama.cpp (s) |")
    print("|---|---|---|---|---|---|---|---|---|")
    resident = 1 / median(ours["none"], "tokens_per_s") if "none" in ours else None
    for cap in arguments.caps:
        mine, other = ours[cap], theirs[cap]
        speed = median(mine, "tokens_per_s")
        read = median(mine, "bytes_per_token")
        bound = 1 / (read / disk + resident) if resident and cap != "none" else None
        print(f"| {'none, all resident' if cap == 'none' else cap + 'iB'} | "
              f"{spread(mine, 'tokens_per_s', 2)} | {spread(other, 'tokens_per_s', 2)} | "
              f"{speed / median(other, 'tokens_per_s'):.2f} | {100 * median(mine, 'hit_rate'):.1f} % | "
              f"{read / 1e6:.0f} | {f'{bound:.2f}' if bound else '-'} | "
              f"{f'{speed / bound:.2f}' if bound else '-'} | "
              f"{median(mine, 'ttft_s'):.2f}, {median(other, 'ttft_s'):.2f} |")


if __name__ == "__main__":
    main()

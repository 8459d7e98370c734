#!/usr/bin/env python3
"""What the packed layout gains, and what packing takes.

    Benchmarks/packing.py [--runs 5]

The built-in demo model and models of `stoker synth --like`, Q4_0, fewer layers, as they are and packed. Runs
alternate between both, with a quarter of the experts in memory, read with O_DIRECT; the drive's rate is that of
`stoker inspect --disk`, with the reads that each layout makes.
"""
import statistics
import time

import common

DEMO = common.REPOSITORY / "Sources" / "StokerCLI" / "Resources" / "demo-Q4_K_M.gguf"
MODELS = {"granite-3.1-3b-a800m": 32, "qwen3-30b-a3b": 8, "olmoe-1b-7b": 8}


def main():
    parser = common.argument_parser(__doc__, runs=5)
    arguments = parser.parse_args()
    stoker = common.build("stoker")
    directory = arguments.work_directory
    directory.mkdir(parents=True, exist_ok=True)
    print(f"Processor: {common.processor()}, {arguments.threads} threads.\n")
    common.print_header("model", "expert", "packing GB/s", "verifying GB/s", "reads: as it is", "packed",
                        "GB/s as it is", "packed", "tokens/s as it is", "packed", "packed / as it is")
    for name in ["demo", *MODELS]:
        if name == "demo":
            model, ids = DEMO, common.random_ids(32, 400, below=4000)
        else:
            model = common.synthesize(stoker, directory, name, "q4_0", layers=MODELS[name])
            ids = common.random_ids(32, 96, below=30000)
        packed = directory / f"{name}-packed.gguf"
        start = time.monotonic()
        common.run([stoker, "pack", model, packed, "--force"])
        packing = packed.stat().st_size / (time.monotonic() - start)
        start = time.monotonic()
        common.run([stoker, "verify", packed])
        verifying = packed.stat().st_size / (time.monotonic() - start)
        summary = common.inspect(stoker, model, "--context", 512)
        memory = summary["full_budget"] - int(0.75 * summary["expert_bytes"])
        expert = max(group["byte_count"] for group in summary["expert_groups"])
        runs, disks = ([], []), ([], [])
        for _ in range(arguments.runs):
            for rows, rates, path in zip(runs, disks, (model, packed)):
                rows.append(common.run_stoker(stoker, path, ids, arguments.threads, memory))
                rates.append(common.inspect(stoker, path, "--disk")["disk"])
        speeds = [common.median(rows, "tokens_per_second") for rows in runs]
        rates = [statistics.median(disk["bytes_per_second"] for disk in rows) for rows in disks]
        common.print_row(
            name, f"{expert / 1024:.0f} KiB", f"{packing / 1e9:.2f}", f"{verifying / 1e9:.2f}",
            *(f"{rows[0]['read_byte_count'] / 1024:.0f} KiB" for rows in disks),
            *(f"{rate / 1e9:.2f}" for rate in rates), *(f"{speed:.2f}" for speed in speeds),
            f"{speeds[1] / speeds[0]:.2f}")


if __name__ == "__main__":
    main()

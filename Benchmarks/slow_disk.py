#!/usr/bin/env python3
"""What a drive that is slowed on purpose does to calibration, plans and runs.

    sudo Benchmarks/slow_disk.py [--limit 400000000] [--work-directory DIR]

Calibrates twice in a row and says how many figures agree within their stated spreads. Then a control group
limits the reads of its processes to so many bytes per second: calibration in it, the plans of both profiles,
and a run that is planned outside of it and is slowed while it decodes. Needs root and version 1 of the block
control group.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import common

GROUP = pathlib.Path("/sys/fs/cgroup/blkio/stoker-slow-disk")


def parse_arguments():
    parser = common.argument_parser(__doc__, runs=1)
    parser.add_argument("--limit", type=int, default=400_000_000)
    return parser.parse_args()


def calibrate(stoker, directory, output, group=None):
    command = [stoker, "calibrate", "--directory", directory, "--output", output, "--json"]
    if group:
        command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command]
    start = time.monotonic()
    profile = json.loads(common.run(command))
    return profile, time.monotonic() - start


def figures(profile):
    """All figures with a spread, by name."""
    found = {}

    def walk(name, value):
        if isinstance(value, dict):
            if set(value) == {"value", "spread"}:
                found[name] = value
                return
            for key, part in value.items():
                walk(f"{name}.{key}", part)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    key = [str(part[k]) for k in ("kind", "type", "block_bytes", "depth", "tokens",
                                                  "threads", "is_cached") if k in part]
                    walk(f"{name}[{' '.join(key)}]", part)

    walk("", profile)
    return found


def agreement(first, second):
    """The share of figures whose ranges of spread meet, by group, and their median ratio."""
    a, b = figures(first), figures(second)
    groups = {}
    for name in a:
        if name not in b:
            continue
        x, y = a[name], b[name]
        near = abs(x["value"] - y["value"]) <= abs(x["value"]) * x["spread"] + abs(y["value"]) * y["spread"]
        group = name.split("[")[0].split(".")[1]
        if group == "disk":
            group = "disk, " + name.split("[")[1].split(" ")[0]
        ratio = y["value"] / x["value"] if x["value"] else 1
        groups.setdefault(group, []).append((near, ratio))
    return groups


def best_rate(profile):
    return max(cell["bytes_per_second"]["value"] for cell in profile["disk"] if cell["kind"] == "direct")


def plan(stoker, model, profile):
    return json.loads(common.run(
        [stoker, "plan", model, "--memory", "2GiB", "--profile", profile, "--json"]))["prediction"]


def set_limit(device, limit):
    (GROUP / "blkio.throttle.read_bps_device").write_text(f"{device} {limit}\n")


def drifting_run(stoker, model, device, limit):
    """A run that is slowed after it has decoded for a while: what it says."""
    process = subprocess.Popen(
        ["sh", "-c", f'echo $$ > {GROUP}/cgroup.procs; exec "$@"', "sh", stoker, "run", model, "--memory",
         "2GiB", "--prompt", "The old harbour lay quiet", "--max-tokens", "400", "--ignore-end",
         "--no-history"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(12)
    set_limit(device, limit)
    errors = process.communicate()[1]
    set_limit(device, 0)
    return [line for line in errors.splitlines() if line.startswith("plan:")]


def main():
    arguments = parse_arguments()
    common.check_machine("control groups need it")
    stoker = common.build("stoker")
    directory = arguments.work_directory
    model = common.synthesize(stoker, directory, "olmoe-1b-7b", "q4_0")
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    status = os.stat(directory).st_dev
    device = f"{os.major(status)}:{os.minor(status)}"
    paths = [directory / f"machine-{name}.json" for name in ("first", "second", "slow")]
    first, seconds = calibrate(stoker, directory, paths[0])
    second, _ = calibrate(stoker, directory, paths[1])
    print(f"Calibration took {seconds:.0f} s. Figures of a second one that meet the first within both spreads:\n")
    common.print_header("figures", "of", "agree", "median ratio")
    for group, pairs in sorted(agreement(first, second).items()):
        common.print_row(
            group, str(len(pairs)), f"{100 * sum(near for near, _ in pairs) / len(pairs):.0f} %",
            f"{statistics.median(ratio for _, ratio in pairs):.2f}")
    GROUP.mkdir(exist_ok=True)
    try:
        set_limit(device, arguments.limit)
        slow, _ = calibrate(stoker, directory, paths[2], GROUP)
        set_limit(device, 0)
        print(f"\nReads limited to {arguments.limit / 1e6:.0f} MB/s: calibration finds "
              f"{best_rate(slow) / 1e6:.0f} MB/s instead of {best_rate(first) / 1e6:.0f}.")
        fast, limited = plan(stoker, model, paths[0]), plan(stoker, model, paths[2])
        print(f"The plan for 2 GiB: {limited['tokens_per_second']:.2f} tokens/s instead of "
              f"{fast['tokens_per_second']:.2f}; {limited['binding']} binds instead of {fast['binding']}.")
        (directory / "cache" / "stoker").mkdir(parents=True, exist_ok=True)
        (directory / "cache" / "stoker" / "machine.json").write_text(paths[1].read_text())
        print("\nA run that is slowed after 12 s says:\n")
        for line in drifting_run(stoker, model, device, arguments.limit):
            print(f"    {line}")
    finally:
        set_limit(device, 0)
        time.sleep(0.5)
        GROUP.rmdir()


if __name__ == "__main__":
    main()

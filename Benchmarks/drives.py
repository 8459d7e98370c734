#!/usr/bin/env python3
"""What a second drive with a copy of the model gains (`--model-dir`).

    sudo Benchmarks/drives.py [--runs 5] [--limit 400000000]

Two loop devices, each with a file system of its own, and a block control group that lets every process read so
many bytes per second of each: two drives that are slower than the one they lie on. Runs of a model of OLMoE's
dimensions with a quarter of its experts in memory alternate between one of them and both. Needs root and version
1 of the block control group.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import time

import common

GROUP = pathlib.Path("/sys/fs/cgroup/blkio/stoker-drives")
BYTE_COUNT = 3 << 30


class Drive:
    """A loop device that is mounted, and throttled for processes of the group."""

    def __init__(self, directory, name, limit):
        self.image = directory / f"{name}.image"
        self.folder = directory / name
        with open(self.image, "wb") as file:
            file.truncate(BYTE_COUNT)
        common.run(["mkfs.ext4", "-q", "-F", self.image])
        self.device = common.run(["losetup", "--find", "--show", "--direct-io=on", self.image]).strip()
        self.folder.mkdir(exist_ok=True)
        common.run(["mount", self.device, self.folder])
        number = os.stat(self.device).st_rdev
        rule = f"{os.major(number)}:{os.minor(number)} {limit}"
        (GROUP / "blkio.throttle.read_bps_device").write_text(rule)

    def remove(self):
        # The kernel may take a moment to let go of a process's files.
        for _ in range(20):
            if subprocess.run(["umount", self.folder], capture_output=True).returncode == 0:
                break
            time.sleep(0.5)
        subprocess.run(["losetup", "--detach", self.device], check=False)
        self.image.unlink(missing_ok=True)
        self.folder.rmdir()


def main():
    parser = common.argument_parser(__doc__, runs=5)
    parser.add_argument("--limit", type=int, default=400_000_000)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run as root: it makes loop devices and a control group")
    stoker = common.build("stoker")
    directory = arguments.work_directory
    model = common.synthesize(stoker, directory, "olmoe-1b-7b", "q4_0", layers=8)
    GROUP.mkdir(exist_ok=True)
    drives = []
    try:
        for name in ("first", "second"):
            drives.append(Drive(directory, name, arguments.limit))
            shutil.copy(model, drives[-1].folder / "model.gguf")
        measure(stoker, drives, arguments)
    finally:
        for drive in drives:
            drive.remove()
        GROUP.rmdir()


def measure(stoker, drives, arguments):
    path = drives[0].folder / "model.gguf"
    summary = common.inspect(stoker, path, "--context", 256)
    memory = summary["full_budget"] - int(0.75 * summary["expert_bytes"])
    ids = common.random_ids(32, 64, below=30000)
    within = ["sh", "-c", f'echo $$ > {GROUP}/cgroup.procs; exec "$@"', "sh"]
    ways = {"one drive": [], "two drives": ["--model-dir", drives[1].folder]}
    runs, disks = {way: [] for way in ways}, {way: [] for way in ways}
    for _ in range(arguments.runs):
        for way, options in ways.items():
            runs[way].append(common.run_stoker(
                stoker, path, ids, arguments.threads, memory, prefix=within, options=options))
            disks[way].append(json.loads(common.run(
                [*within, stoker, "inspect", path, "--json", "--disk", *options]))["disk"])
    print(f"Processor: {common.processor()}, {arguments.threads} threads. "
          f"Each drive: {arguments.limit / 1e6:.0f} MB/s.\n")
    common.print_header("", "GB/s", "MB per token", "tokens/s at 25 %", "bound by reading", "of one drive")
    for way in ways:
        rate = statistics.median(disk["bytes_per_second"] for disk in disks[way])
        speeds = [common.median(runs[each], "tokens_per_second") for each in (way, "one drive")]
        read = common.median(runs[way], "read_bytes_per_token")
        limit = arguments.limit * (1 + (way == "two drives"))
        common.print_row(
            way, f"{rate / 1e9:.2f}", f"{read / 1e6:.1f}", f"{speeds[0]:.2f}", f"{limit / read:.2f}",
            f"{speeds[0] / speeds[1]:.2f}")


if __name__ == "__main__":
    main()

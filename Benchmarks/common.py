"""What the benchmark scripts share: their options, models, runs of both engines, and tables."""
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


def argument_parser(description, runs):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work-directory", type=pathlib.Path, default=REPOSITORY / ".build-bench")
    parser.add_argument("--llama-python", help="a Python that imports llama_cpp")
    return parser


def run(command, **options):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:4]))} ... failed:\n{result.stderr[-2000:]}")
    return result.stdout


def check_machine(reason):
    if os.geteuid() != 0:
        sys.exit(f"run as root: {reason}")
    if not TOOLS.exists():
        sys.exit(f"{TOOLS} is missing: the benchmark's tools are read from there")


def build(product):
    """Builds a program of the package; returns its path."""
    run(["swift", "build", "-c", "release", "--product", product], cwd=REPOSITORY)
    return REPOSITORY / ".build" / "release" / product


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


def synthesize(stoker, directory, like, quant, **sizes):
    """Makes a model unless it is there; `sizes` may name layers and experts."""
    directory.mkdir(parents=True, exist_ok=True)
    model = directory / f"{'-'.join(map(str, [like, *sizes.values(), quant]))}.gguf"
    if not model.exists():
        options = [word for name, size in sizes.items() for word in (f"--{name}", size)]
        run([stoker, "synth", model, "--like", like, "--quant", quant, "--seed", 1, *options])
    return model


def random_ids(*counts, below=50000):
    """Lists of random token ids, always the same, as the engines take them."""
    source = random.Random(1)
    return [",".join(str(source.randrange(1000, below)) for _ in range(n)) for n in counts]


def drop_page_cache():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def inspect(stoker, model, *options):
    return json.loads(run([stoker, "inspect", model, "--json", *options]))


def keep_profile(stoker, directory):
    """Measures the machine if there is no profile of it."""
    if not (directory / "cache/stoker/machine.json").exists():
        run([stoker, "calibrate", "--directory", directory])


def measure_disk(stoker, model):
    drop_page_cache()
    return inspect(stoker, model, "--disk")["disk"]


def run_stoker(stoker, model, ids, threads, memory=None, prefix=(), options=()):
    """The statistics of a run; `ids` are the prompt and what is decoded after it."""
    budget = [] if memory is None else ["--memory", memory]
    return json.loads(run(
        [*prefix, stoker, "run", model, "--no-history", "--token-ids", ids[0], "--forced-ids", ids[1],
         "--threads", threads, "--json", *budget, *options]))["statistics"]


def run_llama(python, model, ids, threads, prefix=(), options=()):
    return json.loads(run(
        [*prefix, python, TOOLS / "llama_baseline.py", model, "--prompt-ids", ids[0],
         "--forced-ids", ids[1], "--threads", threads, *options]).splitlines()[-1])


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def spread(rows, key, digits):
    values = sorted(row[key] for row in rows)
    return f"{statistics.median(values):.{digits}f} ({values[0]:.{digits}f}-{values[-1]:.{digits}f})"


def processor():
    name = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return name.group(1) if name else "unknown"


def print_machine(threads, kernels, version):
    print(f"Processor: {processor()}, {threads} threads, {kernels} kernels. "
          f"llama.cpp: llama-cpp-python {version}.")


def print_disk(disks):
    first = disks[0]
    print(f"Disk: {median(disks, 'bytes_per_second') / 1e9:.2f} GB/s ({first['engine']}, reads of "
          f"{first['read_byte_count'] / 2**20:.2f} MiB, {first['queue_depth']} at a time, "
          f"direct: {first['direct']}), median of {len(disks)}.\n")


def print_header(*columns):
    print_row(*columns)
    print("|" + "---|" * len(columns))


def print_row(*cells):
    print("| " + " | ".join(cells) + " |")

"""Writes demo-facts.json: what the `gguf` package reads in the demo checkpoints.

usage: python make_demo_facts.py DEMO_FOLDER > demo-facts.json     (pip install gguf)

Floats are given as the number of their bits; of an array, the count and the 64-bit FNV-1a hash of
its elements' bytes, so that a tokenizer's tables need not be repeated here.
"""

import json
import pathlib
import sys

import gguf

FILES = ["demo-Q4_0.gguf", "demo-Q4_K_M.gguf", "demo-Q8_0.gguf"]


def fnv1a(chunks):
    value = 0xCBF29CE484222325
    for chunk in chunks:
        for byte in chunk:
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def metadata(field):
    types = [kind.name.lower() for kind in field.types]
    elements = [field.parts[index].tobytes() for index in field.data]
    fact = {"key": field.name, "type": types[0]}
    if types[0] == "array":
        fact["type"] = "array of " + types[1]
        fact["count"] = len(elements)
        fact["hash"] = str(fnv1a(elements))
    elif types[0] == "string":
        fact["value"] = elements[0].decode()
    else:
        fact["value"] = str(int.from_bytes(elements[0], "little"))
    return fact


def facts(path):
    reader = gguf.GGUFReader(path)
    return {
        "file": path.name,
        "version": int(reader.fields["GGUF.version"].parts[-1][0]),
        "metadata": [
            metadata(field)
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        ],
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.tensor_type.name,
                "shape": [int(dimension) for dimension in tensor.shape],
                "offset": int(tensor.data_offset),
                "bytes": int(tensor.n_bytes),
            }
            for tensor in reader.tensors
        ],
    }


folder = pathlib.Path(sys.argv[1])
lines = json.dumps([facts(folder / name) for name in FILES], separators=(",", ":"))
print(lines.replace("},{", "},\n{"))

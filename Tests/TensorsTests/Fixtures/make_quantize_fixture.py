"""Writes quantize.bin: weights, and the squared error that llama.cpp's quantisers leave of them.

Needs the PyPI packages gguf, numpy and llama-cpp-python (for the ggml library in it). Run in this folder:
python3 make_quantize_fixture.py

Layout, little endian: for each of the distributions of WEIGHTS u32 value count and the values as f16; then for
each of the types of TYPES u32 GGML type id and one f64 for each distribution, the sum of squared errors of
`ggml_quantize_chunk` without an importance matrix.
"""

import ctypes
import pathlib
import struct

import gguf
import llama_cpp
import numpy as np
from gguf.quants import dequantize

SEED = 20261122
COLUMNS, ROWS = 1024, 16
TYPES = [gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0", "Q4_K", "Q6_K")]


def weights(rng):
    """Normal, with long tails, one-sided, of scales that differ by row and group, and mostly zero."""
    shape = (ROWS, COLUMNS)
    normal = rng.standard_normal(shape)
    yield 0.02 * normal
    yield 0.01 * rng.standard_t(3, shape)
    yield np.abs(0.05 * normal) + 0.03
    yield 0.02 * normal * np.exp(rng.standard_normal((ROWS, COLUMNS // 32)).repeat(32, axis=1))
    yield np.where(rng.random(shape) < 0.9, 0, 0.1 * normal)


def quantize(library, values, element_type):
    values = np.ascontiguousarray(values, dtype=np.float32)
    block, byte_count = gguf.GGML_QUANT_SIZES[element_type]
    out = np.zeros(values.size // block * byte_count, dtype=np.uint8)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    written = library.ggml_quantize_chunk(
        ctypes.c_int(element_type), values.ctypes.data_as(ctypes.c_void_p),
        out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(0), ctypes.c_int64(ROWS),
        ctypes.c_int64(COLUMNS), ctypes.c_void_p())
    assert written == out.size
    return dequantize(out.reshape(ROWS, -1), element_type)


def main():
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(folder.glob("libggml-base.so*"))))
    rng = np.random.default_rng(SEED)
    samples = [sample.astype(np.float16) for sample in weights(rng)]
    with open("quantize.bin", "wb") as file:
        for sample in samples:
            file.write(struct.pack("<I", sample.size) + sample.astype("<f2").tobytes())
        for element_type in TYPES:
            file.write(struct.pack("<I", element_type))
            for sample in samples:
                exact = sample.astype(np.float64)
                found = quantize(library, sample, element_type)
                error = ((found - exact) ** 2).sum()
                print(element_type.name, (error / (exact**2).sum()) ** 0.5)
                file.write(struct.pack("<d", error))


main()

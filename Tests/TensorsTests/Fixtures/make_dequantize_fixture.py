"""Writes dequantize.bin: random blocks of each computable type and what gguf makes of them.

Needs the PyPI packages gguf and numpy. Run in this folder: python3 make_dequantize_fixture.py

Layout, little endian: for each type u32 GGML type id, u32 value count, u32 byte count of the
blocks; the blocks; the values as f32. Scales are finite (a NaN's payload is the platform's own).
"""

import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

SEED = 20240611
# Offsets of the half-precision fields of each block type.
HALVES = {
    T.F32: [], T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
    T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.Q2_K: [80, 82], T.Q3_K: [108],
    T.Q8_K: [], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.IQ2_XXS: [0], T.IQ2_XS: [0], T.IQ2_S: [0],
    T.IQ3_XXS: [0], T.IQ3_S: [0], T.IQ1_S: [0], T.IQ1_M: [],
}
VALUE_COUNT = 4096


def blocks_of(rng, element_type):
    size, byte_count = GGML_QUANT_SIZES[element_type]
    count = VALUE_COUNT // size
    blocks = rng.integers(0, 256, (count, byte_count), dtype=np.uint8)
    blocks[0], blocks[1] = 0x00, 0xFF
    for offset in HALVES[element_type]:
        bits = rng.integers(0, 0x10000, count, dtype=np.uint16)
        bits[1] = 0x7BFF
        # An exponent of all ones would be an infinity or NaN.
        bits = np.where(bits & 0x7C00 == 0x7C00, bits & 0x83FF | 0x3C00, bits).astype("<u2")
        blocks[:, offset : offset + 2] = bits.view(np.uint8).reshape(count, 2)
    if element_type in (T.F32, T.BF16):
        # The same for the top byte of a float: 0x7F and 0xFF lead to exponents of all ones.
        blocks[:, -1] &= 0xBF
    if element_type == T.MXFP4:
        blocks[:, 0] %= 252  # 12 times more would be an infinity
    if element_type == T.Q8_K:
        blocks[:, 3] &= 0xBF
    if element_type == T.IQ1_M:
        blocks[:, 55] &= 0xBF  # the upper bits of its half
    return blocks


def values_of(blocks, element_type):
    if element_type == T.Q8_K:  # which gguf does not expand: d * q
        d = blocks[:, :4].copy().view("<f4")
        return d * blocks[:, 4:260].view(np.int8).astype(np.float32)
    return dequantize(blocks.reshape(1, -1), element_type)


def main():
    rng = np.random.default_rng(SEED)
    with open("dequantize.bin", "wb") as file:
        for element_type in HALVES:
            blocks = blocks_of(rng, element_type)
            values = values_of(blocks, element_type).astype("<f4").ravel()
            assert values.size == VALUE_COUNT and np.isfinite(values).all()
            file.write(struct.pack("<III", element_type.value, values.size, blocks.size))
            file.write(blocks.tobytes() + values.tobytes())


main()

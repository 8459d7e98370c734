"""Writes Sources/CKernels/grids.c: the points of the codebooks of GGML's IQ1, IQ2 and IQ3 formats.

Needs the PyPI packages gguf and numpy. Run from the repository: python3 Tests/TensorsTests/Fixtures/make_grids.py
"""

import numpy as np
from gguf import quants

GRIDS = [("iq1", quants.IQ1_S), ("iq2_xxs", quants.IQ2_XXS), ("iq2_xs", quants.IQ2_XS), ("iq2_s", quants.IQ2_S),
         ("iq3_xxs", quants.IQ3_XXS), ("iq3_s", quants.IQ3_S)]


def codes(quant):
    quant.init_grid()
    points = quant.grid.reshape(quant.grid_shape)
    bits = 2 if len(quant.grid_map) == 3 else 3
    index = np.searchsorted(np.array(quant.grid_map, dtype=points.dtype), points)
    return (index.astype(np.uint16) << (bits * np.arange(points.shape[1], dtype=np.uint16))).sum(axis=1)


def main():
    with open("Sources/CKernels/grids.c", "w") as file:
        file.write("// Written by Tests/TensorsTests/Fixtures/make_grids.py from the Python package gguf.\n"
                   '#include "blocks.h"\n')
        for name, quant in GRIDS:
            numbers = [f"0x{code:04x}," for code in codes(quant)]
            file.write(f"\nconst uint16_t ckernels_grid_{name}[{len(numbers)}] = {{\n")
            for start in range(0, len(numbers), 12):
                file.write("  " + " ".join(numbers[start : start + 12]) + "\n")
            file.write("};\n")


main()

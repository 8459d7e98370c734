// Dequantization: the bits of `gguf.quants.dequantize`, with one rounding for each of its steps.
#include "groups.h"
#include "kernels.h"

#pragma STDC FP_CONTRACT OFF

void ckernels_dequantize(uint32_t type, const void *blocks, float *out, size_t count) {
  const uint8_t *p = blocks;
  switch (type) {
    case TYPE_F32:
      memcpy(out, p, count * 4);
      return;
    case TYPE_F16:
      for (size_t i = 0; i < count; i++) out[i] = float_from_half(load_u16(p + 2 * i));
      return;
    case TYPE_BF16:
      for (size_t i = 0; i < count; i++) out[i] = float_from_bfloat(load_u16(p + 2 * i));
      return;
    case TYPE_F8_E4M3:
      for (size_t i = 0; i < count; i++) out[i] = float_from_half(half_of_f8(p[i])) * F8_UNIT;
      return;
    default: break;
  }
  const bool adds_minimum = has_minimum(type);
  for (size_t g = 0; g < count / 32; g++) {
    weight_group group;
    unpack_group(type, p, g, &group);
    for (size_t i = 0; i < 32; i++) {
      const float scaled = group.scale[i / 16] * (float)group.values[i];
      out[32 * g + i] = adds_minimum ? scaled + group.minimum[i / 16] : scaled;
    }
  }
}

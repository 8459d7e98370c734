// The matrix product in plain C: the reference of the other instruction sets.
//
// Sums of a group are exact integers; groups are summed in double precision, in order, so the
// result is the exact one but for the last bits.
#include "groups.h"
#include "kernels.h"

#pragma STDC FP_CONTRACT OFF

static inline int32_t dot16(const int8_t *a, const int8_t *b) {
  int32_t sum = 0;
  for (int i = 0; i < 16; i++) sum += a[i] * b[i];
  return sum;
}

ALWAYS_INLINE void matmul_quantized(uint32_t type, const matmul_task *task) {
  const size_t groups = task->columns / 32, row_bytes = groups * superblock_bytes(type) / 8;
  for (size_t r = task->row_begin; r < task->row_end; r++) {
    for (size_t t = 0; t < task->tokens; t++) {
      const activation_row act = activation_parts(task->acts[t], task->columns);
      double total = 0;
      for (size_t g = 0; g < groups; g++) {
        weight_group group;
        unpack_group(type, task->weights + r * row_bytes, g, &group);
        const int8_t *q = act.q + 32 * g;
        const double sums[2] = {
            (int16_t)load_u16(act.sum16 + 4 * g), (int16_t)load_u16(act.sum16 + 4 * g + 2)};
        const double scale = float_from_bits(load_u32(act.scale + 4 * g));
        total += scale * (group.scale[0] * (double)dot16(group.values, q) +
                          group.scale[1] * (double)dot16(group.values + 16, q + 16) +
                          group.minimum[0] * sums[0] + group.minimum[1] * sums[1]);
      }
      task->outs[t][r] = (float)total;
    }
  }
}

ALWAYS_INLINE float float_weight(uint32_t type, const uint8_t *row, size_t i) {
  switch (type) {
    case TYPE_F16: return float_from_half(load_u16(row + 2 * i));
    case TYPE_BF16: return float_from_bfloat(load_u16(row + 2 * i));
    default: return float_from_bits(load_u32(row + 4 * i));
  }
}

ALWAYS_INLINE void matmul_float(uint32_t type, const matmul_task *task) {
  const size_t row_bytes = task->columns * (type == TYPE_F32 ? 4 : 2);
  for (size_t r = task->row_begin; r < task->row_end; r++) {
    const uint8_t *row = task->weights + r * row_bytes;
    for (size_t t = 0; t < task->tokens; t++) {
      const uint8_t *x = task->acts[t];
      double total = 0;
      for (size_t i = 0; i < task->columns; i++)
        total += (double)float_weight(type, row, i) * float_from_bits(load_u32(x + 4 * i));
      task->outs[t][r] = (float)total;
    }
  }
}

#define DEFINE_FLOAT(TYPE, NAME) \
  void ckernels_matmul_portable_##NAME(const matmul_task *task) { matmul_float(TYPE, task); }
#define DEFINE_QUANTIZED(TYPE, NAME) \
  void ckernels_matmul_portable_##NAME(const matmul_task *task) { matmul_quantized(TYPE, task); }

FOR_FLOAT_TYPES(DEFINE_FLOAT)
FOR_QUANTIZED_TYPES(DEFINE_QUANTIZED)

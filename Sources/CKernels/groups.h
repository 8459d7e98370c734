// Scalar unpacking of 32 weights: the one definition of each block format that both the portable
// kernels and dequantization follow.
#pragma once
#include "blocks.h"

/// 32 weights: scale[i / 16] * values[i] + minimum[i / 16].
typedef struct {
  int8_t values[32];
  float scale[2];
  float minimum[2];
} weight_group;

static inline void unpack_nibbles(const uint8_t *qs, weight_group *group) {
  for (int i = 0; i < 16; i++) {
    group->values[i] = (int8_t)(qs[i] & 15);
    group->values[i + 16] = (int8_t)(qs[i] >> 4);
  }
}

static inline void add_fifth_bits(uint32_t bits, weight_group *group) {
  for (int i = 0; i < 32; i++) group->values[i] |= (int8_t)((bits >> i & 1) << 4);
}

static inline void subtract_offset(int8_t offset, weight_group *group) {
  for (int i = 0; i < 32; i++) group->values[i] = (int8_t)(group->values[i] - offset);
}

static inline void set_scale(float scale, float minimum, weight_group *group) {
  group->scale[0] = group->scale[1] = scale;
  group->minimum[0] = group->minimum[1] = minimum;
}

static inline void unpack_q4_0(const uint8_t *p, size_t g, weight_group *group) {
  const block_q4_0 *block = (const block_q4_0 *)p + g;
  unpack_nibbles(block->qs, group);
  subtract_offset(8, group);
  set_scale(float_from_half(block->d), 0, group);
}

static inline void unpack_q4_1(const uint8_t *p, size_t g, weight_group *group) {
  const block_q4_1 *block = (const block_q4_1 *)p + g;
  unpack_nibbles(block->qs, group);
  set_scale(float_from_half(block->d), float_from_half(block->m), group);
}

static inline void unpack_q5_0(const uint8_t *p, size_t g, weight_group *group) {
  const block_q5_0 *block = (const block_q5_0 *)p + g;
  unpack_nibbles(block->qs, group);
  add_fifth_bits(block->qh, group);
  subtract_offset(16, group);
  set_scale(float_from_half(block->d), 0, group);
}

static inline void unpack_q5_1(const uint8_t *p, size_t g, weight_group *group) {
  const block_q5_1 *block = (const block_q5_1 *)p + g;
  unpack_nibbles(block->qs, group);
  add_fifth_bits(block->qh, group);
  set_scale(float_from_half(block->d), float_from_half(block->m), group);
}

static inline void unpack_q8_0(const uint8_t *p, size_t g, weight_group *group) {
  const block_q8_0 *block = (const block_q8_0 *)p + g;
  memcpy(group->values, block->qs, 32);
  set_scale(float_from_half(block->d), 0, group);
}

static inline void unpack_k_nibbles(const uint8_t *qs, size_t g, weight_group *group) {
  const unsigned shift = g % 2 * 4;
  for (int i = 0; i < 32; i++) group->values[i] = (int8_t)(qs[g / 2 * 32 + i] >> shift & 15);
}

static inline void set_k_scale(
    uint16_t d, uint16_t dmin, const uint8_t *packed, size_t g, weight_group *group) {
  const group_scales scales = unpack_group_scales(packed);
  const float scale = (float)(scales.scales >> 8 * g & 63);
  const float minimum = (float)(scales.mins >> 8 * g & 63);
  set_scale(float_from_half(d) * scale, -(float_from_half(dmin) * minimum), group);
}

static inline void unpack_q4_k(const uint8_t *p, size_t g, weight_group *group) {
  const block_q4_k *block = (const block_q4_k *)p + g / 8;
  unpack_k_nibbles(block->qs, g % 8, group);
  set_k_scale(block->d, block->dmin, block->scales, g % 8, group);
}

static inline void unpack_q5_k(const uint8_t *p, size_t g, weight_group *group) {
  const block_q5_k *block = (const block_q5_k *)p + g / 8;
  unpack_k_nibbles(block->qs, g % 8, group);
  for (int i = 0; i < 32; i++) group->values[i] |= (int8_t)((block->qh[i] >> g % 8 & 1) << 4);
  set_k_scale(block->d, block->dmin, block->scales, g % 8, group);
}

static inline void unpack_q6_k(const uint8_t *p, size_t g, weight_group *group) {
  const block_q6_k *block = (const block_q6_k *)p + g / 8;
  const size_t half = g % 8 / 4, quarter = g % 4;
  const uint8_t *ql = block->ql + 64 * half + 32 * (quarter % 2);
  const uint8_t *qh = block->qh + 32 * half;
  for (int i = 0; i < 32; i++) {
    const int low = ql[i] >> (quarter / 2 * 4) & 15, high = qh[i] >> 2 * quarter & 3;
    group->values[i] = (int8_t)((low | high << 4) - 32);
  }
  const float d = float_from_half(block->d);
  group->scale[0] = d * (float)block->scales[2 * (g % 8)];
  group->scale[1] = d * (float)block->scales[2 * (g % 8) + 1];
  group->minimum[0] = group->minimum[1] = 0;
}

#include "groups_decoded.h"

/// Unpacks group `g` (values 32 * g ..< 32 * g + 32) of the quantized row at `p`.
static inline __attribute__((always_inline)) void unpack_group(
    uint32_t type, const uint8_t *p, size_t g, weight_group *group) {
  switch (type) {
    case TYPE_Q4_0: unpack_q4_0(p, g, group); break;
    case TYPE_Q4_1: unpack_q4_1(p, g, group); break;
    case TYPE_Q5_0: unpack_q5_0(p, g, group); break;
    case TYPE_Q5_1: unpack_q5_1(p, g, group); break;
    case TYPE_Q8_0: unpack_q8_0(p, g, group); break;
    case TYPE_Q4_K: unpack_q4_k(p, g, group); break;
    case TYPE_Q5_K: unpack_q5_k(p, g, group); break;
    case TYPE_Q6_K: unpack_q6_k(p, g, group); break;
    default: unpack_decoded(type, p, g, group); break;
  }
}

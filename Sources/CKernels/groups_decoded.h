// Scalar unpacking of 32 weights, for the formats that are decoded to signed bytes; groups.h includes it.
#pragma once
#include <stdbool.h>

/// Two scales of a group, without minimums.
static inline void set_scales(float first, float second, weight_group *group) {
  group->scale[0] = first;
  group->scale[1] = second;
  group->minimum[0] = group->minimum[1] = 0;
}

/// 8 values of a grid point of 2 bits each.
static inline void set_point8(uint16_t code, const int8_t *table, int8_t *values) {
  for (int i = 0; i < 8; i++) values[i] = table[code >> 2 * i & 3];
}

/// 4 values of a grid point of 3 bits each.
static inline void set_point4(uint16_t code, const int8_t *table, int8_t *values) {
  for (int i = 0; i < 4; i++) values[i] = table[code >> 3 * i & 7];
}

/// Changes the sign of the values whose bit is set.
static inline void set_signs(uint8_t bits, int8_t *values) {
  for (int i = 0; i < 8; i++) values[i] = (int8_t)(bits >> i & 1 ? -values[i] : values[i]);
}

/// The scale of 32 values of iq2 and iq3.
static inline float half_step_scale(uint16_t d, unsigned scale, float factor) {
  return float_from_half(d) * (0.5f + (float)scale) * factor;
}

static inline void unpack_q2_k(const block_q2_k *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 32; i++)
    group->values[i] = (int8_t)(block->qs[g / 4 * 32 + i] >> g % 4 * 2 & 3);
  const float d = float_from_half(block->d), dmin = float_from_half(block->dmin);
  for (size_t h = 0; h < 2; h++) {
    const uint8_t scale = block->scales[2 * g + h];
    group->scale[h] = d * (float)(scale & 15);
    group->minimum[h] = -(dmin * (float)(scale >> 4));
  }
}

static inline void unpack_q3_k(const block_q3_k *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 32; i++) {
    const int low = block->qs[g / 4 * 32 + i] >> g % 4 * 2 & 3, high = block->hmask[i] >> g & 1;
    group->values[i] = (int8_t)((low | high << 2) - 4);
  }
  const q3_k_scales scales = unpack_q3_k_scales(block->scales);
  const uint64_t bytes = (g < 4 ? scales.first : scales.second) >> g % 4 * 16;
  const float d = float_from_half(block->d);
  set_scales(
      d * (float)((int)(bytes & 63) - 32), d * (float)((int)(bytes >> 8 & 63) - 32), group);
}

static inline void unpack_q8_k(const block_q8_k *block, size_t g, weight_group *group) {
  memcpy(group->values, block->qs + 32 * g, 32);
  set_scale(block->d, 0, group);
}

/// Makes values of nibbles.
static inline void look_up(const int8_t *table, weight_group *group) {
  for (int i = 0; i < 32; i++) group->values[i] = table[group->values[i]];
}

static inline void unpack_iq4_nl(const block_iq4_nl *block, weight_group *group) {
  unpack_nibbles(block->qs, group);
  look_up(iq4_levels, group);
  set_scale(float_from_half(block->d), 0, group);
}

static inline void unpack_iq4_xs(const block_iq4_xs *block, size_t g, weight_group *group) {
  unpack_nibbles(block->qs + 16 * g, group);
  look_up(iq4_levels, group);
  const int low = block->scales_low[g / 2] >> g % 2 * 4 & 15, high = block->scales_high >> 2 * g & 3;
  set_scale(float_from_half(block->d) * (float)((low | high << 4) - 32), 0, group);
}

static inline void unpack_mxfp4(const block_mxfp4 *block, weight_group *group) {
  unpack_nibbles(block->qs, group);
  look_up(mxfp4_levels, group);
  set_scale(mxfp4_scale(block->e), 0, group);
}

static inline void unpack_iq2_xxs(const block_iq2_xxs *block, size_t g, weight_group *group) {
  const uint32_t signs = block->groups[g].signs;
  for (size_t i = 0; i < 4; i++) {
    set_point8(
        ckernels_grid_iq2_xxs[block->groups[g].points[i]], iq2_levels, group->values + 8 * i);
    set_signs(even_signs(signs >> 7 * i & 127), group->values + 8 * i);
  }
  set_scale(half_step_scale(block->d, signs >> 28, 0.25f), 0, group);
}

static inline void unpack_iq2_xs(const block_iq2_xs *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 4; i++) {
    const uint16_t point = block->points[4 * g + i];
    set_point8(ckernels_grid_iq2_xs[point & 511], iq2_levels, group->values + 8 * i);
    set_signs(even_signs(point >> 9), group->values + 8 * i);
  }
  const uint8_t scale = block->scales[g];
  set_scales(
      half_step_scale(block->d, scale & 15, 0.25f), half_step_scale(block->d, scale >> 4, 0.25f),
      group);
}

static inline void unpack_iq2_s(const block_iq2_s *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 4; i++) {
    const unsigned point = block->points[4 * g + i] | (block->high[g] >> 2 * i & 3u) << 8;
    set_point8(ckernels_grid_iq2_s[point], iq2_levels, group->values + 8 * i);
    set_signs(block->signs[4 * g + i], group->values + 8 * i);
  }
  const uint8_t scale = block->scales[g];
  set_scales(
      half_step_scale(block->d, scale & 15, 0.25f), half_step_scale(block->d, scale >> 4, 0.25f),
      group);
}

static inline void unpack_iq3_xxs(const block_iq3_xxs *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 8; i++)
    set_point4(
        ckernels_grid_iq3_xxs[block->points[8 * g + i]], iq3_xxs_levels, group->values + 4 * i);
  const uint32_t signs = block->signs[g];
  for (size_t i = 0; i < 4; i++)
    set_signs(even_signs(signs >> 7 * i & 127), group->values + 8 * i);
  set_scale(half_step_scale(block->d, signs >> 28, 0.5f), 0, group);
}

static inline void unpack_iq3_s(const block_iq3_s *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 8; i++) {
    const unsigned point = block->points[8 * g + i] | (block->high[g] >> i & 1u) << 8;
    set_point4(ckernels_grid_iq3_s[point], iq3_s_levels, group->values + 4 * i);
  }
  for (size_t i = 0; i < 4; i++) set_signs(block->signs[4 * g + i], group->values + 8 * i);
  const int scale = block->scales[g / 2] >> g % 2 * 4 & 15;
  set_scale(float_from_half(block->d) * (float)(1 + 2 * scale), 0, group);
}

/// 8 values of iq1 with their delta.
static inline void set_iq1_point(unsigned point, bool isNegative, int8_t *values) {
  set_point8(ckernels_grid_iq1[point], iq1_levels, values);
  for (int i = 0; i < 8; i++) values[i] = (int8_t)(values[i] + (isNegative ? -1 : 1));
}

/// The scale of iq1's values, which are 8 times as large as the format has them.
static inline float iq1_scale(float d, unsigned scale) {
  return d * (float)(2 * scale + 1) * 0.125f;
}

static inline void unpack_iq1_s(const block_iq1_s *block, size_t g, weight_group *group) {
  const unsigned high = block->high[g];
  for (size_t i = 0; i < 4; i++)
    set_iq1_point(
        block->points[4 * g + i] | (high >> 3 * i & 7) << 8, high & 0x8000, group->values + 8 * i);
  set_scale(iq1_scale(float_from_half(block->d), high >> 12 & 7), 0, group);
}

static inline void unpack_iq1_m(const block_iq1_m *block, size_t g, weight_group *group) {
  for (size_t i = 0; i < 4; i++) {
    const unsigned high = block->high[2 * g + i / 2] >> i % 2 * 4;
    set_iq1_point(
        block->points[4 * g + i] | (high & 7) << 8, high & 8, group->values + 8 * i);
  }
  const float d = float_from_half(iq1_m_d(block));
  const unsigned scales = (unsigned)block->scales[g / 2] >> g % 2 * 6;
  set_scales(iq1_scale(d, scales & 7), iq1_scale(d, scales >> 3 & 7), group);
}

/// As `unpack_group`, for these formats.
static inline __attribute__((always_inline)) void unpack_decoded(
    uint32_t type, const uint8_t *p, size_t g, weight_group *group) {
  const size_t block = g / 8, of = g % 8;
  switch (type) {
    case TYPE_Q2_K: unpack_q2_k((const block_q2_k *)p + block, of, group); break;
    case TYPE_Q3_K: unpack_q3_k((const block_q3_k *)p + block, of, group); break;
    case TYPE_Q8_K: unpack_q8_k((const block_q8_k *)p + block, of, group); break;
    case TYPE_IQ4_NL: unpack_iq4_nl((const block_iq4_nl *)p + g, group); break;
    case TYPE_IQ4_XS: unpack_iq4_xs((const block_iq4_xs *)p + block, of, group); break;
    case TYPE_MXFP4: unpack_mxfp4((const block_mxfp4 *)p + g, group); break;
    case TYPE_IQ2_XXS: unpack_iq2_xxs((const block_iq2_xxs *)p + block, of, group); break;
    case TYPE_IQ2_XS: unpack_iq2_xs((const block_iq2_xs *)p + block, of, group); break;
    case TYPE_IQ2_S: unpack_iq2_s((const block_iq2_s *)p + block, of, group); break;
    case TYPE_IQ3_XXS: unpack_iq3_xxs((const block_iq3_xxs *)p + block, of, group); break;
    case TYPE_IQ3_S: unpack_iq3_s((const block_iq3_s *)p + block, of, group); break;
    case TYPE_IQ1_S: unpack_iq1_s((const block_iq1_s *)p + block, of, group); break;
    case TYPE_IQ1_M: unpack_iq1_m((const block_iq1_m *)p + block, of, group); break;
    default: __builtin_trap();
  }
}

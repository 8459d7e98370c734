// How the formats that are decoded (`is_decoded`) become signed bytes and float scales, with AVX2 and BMI2.
//
// A grid point is a few bits for each of its values: they are spread to bytes, which a shuffle looks up.
// So a codebook takes 2 bytes for a point of the first-level cache, not 8.
#pragma once
#include <immintrin.h>

#include "blocks.h"
#include "kernels.h"

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)

// MARK: - Values

ALWAYS_INLINE uint64_t load_u64(const void *p) {
  return load_u32(p) | (uint64_t)load_u32((const uint8_t *)p + 4) << 32;
}

ALWAYS_INLINE __m256i look_up_16(const int8_t *table, __m256i indices) {
  const __m128i entries = _mm_loadu_si128((const __m128i *)table);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), indices);
}

ALWAYS_INLINE __m256i look_up_8(const int8_t *table, __m256i indices) {
  const __m128i entries = _mm_loadl_epi64((const __m128i *)table);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), indices);
}

ALWAYS_INLINE __m256i look_up_4(const int8_t *table, __m256i indices) {
  return _mm256_shuffle_epi8(_mm256_set1_epi32((int)load_u32(table)), indices);
}

/// 16 bytes as 32 nibbles, the low ones first.
ALWAYS_INLINE __m256i nibbles_256(const uint8_t *p) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
  const __m256i shifted = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
  return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

/// The bits of a grid point of 8 values, spread to bytes.
ALWAYS_INLINE long long point_of_8(const uint16_t *grid, uint32_t point) {
  return (long long)_pdep_u64(grid[point], 0x0303030303030303);
}

/// The same of two grid points of 4 values.
ALWAYS_INLINE long long points_of_4(const uint16_t *grid, uint32_t first, uint32_t second) {
  return (long long)_pdep_u64(grid[first] | (uint32_t)grid[second] << 12, 0x0707070707070707);
}

/// A byte 0xff for each bit of `bits` that is not set, 0 for the others.
ALWAYS_INLINE __m256i clear_bits(uint32_t bits) {
  const __m256i spread = _mm256_shuffle_epi8(
      _mm256_set1_epi32((int)bits),
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i mask = _mm256_set1_epi64x((long long)0x8040201008040201ull);
  return _mm256_cmpeq_epi8(_mm256_and_si256(spread, mask), _mm256_setzero_si256());
}

/// Changes the sign of the values whose bit is set.
ALWAYS_INLINE __m256i with_signs(__m256i v, uint32_t bits) {
  const __m256i negative = clear_bits(~bits);
  return _mm256_sub_epi8(_mm256_xor_si256(v, negative), negative);
}

/// 4 times 7 signs as 4 times 8, whose number is even.
ALWAYS_INLINE uint32_t even_signs_of_4(uint32_t bits) {
  const uint32_t spread = _pdep_u32(bits, 0x7f7f7f7f);
  uint32_t parity = spread ^ spread >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return spread | (parity & 0x01010101) << 7;
}

ALWAYS_INLINE __m256i two_bits(const uint8_t *qs, int g) {
  const __m256i bytes = _mm256_loadu_si256((const __m256i *)(qs + g / 4 * 32));
  return _mm256_and_si256(_mm256_srli_epi16(bytes, g % 4 * 2), _mm256_set1_epi8(3));
}

ALWAYS_INLINE __m256i q3_k_values(const block_q3_k *block, int g) {
  const __m256i mask = _mm256_loadu_si256((const __m256i *)block->hmask);
  const __m256i bit = _mm256_set1_epi8((char)(1 << g));
  const __m256i isClear = _mm256_cmpeq_epi8(_mm256_and_si256(mask, bit), _mm256_setzero_si256());
  return _mm256_sub_epi8(
      two_bits(block->qs, g), _mm256_and_si256(isClear, _mm256_set1_epi8(4)));
}

ALWAYS_INLINE __m256i iq2_xxs_values(const block_iq2_xxs *block, int g) {
  const uint16_t *grid = ckernels_grid_iq2_xxs;
  const uint8_t *points = block->groups[g].points;
  const __m256i indices = _mm256_setr_epi64x(
      point_of_8(grid, points[0]), point_of_8(grid, points[1]), point_of_8(grid, points[2]),
      point_of_8(grid, points[3]));
  return with_signs(
      look_up_4(iq2_levels, indices), even_signs_of_4(block->groups[g].signs));
}

ALWAYS_INLINE __m256i iq2_xs_values(const block_iq2_xs *block, int g) {
  const uint16_t *grid = ckernels_grid_iq2_xs;
  const uint64_t points = load_u64((const uint8_t *)block + 2 + 8 * g);
  const __m256i indices = _mm256_setr_epi64x(
      point_of_8(grid, points & 511), point_of_8(grid, points >> 16 & 511),
      point_of_8(grid, points >> 32 & 511), point_of_8(grid, points >> 48 & 511));
  const uint64_t signs = _pext_u64(points, 0xfe00fe00fe00fe00);
  return with_signs(look_up_4(iq2_levels, indices), even_signs_of_4((uint32_t)signs));
}

ALWAYS_INLINE __m256i iq2_s_values(const block_iq2_s *block, int g) {
  const uint16_t *grid = ckernels_grid_iq2_s;
  const uint8_t *points = block->points + 4 * g;
  const uint32_t high = block->high[g];
  const __m256i indices = _mm256_setr_epi64x(
      point_of_8(grid, points[0] | (high << 8 & 0x300)),
      point_of_8(grid, points[1] | (high << 6 & 0x300)),
      point_of_8(grid, points[2] | (high << 4 & 0x300)),
      point_of_8(grid, points[3] | (high << 2 & 0x300)));
  return with_signs(look_up_4(iq2_levels, indices), load_u32(block->signs + 4 * g));
}

ALWAYS_INLINE __m256i iq3_xxs_values(const block_iq3_xxs *block, int g) {
  const uint16_t *grid = ckernels_grid_iq3_xxs;
  const uint8_t *points = block->points + 8 * g;
  const __m256i indices = _mm256_setr_epi64x(
      points_of_4(grid, points[0], points[1]), points_of_4(grid, points[2], points[3]),
      points_of_4(grid, points[4], points[5]), points_of_4(grid, points[6], points[7]));
  return with_signs(look_up_8(iq3_xxs_levels, indices), even_signs_of_4(block->signs[g]));
}

ALWAYS_INLINE __m256i iq3_s_values(const block_iq3_s *block, int g) {
  const uint16_t *grid = ckernels_grid_iq3_s;
  const uint8_t *points = block->points + 8 * g;
  const uint32_t high = block->high[g];
  const __m256i indices = _mm256_setr_epi64x(
      points_of_4(grid, points[0] | (high << 8 & 256), points[1] | (high << 7 & 256)),
      points_of_4(grid, points[2] | (high << 6 & 256), points[3] | (high << 5 & 256)),
      points_of_4(grid, points[4] | (high << 4 & 256), points[5] | (high << 3 & 256)),
      points_of_4(grid, points[6] | (high << 2 & 256), points[7] | (high << 1 & 256)));
  return with_signs(look_up_8(iq3_s_levels, indices), load_u32(block->signs + 4 * g));
}

ALWAYS_INLINE __m256i iq1_s_values(const block_iq1_s *block, int g) {
  const uint16_t *grid = ckernels_grid_iq1;
  const uint8_t *points = block->points + 4 * g;
  const uint32_t high = block->high[g];
  const __m256i indices = _mm256_setr_epi64x(
      point_of_8(grid, points[0] | (high << 8 & 0x700)),
      point_of_8(grid, points[1] | (high << 5 & 0x700)),
      point_of_8(grid, points[2] | (high << 2 & 0x700)),
      point_of_8(grid, points[3] | (high >> 1 & 0x700)));
  return _mm256_add_epi8(
      look_up_4(iq1_levels, indices), _mm256_set1_epi8(high & 0x8000 ? -1 : 1));
}

ALWAYS_INLINE __m256i iq1_m_values(const block_iq1_m *block, int g) {
  const uint16_t *grid = ckernels_grid_iq1;
  const uint8_t *points = block->points + 4 * g;
  const uint32_t high = load_u16(block->high + 2 * g);
  const __m256i indices = _mm256_setr_epi64x(
      point_of_8(grid, points[0] | (high << 8 & 0x700)),
      point_of_8(grid, points[1] | (high << 4 & 0x700)),
      point_of_8(grid, points[2] | (high & 0x700)),
      point_of_8(grid, points[3] | (high >> 4 & 0x700)));
  // The topmost bit of each nibble, as 1 or -1 for each of 8 values.
  const __m256i bits = _mm256_and_si256(
      _mm256_set1_epi64x((long long)high), _mm256_setr_epi64x(8, 8 << 4, 8 << 8, 8 << 12));
  const __m256i isPositive = _mm256_cmpeq_epi64(bits, _mm256_setzero_si256());
  const __m256i delta =
      _mm256_sub_epi8(_mm256_set1_epi8(-1), _mm256_add_epi8(isPositive, isPositive));
  return _mm256_add_epi8(look_up_4(iq1_levels, indices), delta);
}

/// The 32 integers of group `g`, signed.
ALWAYS_INLINE __m256i decoded_values(uint32_t type, const uint8_t *p, int g) {
  switch (type) {
    case TYPE_Q2_K: return two_bits(((const block_q2_k *)p)->qs, g);
    case TYPE_Q3_K: return q3_k_values((const block_q3_k *)p, g);
    case TYPE_Q8_K:
      return _mm256_loadu_si256((const __m256i *)(((const block_q8_k *)p)->qs + 32 * g));
    case TYPE_IQ4_NL:
      return look_up_16(iq4_levels, nibbles_256(((const block_iq4_nl *)p + g)->qs));
    case TYPE_IQ4_XS:
      return look_up_16(iq4_levels, nibbles_256(((const block_iq4_xs *)p)->qs + 16 * g));
    case TYPE_MXFP4:
      return look_up_16(mxfp4_levels, nibbles_256(((const block_mxfp4 *)p + g)->qs));
    case TYPE_IQ2_XXS: return iq2_xxs_values((const block_iq2_xxs *)p, g);
    case TYPE_IQ2_XS: return iq2_xs_values((const block_iq2_xs *)p, g);
    case TYPE_IQ2_S: return iq2_s_values((const block_iq2_s *)p, g);
    case TYPE_IQ3_XXS: return iq3_xxs_values((const block_iq3_xxs *)p, g);
    case TYPE_IQ3_S: return iq3_s_values((const block_iq3_s *)p, g);
    case TYPE_IQ1_S: return iq1_s_values((const block_iq1_s *)p, g);
    case TYPE_IQ1_M: return iq1_m_values((const block_iq1_m *)p, g);
    default: __builtin_trap();
  }
}

// MARK: - Scales

ALWAYS_INLINE __m256 floats_of_bytes(uint64_t bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)));
}

ALWAYS_INLINE __m256 float_of_half(uint16_t half) {
  return _mm256_cvtph_ps(_mm_set1_epi16((short)half));
}

enum : uint64_t { LOW_NIBBLES = 0x0f0f0f0f0f0f0f0f };

/// 16 bytes, two for each group, as the first ones and the second ones.
ALWAYS_INLINE void split_bytes(uint64_t low, uint64_t high, __m256 out[2]) {
  const __m128i bytes = _mm_set_epi64x((long long)high, (long long)low);
  const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  const __m128i sorted = _mm_shuffle_epi8(bytes, order);
  out[0] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(sorted));
  out[1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(sorted, 8)));
}

ALWAYS_INLINE void q2_k_scales(const block_q2_k *block, __m256 scale[2], __m256 minimum[2]) {
  const uint64_t low = load_u64(block->scales), high = load_u64(block->scales + 8);
  split_bytes(low & LOW_NIBBLES, high & LOW_NIBBLES, scale);
  split_bytes(low >> 4 & LOW_NIBBLES, high >> 4 & LOW_NIBBLES, minimum);
  const __m256 d = float_of_half(block->d);
  const __m256 dmin = _mm256_sub_ps(_mm256_setzero_ps(), float_of_half(block->dmin));
  for (int h = 0; h < 2; h++) {
    scale[h] = _mm256_mul_ps(scale[h], d);
    minimum[h] = _mm256_mul_ps(minimum[h], dmin);
  }
}

ALWAYS_INLINE void q3_k_float_scales(const block_q3_k *block, __m256 scale[2]) {
  const q3_k_scales bytes = unpack_q3_k_scales(block->scales);
  split_bytes(bytes.first, bytes.second, scale);
  const __m256 d = float_of_half(block->d);
  for (int h = 0; h < 2; h++)
    scale[h] = _mm256_mul_ps(d, _mm256_sub_ps(scale[h], _mm256_set1_ps(32)));
}

/// d * (scales + 1/2) * factor.
ALWAYS_INLINE __m256 half_step_scales(uint16_t d, __m256 scales, float factor) {
  const __m256 steps = _mm256_add_ps(scales, _mm256_set1_ps(0.5f));
  return _mm256_mul_ps(_mm256_mul_ps(float_of_half(d), steps), _mm256_set1_ps(factor));
}

/// The same for a byte of two nibbles for each group.
ALWAYS_INLINE void iq2_scales(uint16_t d, const uint8_t *bytes, __m256 scale[2]) {
  const uint64_t both = load_u64(bytes);
  scale[0] = half_step_scales(d, floats_of_bytes(both & LOW_NIBBLES), 0.25f);
  scale[1] = half_step_scales(d, floats_of_bytes(both >> 4 & LOW_NIBBLES), 0.25f);
}

/// d * (2 * scale + 1) / 8.
ALWAYS_INLINE __m256 iq1_scales(uint16_t d, __m256 scales) {
  const __m256 odd = _mm256_add_ps(_mm256_add_ps(scales, scales), _mm256_set1_ps(1));
  return _mm256_mul_ps(_mm256_mul_ps(float_of_half(d), odd), _mm256_set1_ps(0.125f));
}

ALWAYS_INLINE void iq1_m_scales(const block_iq1_m *block, __m256 scale[2]) {
  uint32_t bytes[4];
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) bytes[i] = _pdep_u32(block->scales[i], 0x07070707);
  split_bytes(
      bytes[0] | (uint64_t)bytes[1] << 32, bytes[2] | (uint64_t)bytes[3] << 32, scale);
  for (int h = 0; h < 2; h++) scale[h] = iq1_scales(iq1_m_d(block), scale[h]);
}

ALWAYS_INLINE __m256 iq1_s_scales(const block_iq1_s *block) {
  const __m128i high = _mm_loadu_si128((const __m128i *)((const uint8_t *)block + 34));
  const __m128i bits = _mm_and_si128(_mm_srli_epi16(high, 12), _mm_set1_epi16(7));
  return iq1_scales(block->d, _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(bits)));
}

ALWAYS_INLINE __m256 iq2_xxs_scales(const block_iq2_xxs *block) {
  uint64_t bytes = 0;
#pragma clang loop unroll(full)
  for (int g = 0; g < 8; g++) bytes |= (uint64_t)(block->groups[g].signs >> 28) << 8 * g;
  return half_step_scales(block->d, floats_of_bytes(bytes), 0.25f);
}

ALWAYS_INLINE __m256 iq3_xxs_scales(const block_iq3_xxs *block) {
  const __m256i words = _mm256_loadu_si256((const __m256i *)((const uint8_t *)block + 66));
  return half_step_scales(block->d, _mm256_cvtepi32_ps(_mm256_srli_epi32(words, 28)), 0.5f);
}

ALWAYS_INLINE __m256 iq3_s_scales(const block_iq3_s *block) {
  const __m256 scales = floats_of_bytes(_pdep_u64(load_u32(block->scales), LOW_NIBBLES));
  const __m256 odd = _mm256_add_ps(_mm256_add_ps(scales, scales), _mm256_set1_ps(1));
  return _mm256_mul_ps(float_of_half(block->d), odd);
}

ALWAYS_INLINE __m256 iq4_xs_scales(const block_iq4_xs *block) {
  const uint64_t low = _pdep_u64(load_u32(block->scales_low), LOW_NIBBLES);
  const uint64_t high = _pdep_u64(block->scales_high, 0x0303030303030303ull << 4);
  const __m256 scales = _mm256_sub_ps(floats_of_bytes(low | high), _mm256_set1_ps(32));
  return _mm256_mul_ps(float_of_half(block->d), scales);
}

ALWAYS_INLINE __m256 iq4_nl_scales(const block_iq4_nl *blocks) {
  return _mm256_cvtph_ps(_mm_setr_epi16(
      (short)blocks[0].d, (short)blocks[1].d, (short)blocks[2].d, (short)blocks[3].d,
      (short)blocks[4].d, (short)blocks[5].d, (short)blocks[6].d, (short)blocks[7].d));
}

ALWAYS_INLINE __m256 mxfp4_scales(const block_mxfp4 *blocks) {
  const __m256i e = _mm256_setr_epi32(
      blocks[0].e, blocks[1].e, blocks[2].e, blocks[3].e, blocks[4].e, blocks[5].e, blocks[6].e,
      blocks[7].e);
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  const __m256i isSubnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, isSubnormal));
}

/// The float scales of the 8 groups, or of their halves; Q2_K has minimums too.
ALWAYS_INLINE void decoded_scales(
    uint32_t type, const uint8_t *p, __m256 scale[2], __m256 minimum[2]) {
  switch (type) {
    case TYPE_Q2_K: q2_k_scales((const block_q2_k *)p, scale, minimum); break;
    case TYPE_Q3_K: q3_k_float_scales((const block_q3_k *)p, scale); break;
    case TYPE_Q8_K: scale[0] = _mm256_set1_ps(((const block_q8_k *)p)->d); break;
    case TYPE_IQ4_NL: scale[0] = iq4_nl_scales((const block_iq4_nl *)p); break;
    case TYPE_IQ4_XS: scale[0] = iq4_xs_scales((const block_iq4_xs *)p); break;
    case TYPE_MXFP4: scale[0] = mxfp4_scales((const block_mxfp4 *)p); break;
    case TYPE_IQ2_XXS: scale[0] = iq2_xxs_scales((const block_iq2_xxs *)p); break;
    case TYPE_IQ2_XS: {
      const block_iq2_xs *block = (const block_iq2_xs *)p;
      iq2_scales(block->d, block->scales, scale);
      break;
    }
    case TYPE_IQ2_S: {
      const block_iq2_s *block = (const block_iq2_s *)p;
      iq2_scales(block->d, block->scales, scale);
      break;
    }
    case TYPE_IQ3_XXS: scale[0] = iq3_xxs_scales((const block_iq3_xxs *)p); break;
    case TYPE_IQ3_S: scale[0] = iq3_s_scales((const block_iq3_s *)p); break;
    case TYPE_IQ1_S: scale[0] = iq1_s_scales((const block_iq1_s *)p); break;
    case TYPE_IQ1_M: iq1_m_scales((const block_iq1_m *)p, scale); break;
    default: __builtin_trap();
  }
}

/// What decoded integers lack to be unsigned, of the formats whose range fits the tile kernels.
ALWAYS_INLINE int decoded_offset(uint32_t type) {
  switch (type) {
    case TYPE_Q2_K: return 0;
    case TYPE_Q3_K: return 4;
    case TYPE_MXFP4: return 12;
    case TYPE_IQ2_XXS:
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S: return 43;
    case TYPE_IQ3_XXS: return 62;
    case TYPE_IQ3_S: return 15;
    case TYPE_IQ1_S:
    case TYPE_IQ1_M: return 9;
    default: return 128;
  }
}

#pragma clang attribute pop

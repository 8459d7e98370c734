// How the block formats unpack into integers, scales and minimums with AVX2.
//
// All formats are seen as superblocks of 256 weights: 8 groups of 32 integers with a float scale
// each, and for some a minimum. The 8 scales and minimums are one vector.
#pragma once
#include <immintrin.h>

#include "blocks.h"
#include "decoded_avx2.h"
#include "kernels.h"

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)

ALWAYS_INLINE float load_float(const void *p) {
  float v;
  memcpy(&v, p, sizeof v);
  return v;
}

ALWAYS_INLINE __m256i with_fifth_bits(__m256i low, uint32_t bits) {
  return _mm256_or_si256(low, _mm256_andnot_si256(clear_bits(bits), _mm256_set1_epi8(16)));
}

/// The bits of mask (1 << 4) or (3 << 4) of each byte after a shift left by `shift`, or right.
ALWAYS_INLINE __m256i high_bits(__m256i bytes, int shift, char mask) {
  const __m256i shifted =
      shift >= 0 ? _mm256_slli_epi16(bytes, shift) : _mm256_srli_epi16(bytes, -shift);
  return _mm256_and_si256(shifted, _mm256_set1_epi8(mask));
}

ALWAYS_INLINE __m256i k_nibbles(const uint8_t *qs, int g) {
  const __m256i bytes = _mm256_loadu_si256((const __m256i *)(qs + g / 2 * 32));
  const __m256i shifted = g % 2 ? _mm256_srli_epi16(bytes, 4) : bytes;
  return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

ALWAYS_INLINE __m256i q6_k_values(const block_q6_k *block, int g) {
  const int half = g / 4, quarter = g % 4;
  const __m256i low_bytes =
      _mm256_loadu_si256((const __m256i *)(block->ql + 64 * half + 32 * (quarter % 2)));
  const __m256i low = _mm256_and_si256(
      quarter / 2 ? _mm256_srli_epi16(low_bytes, 4) : low_bytes, _mm256_set1_epi8(15));
  const __m256i high_bytes = _mm256_loadu_si256((const __m256i *)(block->qh + 32 * half));
  const __m256i high = high_bits(high_bytes, 4 - 2 * quarter, 0x30);
  return _mm256_or_si256(low, high);
}

/// The 32 integers of group `g`: signed in Q8_0, in the other formats unsigned and too large by
/// `value_offset`.
ALWAYS_INLINE __m256i values(uint32_t type, const uint8_t *p, int g) {
  switch (type) {
    case TYPE_Q4_0: return nibbles_256(((const block_q4_0 *)p + g)->qs);
    case TYPE_Q4_1: return nibbles_256(((const block_q4_1 *)p + g)->qs);
    case TYPE_Q5_0: {
      const block_q5_0 *block = (const block_q5_0 *)p + g;
      return with_fifth_bits(nibbles_256(block->qs), block->qh);
    }
    case TYPE_Q5_1: {
      const block_q5_1 *block = (const block_q5_1 *)p + g;
      return with_fifth_bits(nibbles_256(block->qs), block->qh);
    }
    case TYPE_Q8_0: return _mm256_loadu_si256((const __m256i *)((const block_q8_0 *)p + g)->qs);
    case TYPE_Q4_K: return k_nibbles(((const block_q4_k *)p)->qs, g);
    case TYPE_Q5_K: {
      const block_q5_k *block = (const block_q5_k *)p;
      const __m256i bits = _mm256_loadu_si256((const __m256i *)block->qh);
      return _mm256_or_si256(k_nibbles(block->qs, g), high_bits(bits, 4 - g, 16));
    }
    case TYPE_Q6_K: return q6_k_values((const block_q6_k *)p, g);
    default: __builtin_trap();
  }
}

/// What the unsigned integers of a format are too large by.
ALWAYS_INLINE int value_offset(uint32_t type) {
  switch (type) {
    case TYPE_Q4_0: return 8;
    case TYPE_Q5_0: return 16;
    case TYPE_Q6_K: return 32;
    default: return 0;
  }
}

/// The half at `p + offset` of each of 8 blocks of `stride` bytes, which have 16 bytes from there.
ALWAYS_INLINE __m256 halves(const uint8_t *p, size_t offset, size_t stride) {
  __m128i h[8];
#pragma clang loop unroll(full)
  for (size_t i = 0; i < 8; i++)
    h[i] = _mm_loadu_si128((const __m128i *)(p + offset + i * stride));
  const __m128i a = _mm_unpacklo_epi16(h[0], h[1]), b = _mm_unpacklo_epi16(h[2], h[3]);
  const __m128i c = _mm_unpacklo_epi16(h[4], h[5]), d = _mm_unpacklo_epi16(h[6], h[7]);
  return _mm256_cvtph_ps(
      _mm_unpacklo_epi64(_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d)));
}

/// The 16 integer scales of a Q6_K block.
ALWAYS_INLINE __m128i q6_k_scales(const uint8_t *p) {
  return _mm_loadu_si128((const __m128i *)((const block_q6_k *)p)->scales);
}

/// The float scales of the 8 groups, and their minimums where the format has them. For Q6_K the
/// scale is what all integer scales are multiplied by.
ALWAYS_INLINE void scales(uint32_t type, const uint8_t *p, __m256 *scale, __m256 *minimum) {
  const size_t stride = superblock_bytes(type) / 8;
  *minimum = _mm256_setzero_ps();
  switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1:
      *scale = halves(p, 0, stride);
      *minimum = halves(p, 2, stride);
      break;
    case TYPE_Q4_K:
    case TYPE_Q5_K: {
      // Both formats begin with d, dmin and the packed scales.
      const block_q4_k *block = (const block_q4_k *)p;
      const group_scales packed = unpack_group_scales(block->scales);
      *scale = _mm256_mul_ps(float_of_half(block->d), floats_of_bytes(packed.scales));
      *minimum = _mm256_mul_ps(
          _mm256_sub_ps(_mm256_setzero_ps(), float_of_half(block->dmin)),
          floats_of_bytes(packed.mins));
      break;
    }
    case TYPE_Q6_K: *scale = float_of_half(((const block_q6_k *)p)->d); break;
    default: *scale = halves(p, 0, stride); break;
  }
}

/// 8 weights of a float type as floats.
ALWAYS_INLINE __m256 float_values(uint32_t type, const uint8_t *p) {
  switch (type) {
    case TYPE_F32: return _mm256_loadu_ps((const float *)p);
    case TYPE_F16: return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    default: {
      const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
      return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
  }
}

#pragma clang attribute pop

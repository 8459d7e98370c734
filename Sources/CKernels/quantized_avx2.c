// Quantized matrix products for AVX2, FMA and F16C.
//
// All formats are seen as superblocks of 256 weights: 8 groups of 32 integers with a float scale
// each, and for some a minimum. (A row of a 32-value format that does not fill its last superblock
// is padded with zeros.) The 8 scales and minimums are computed as one vector.
#if defined(__x86_64__)
#include <immintrin.h>

#include "blocks.h"
#include "kernels.h"

#pragma STDC FP_CONTRACT OFF
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

#define TILE 4
enum { PREFETCH_BYTES = 2048 };

// MARK: - Formats

ALWAYS_INLINE bool is_signed(uint32_t type) {
  return type == TYPE_Q4_0 || type == TYPE_Q5_0 || type == TYPE_Q8_0 || type == TYPE_Q6_K;
}

/// 16 bytes as 32 nibbles, the low ones first.
ALWAYS_INLINE __m256i nibbles(const uint8_t *p) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
  const __m256i shifted = _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4));
  return _mm256_and_si256(shifted, _mm256_set1_epi8(15));
}

/// A byte 0xff for each bit of `bits` that is not set, 0 for the others.
ALWAYS_INLINE __m256i clear_bits(uint32_t bits) {
  const __m256i spread = _mm256_shuffle_epi8(
      _mm256_set1_epi32((int)bits),
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i mask = _mm256_set1_epi64x((long long)0x8040201008040201ull);
  return _mm256_cmpeq_epi8(_mm256_and_si256(spread, mask), _mm256_setzero_si256());
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
  return _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
}

/// The 32 integers of group `g`, signed or unsigned as `is_signed` says.
ALWAYS_INLINE __m256i values(uint32_t type, const uint8_t *p, int g) {
  switch (type) {
    case TYPE_Q4_0:
      return _mm256_sub_epi8(nibbles(((const block_q4_0 *)p + g)->qs), _mm256_set1_epi8(8));
    case TYPE_Q4_1: return nibbles(((const block_q4_1 *)p + g)->qs);
    case TYPE_Q5_0: {
      // A nibble without its fifth bit is value - 16: the nibble below a sign extension.
      const block_q5_0 *block = (const block_q5_0 *)p + g;
      const __m256i sign = _mm256_and_si256(clear_bits(block->qh), _mm256_set1_epi8((char)0xf0));
      return _mm256_or_si256(nibbles(block->qs), sign);
    }
    case TYPE_Q5_1: {
      const block_q5_1 *block = (const block_q5_1 *)p + g;
      const __m256i fifth = _mm256_andnot_si256(clear_bits(block->qh), _mm256_set1_epi8(16));
      return _mm256_or_si256(nibbles(block->qs), fifth);
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

/// What pairs of 16-bit sums of group `g` are multiplied by: the scales of Q6_K's two halves.
ALWAYS_INLINE __m256i multipliers(uint32_t type, const uint8_t *p, int g) {
  if (type != TYPE_Q6_K) return _mm256_set1_epi16(1);
  // All 16 scales stay in a register; each group takes two of them, 8 times each.
  const long long each = 0x0101010101010101;
  const __m128i scales = _mm_loadu_si128((const __m128i *)((const block_q6_k *)p)->scales);
  const __m128i pair = _mm_set_epi64x((2 * g + 1) * each, 2 * g * each);
  return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, pair));
}

/// The half at `p + offset` of each of 8 blocks of `stride` bytes.
ALWAYS_INLINE __m256 halves(const uint8_t *p, size_t offset, size_t stride) {
  p += offset;
  return _mm256_cvtph_ps(_mm_setr_epi16(
      (short)load_u16(p), (short)load_u16(p + stride), (short)load_u16(p + 2 * stride),
      (short)load_u16(p + 3 * stride), (short)load_u16(p + 4 * stride),
      (short)load_u16(p + 5 * stride), (short)load_u16(p + 6 * stride),
      (short)load_u16(p + 7 * stride)));
}

ALWAYS_INLINE __m256 broadcast_half(uint16_t half) {
  return _mm256_cvtph_ps(_mm_set1_epi16((short)half));
}

ALWAYS_INLINE __m256 floats_from_bytes(uint64_t bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes)));
}

/// The float scales of the 8 groups, and their minimums where the format has them.
ALWAYS_INLINE void scales(uint32_t type, const uint8_t *p, __m256 *scale, __m256 *minimum) {
  *minimum = _mm256_setzero_ps();
  switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1:
      *minimum = halves(p, 2, superblock_bytes(type) / 8);
      *scale = halves(p, 0, superblock_bytes(type) / 8);
      break;
    case TYPE_Q4_K:
    case TYPE_Q5_K: {
      // Both formats begin with d, dmin and the packed scales.
      const block_q4_k *block = (const block_q4_k *)p;
      const group_scales packed = unpack_group_scales(block->scales);
      *scale = _mm256_mul_ps(broadcast_half(block->d), floats_from_bytes(packed.scales));
      *minimum = _mm256_mul_ps(
          _mm256_sub_ps(_mm256_setzero_ps(), broadcast_half(block->dmin)),
          floats_from_bytes(packed.mins));
      break;
    }
    case TYPE_Q6_K: *scale = broadcast_half(((const block_q6_k *)p)->d); break;
    default: *scale = halves(p, 0, superblock_bytes(type) / 8); break;
  }
}

// MARK: - Products

/// 8 integer sums of 4 products each.
///
/// No 16-bit sum saturates: |w| <= 128 and |x| <= 127, as activations are never -128.
ALWAYS_INLINE __m256i dot(
    uint32_t type, __m256i w, __m256i magnitude, const int8_t *q, __m256i multiplier) {
  const __m256i x = _mm256_loadu_si256((const __m256i *)q);
  const __m256i pairs =
      is_signed(type) ? _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w))
                      : _mm256_maddubs_epi16(w, x);
  return _mm256_madd_epi16(pairs, multiplier);
}

/// Adds the products of the superblock at `p` with the activations from `column` on.
ALWAYS_INLINE void accumulate(
    uint32_t type, int tokens, const uint8_t *p, const activation_row *acts, size_t column,
    __m256 *sums) {
  __m256 scale, minimum;
  scales(type, p, &scale, &minimum);
  // The scales go through memory: a broadcast load is cheaper than a permutation.
  float token_scales[TILE][8];
#pragma clang loop unroll(full)
  for (int t = 0; t < tokens; t++) {
    const __m256 x_scale = _mm256_loadu_ps((const float *)(acts[t].scale + column / 8));
    _mm256_storeu_ps(token_scales[t], _mm256_mul_ps(scale, x_scale));
    if (has_minimum(type)) {
      const __m256i sum16 = _mm256_loadu_si256((const __m256i *)(acts[t].sum16 + column / 8));
      const __m256i sum32 = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
      const __m256 x_sum = _mm256_mul_ps(_mm256_cvtepi32_ps(sum32), x_scale);
      sums[t] = _mm256_fmadd_ps(minimum, x_sum, sums[t]);
    }
  }
#pragma clang loop unroll(full)
  for (int g = 0; g < 8; g++) {
    const __m256i w = values(type, p, g);
    const __m256i magnitude = _mm256_abs_epi8(w);
    const __m256i multiplier = multipliers(type, p, g);
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const __m256i sum = dot(type, w, magnitude, acts[t].q + column + 32 * g, multiplier);
      sums[t] = _mm256_fmadd_ps(
          _mm256_cvtepi32_ps(sum), _mm256_broadcast_ss(&token_scales[t][g]), sums[t]);
    }
  }
}

ALWAYS_INLINE float horizontal_sum(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#define VECTOR __m256
#define SYMBOL(name) ckernels_matmul_avx2_##name
#include "quantized_body.h"

#pragma clang attribute pop
#endif

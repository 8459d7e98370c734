// Quantized matrix products for AVX-512 with VNNI.
//
// As in quantized_avx2.c every format is seen as superblocks of 256 weights. A vector holds two
// groups of 32 unsigned bytes; the constant by which a signed format's bytes are too large is
// taken off the integer sums, so that no precision is lost.
#if defined(__x86_64__)
#include <immintrin.h>

#include "blocks.h"
#include "decoded_avx2.h"
#include "kernels.h"

#pragma STDC FP_CONTRACT OFF
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), \
    apply_to = function)

#define TILE 8
enum { PREFETCH_BYTES = 2048 };

// MARK: - Formats

/// How much the unsigned bytes of `values` exceed the weights' integers.
ALWAYS_INLINE char bias(uint32_t type) {
  switch (type) {
    case TYPE_Q4_0: return 8;
    case TYPE_Q5_0: return 16;
    case TYPE_Q8_0: return (char)128;
    case TYPE_Q6_K: return 32;
    default: return is_decoded(type) ? (char)128 : 0;
  }
}

/// The upper 32 of 64 bytes, as 16-bit elements.
enum { UPPER_GROUP = 0xffff0000 };

/// 2 x 16 bytes as 2 x 32 nibbles, of each block the low ones first.
ALWAYS_INLINE __m512i nibbles(const uint8_t *p0, const uint8_t *p1) {
  const __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p0));
  const __m512i both =
      _mm512_mask_broadcast_i32x4(low, 0xff00, _mm_loadu_si128((const __m128i *)p1));
  const __m512i shifted = _mm512_mask_srli_epi32(both, 0xf0f0, both, 4);
  return _mm512_and_si512(shifted, _mm512_set1_epi8(15));
}

/// `low` plus 16 where the bit of `bits0` (first 32) or `bits1` (last 32) is set.
ALWAYS_INLINE __m512i add_fifth_bits(__m512i low, uint32_t bits0, uint32_t bits1) {
  const __mmask64 bits = (uint64_t)bits1 << 32 | bits0;
  return _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16));
}

ALWAYS_INLINE __m512i broadcast_32(const uint8_t *p) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));
}

/// `lower` in the first 32 bytes, `upper` in the others.
ALWAYS_INLINE __m512i set_groups(char lower, char upper) {
  return _mm512_mask_set1_epi8(
      _mm512_set1_epi8(lower), (__mmask64)0xffffffff00000000ull, upper);
}

ALWAYS_INLINE __m512i k_nibbles(const uint8_t *qs, int pair) {
  const __m512i bytes = broadcast_32(qs + 32 * pair);
  const __m512i shifted = _mm512_mask_srli_epi16(bytes, UPPER_GROUP, bytes, 4);
  return _mm512_and_si512(shifted, _mm512_set1_epi8(15));
}

ALWAYS_INLINE __m512i q6_k_values(const block_q6_k *block, int pair) {
  const int half = pair / 2;
  __m512i low = _mm512_loadu_si512(block->ql + 64 * half);
  __m512i high = broadcast_32(block->qh + 32 * half);
  if (pair % 2 == 0) {
    high = _mm512_mask_slli_epi16(_mm512_slli_epi16(high, 4), UPPER_GROUP, high, 2);
  } else {
    low = _mm512_srli_epi16(low, 4);
    high = _mm512_mask_srli_epi16(high, UPPER_GROUP, high, 2);
  }
  return _mm512_or_si512(
      _mm512_and_si512(low, _mm512_set1_epi8(0x0f)),
      _mm512_and_si512(high, _mm512_set1_epi8(0x30)));
}

/// The 64 integers of groups 2 * pair and 2 * pair + 1, plus `bias`.
ALWAYS_INLINE __m512i values(uint32_t type, const uint8_t *p, int pair) {
  if (is_decoded(type)) {
    const __m512i first = _mm512_castsi256_si512(decoded_values(type, p, 2 * pair));
    const __m512i both = _mm512_inserti64x4(first, decoded_values(type, p, 2 * pair + 1), 1);
    return _mm512_xor_si512(both, _mm512_set1_epi8((char)128));
  }
  switch (type) {
    case TYPE_Q4_0: {
      const block_q4_0 *block = (const block_q4_0 *)p + 2 * pair;
      return nibbles(block[0].qs, block[1].qs);
    }
    case TYPE_Q4_1: {
      const block_q4_1 *block = (const block_q4_1 *)p + 2 * pair;
      return nibbles(block[0].qs, block[1].qs);
    }
    case TYPE_Q5_0: {
      const block_q5_0 *block = (const block_q5_0 *)p + 2 * pair;
      return add_fifth_bits(nibbles(block[0].qs, block[1].qs), block[0].qh, block[1].qh);
    }
    case TYPE_Q5_1: {
      const block_q5_1 *block = (const block_q5_1 *)p + 2 * pair;
      return add_fifth_bits(nibbles(block[0].qs, block[1].qs), block[0].qh, block[1].qh);
    }
    case TYPE_Q8_0: {
      const block_q8_0 *block = (const block_q8_0 *)p + 2 * pair;
      const __m256i low = _mm256_loadu_si256((const __m256i *)block[0].qs);
      const __m256i high = _mm256_loadu_si256((const __m256i *)block[1].qs);
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
      return _mm512_xor_si512(both, _mm512_set1_epi8((char)128));
    }
    case TYPE_Q4_K: return k_nibbles(((const block_q4_k *)p)->qs, pair);
    case TYPE_Q5_K: {
      const block_q5_k *block = (const block_q5_k *)p;
      const __m512i low = k_nibbles(block->qs, pair);
      const __m512i bit = set_groups((char)(1 << 2 * pair), (char)(2 << 2 * pair));
      const __mmask64 bits = _mm512_test_epi8_mask(broadcast_32(block->qh), bit);
      return _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16));
    }
    case TYPE_Q6_K: return q6_k_values((const block_q6_k *)p, pair);
    default: __builtin_trap();
  }
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

ALWAYS_INLINE __m512 broadcast_half(uint16_t half) {
  return _mm512_cvtph_ps(_mm256_set1_epi16((short)half));
}

ALWAYS_INLINE __m512 floats_from_bytes(uint64_t bytes) {
  const __m128i vector = _mm_cvtsi64_si128((long long)bytes);
  return _mm512_zextps256_ps512(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(vector)));
}

/// Scales of first and of second halves of groups in the order of the halves.
ALWAYS_INLINE __m512 interleave(__m256 first, __m256 second) {
  const __m512 both = _mm512_insertf32x8(_mm512_castps256_ps512(first), second, 1);
  return _mm512_permutexvar_ps(
      _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15), both);
}

/// The float scales of the 8 groups, or of their 16 halves; and the minimums where the format has them.
ALWAYS_INLINE void scales(uint32_t type, const uint8_t *p, __m512 *scale, __m512 *minimum) {
  *minimum = _mm512_setzero_ps();
  if (is_decoded(type)) {
    __m256 scales[2], minimums[2];
    decoded_scales(type, p, scales, minimums);
    *scale = group_halves(type) == 2 ? interleave(scales[0], scales[1])
                                     : _mm512_zextps256_ps512(scales[0]);
    if (has_minimum(type)) *minimum = interleave(minimums[0], minimums[1]);
    return;
  }
  switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1:
      *minimum = _mm512_zextps256_ps512(halves(p, 2, superblock_bytes(type) / 8));
      *scale = _mm512_zextps256_ps512(halves(p, 0, superblock_bytes(type) / 8));
      break;
    case TYPE_Q4_K:
    case TYPE_Q5_K: {
      // Both formats begin with d, dmin and the packed scales.
      const block_q4_k *block = (const block_q4_k *)p;
      const group_scales packed = unpack_group_scales(block->scales);
      *scale = _mm512_mul_ps(broadcast_half(block->d), floats_from_bytes(packed.scales));
      *minimum = _mm512_mul_ps(
          _mm512_sub_ps(_mm512_setzero_ps(), broadcast_half(block->dmin)),
          floats_from_bytes(packed.mins));
      break;
    }
    case TYPE_Q6_K: {
      const block_q6_k *block = (const block_q6_k *)p;
      const __m128i bytes = _mm_loadu_si128((const __m128i *)block->scales);
      *scale = _mm512_mul_ps(
          broadcast_half(block->d), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
      break;
    }
    default:
      *scale = _mm512_zextps256_ps512(halves(p, 0, superblock_bytes(type) / 8));
      break;
  }
}

// MARK: - Products

/// 16 integer sums of 4 products each.
ALWAYS_INLINE __m512i dot(uint32_t type, __m512i w, const int8_t *q) {
  const __m512i x = _mm512_loadu_si512(q);
  const __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, x);
  if (!bias(type)) return sum;
  const __m512i excess =
      _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(bias(type)), x);
  return _mm512_sub_epi32(sum, excess);
}

/// For the 16 sums of `pair`, which of the superblock's scales is theirs.
ALWAYS_INLINE __m512i scale_indices(uint32_t type, int pair) {
  if (group_halves(type) == 2)
    return _mm512_add_epi32(
        _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
        _mm512_set1_epi32(4 * pair));
  return _mm512_add_epi32(
      _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
      _mm512_set1_epi32(2 * pair));
}

/// Adds the products of the superblock at `p` with the activations from `column` on.
ALWAYS_INLINE void accumulate(
    uint32_t type, int tokens, const uint8_t *p, const activation_row *acts, size_t column,
    __m512 *sums) {
  __m512 scale, minimum, token_scales[TILE];
  scales(type, p, &scale, &minimum);
#pragma clang loop unroll(full)
  for (int t = 0; t < tokens; t++) {
    __m512 x_scale = _mm512_zextps256_ps512(
        _mm256_loadu_ps((const float *)(acts[t].scale + column / 8)));
    if (group_halves(type) == 2)
      x_scale = _mm512_permutexvar_ps(
          _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), x_scale);
    token_scales[t] = _mm512_mul_ps(scale, x_scale);
    if (has_minimum(type)) {
      const __m256i sum16 = _mm256_loadu_si256((const __m256i *)(acts[t].sum16 + column / 8));
      const __m256i sum32 = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
      const __m512 sum = group_halves(type) == 2
                             ? _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(sum16))
                             : _mm512_zextps256_ps512(_mm256_cvtepi32_ps(sum32));
      const __m512 x_sum = _mm512_mul_ps(sum, x_scale);
      sums[t] = _mm512_fmadd_ps(minimum, x_sum, sums[t]);
    }
  }
#pragma clang loop unroll(full)
  for (int pair = 0; pair < 4; pair++) {
    const __m512i w = values(type, p, pair), indices = scale_indices(type, pair);
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const __m512 sum = _mm512_cvtepi32_ps(dot(type, w, acts[t].q + column + 64 * pair));
      const __m512 sum_scale = _mm512_permutexvar_ps(indices, token_scales[t]);
      sums[t] = _mm512_fmadd_ps(sum, sum_scale, sums[t]);
    }
  }
}

ALWAYS_INLINE float horizontal_sum(__m512 v) {
  const __m256 half =
      _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#define VECTOR __m512
#define SYMBOL(name) ckernels_matmul_avx512_##name
#include "quantized_body.h"

#pragma clang attribute pop
#endif

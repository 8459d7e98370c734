// Quantized matrix products for AVX2, FMA and F16C, by rows.
//
// A row of a 32-value format that does not fill its last superblock is padded with zeros.
#if defined(__x86_64__)
#include "formats_avx2.h"

#pragma STDC FP_CONTRACT OFF
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)

#define TILE 4
enum { PREFETCH_BYTES = 4096 };

/// 8 integer sums of 4 products each.
///
/// No 16-bit sum saturates: signed |w| <= 128, unsigned w <= 63, |x| <= 127, as activations are
/// never -128.
ALWAYS_INLINE __m256i dot(uint32_t type, __m256i w, const int8_t *q) {
  const __m256i x = _mm256_loadu_si256((const __m256i *)q);
  const __m256i pairs = type == TYPE_Q8_0
                            ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                            : _mm256_maddubs_epi16(w, x);
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/// What the sums of groups g and g + 1, four of each in either half, are multiplied by: the scales
/// of Q6_K's two half groups.
ALWAYS_INLINE __m256i multipliers(uint32_t type, const uint8_t *p, int g) {
  if (type != TYPE_Q6_K) return _mm256_set1_epi16(1);
  const int each = 0x01010101;
  const __m128i four = _mm_setr_epi32(
      2 * g * each, (2 * g + 2) * each, (2 * g + 1) * each, (2 * g + 3) * each);
  return _mm256_cvtepi8_epi16(_mm_shuffle_epi8(q6_k_scales(p), four));
}

/// From the sums `a` and `b` of two groups, two of each in either half. In 16 bits where they fit:
/// Q6_K's are at most 4 * 63 * 127 = 32,004 before they are multiplied.
ALWAYS_INLINE __m256i fold_groups(uint32_t type, __m256i a, __m256i b, __m256i multiplier) {
  if (type == TYPE_Q8_0)
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  return _mm256_madd_epi16(_mm256_packs_epi32(a, b), multiplier);
}

/// From two results of `fold_groups`, one sum of each of four groups in either half. The formats of
/// up to 5 bits have at most 8 * 31 * 127 = 31,496.
ALWAYS_INLINE __m256i fold_pairs(uint32_t type, __m256i a, __m256i b) {
  if (type != TYPE_Q8_0 && type != TYPE_Q6_K)
    return _mm256_madd_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16(1));
  const __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
  const __m256 even = _mm256_shuffle_ps(x, y, 0x88), odd = _mm256_shuffle_ps(x, y, 0xdd);
  return _mm256_add_epi32(_mm256_castps_si256(even), _mm256_castps_si256(odd));
}

/// offset * the sums of the activations of each group, which unsigned weights add too much.
ALWAYS_INLINE __m256i excess(uint32_t type, const uint8_t *p, __m256i sum16) {
  const short offset = (short)value_offset(type);
  if (type != TYPE_Q6_K) return _mm256_madd_epi16(sum16, _mm256_set1_epi16(offset));
  const __m256i scale = _mm256_cvtepi8_epi16(q6_k_scales(p));
  return _mm256_slli_epi32(_mm256_madd_epi16(sum16, scale), 5);
}

/// As `accumulate`, for the formats that are decoded: sums of four products are multiplied as floats.
ALWAYS_INLINE void accumulate_decoded(
    uint32_t type, int tokens, const uint8_t *p, const activation_row *acts, size_t column,
    __m256 *sums) {
  __m256 scale[2], minimum[2];
  decoded_scales(type, p, scale, minimum);
  const int halves = group_halves(type);
  float token_scales[TILE][2][8];
#pragma clang loop unroll(full)
  for (int t = 0; t < tokens; t++) {
    const __m256 x_scale = _mm256_loadu_ps((const float *)(acts[t].scale + column / 8));
    for (int h = 0; h < halves; h++)
      _mm256_storeu_ps(token_scales[t][h], _mm256_mul_ps(scale[h], x_scale));
    if (has_minimum(type)) {
      const __m256i sum16 = _mm256_loadu_si256((const __m256i *)(acts[t].sum16 + column / 8));
      const __m256i first = _mm256_srai_epi32(_mm256_slli_epi32(sum16, 16), 16);
      const __m256i second = _mm256_srai_epi32(sum16, 16);
      const __m256 products = _mm256_fmadd_ps(
          minimum[0], _mm256_cvtepi32_ps(first),
          _mm256_mul_ps(minimum[1], _mm256_cvtepi32_ps(second)));
      sums[t] = _mm256_fmadd_ps(products, x_scale, sums[t]);
    }
  }
#pragma clang loop unroll(full)
  for (int g = 0; g < 8; g++) {
    const __m256i w = decoded_values(type, p, g), magnitudes = _mm256_abs_epi8(w);
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const __m256i x = _mm256_loadu_si256((const __m256i *)(acts[t].q + column + 32 * g));
      const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, w));
      const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
      const __m128 first = _mm_broadcast_ss(&token_scales[t][0][g]);
      const __m128 second = halves == 2 ? _mm_broadcast_ss(&token_scales[t][1][g]) : first;
      sums[t] = _mm256_fmadd_ps(
          _mm256_cvtepi32_ps(fours), _mm256_set_m128(second, first), sums[t]);
    }
  }
}

/// Adds the products of the superblock at `p` with the activations from `column` on; but for decoded
/// formats, group g's to element g of the sums.
ALWAYS_INLINE void accumulate(
    uint32_t type, int tokens, const uint8_t *p, const activation_row *acts, size_t column,
    __m256 *sums) {
  if (is_decoded(type)) {
    accumulate_decoded(type, tokens, p, acts, column, sums);
    return;
  }
  __m256i pairs[TILE][2], fours[TILE][2];
#pragma clang loop unroll(full)
  for (int g = 0; g < 8; g += 2) {
    const __m256i a = values(type, p, g), b = values(type, p, g + 1);
    const __m256i multiplier = multipliers(type, p, g);
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const int8_t *q = acts[t].q + column + 32 * g;
      pairs[t][g / 2 % 2] =
          fold_groups(type, dot(type, a, q), dot(type, b, q + 32), multiplier);
      if (g % 4 == 2) fours[t][g / 4] = fold_pairs(type, pairs[t][0], pairs[t][1]);
    }
  }
  __m256 scale, minimum;
  scales(type, p, &scale, &minimum);
#pragma clang loop unroll(full)
  for (int t = 0; t < tokens; t++) {
    __m256i dots = _mm256_add_epi32(
        _mm256_permute2x128_si256(fours[t][0], fours[t][1], 0x20),
        _mm256_permute2x128_si256(fours[t][0], fours[t][1], 0x31));
    const __m256 x_scale = _mm256_loadu_ps((const float *)(acts[t].scale + column / 8));
    const __m256i sum16 = _mm256_loadu_si256((const __m256i *)(acts[t].sum16 + column / 8));
    if (value_offset(type)) dots = _mm256_sub_epi32(dots, excess(type, p, sum16));
    __m256 products = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), scale);
    if (has_minimum(type)) {
      const __m256i sum32 = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
      products = _mm256_fmadd_ps(minimum, _mm256_cvtepi32_ps(sum32), products);
    }
    sums[t] = _mm256_fmadd_ps(products, x_scale, sums[t]);
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

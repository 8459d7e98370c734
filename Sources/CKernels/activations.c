// Quantization of activations: 8-bit blocks of 32 with a float scale, for all quantized weights.
//
// The sets agree to the last bit because each step has one correctly rounded result: the largest
// magnitude is found on the bits, as integers; the scale is one division, its inverse another;
// products round half to even.
#include <float.h>

#include "blocks.h"
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#pragma STDC FP_CONTRACT OFF

/// The scale of a block whose largest magnitude has the bits `maximum`, and the factor that takes
/// its values to -127...127: 0 for a block that is written as zeros.
static inline float block_scale(uint32_t maximum, float *factor) {
  *factor = 0;
  if (maximum >= 0x7f800000u) return float_from_bits(0x7fc00000u);
  const float scale = float_from_bits(maximum) / 127.0f;
  if (!(scale >= FLT_MIN)) return 0;
  *factor = 1.0f / scale;
  return scale;
}

/// Writes the scale of a block and clears its values and sums if they are to be zero.
static inline float finish_block(activation_row row, size_t block, uint32_t maximum) {
  float factor;
  const float scale = block_scale(maximum, &factor);
  memcpy((uint8_t *)row.scale + 4 * block, &scale, 4);
  if (factor == 0) {
    memset((int8_t *)row.q + 32 * block, 0, 32);
    memset((uint8_t *)row.sum16 + 4 * block, 0, 4);
  }
  return factor;
}

static inline void store_sums(activation_row row, size_t block, int32_t first, int32_t second) {
  const int16_t sums[2] = {(int16_t)first, (int16_t)second};
  memcpy((uint8_t *)row.sum16 + 4 * block, sums, 4);
}

void ckernels_quantize_portable(const float *x, void *row_bytes, size_t columns) {
  const activation_row row = activation_parts(row_bytes, columns);
  for (size_t block = 0; block < columns / 32; block++, x += 32) {
    uint32_t maximum = 0;
    for (int i = 0; i < 32; i++) {
      const uint32_t magnitude = load_u32(x + i) & 0x7fffffffu;
      if (magnitude > maximum) maximum = magnitude;
    }
    const float factor = finish_block(row, block, maximum);
    if (factor == 0) continue;
    int32_t sums[2] = {0, 0};
    for (int i = 0; i < 32; i++) {
      // Adding 1.5 * 2^23 leaves no fraction bits: the addition itself rounds half to even.
      const float rounded = (x[i] * factor + 12582912.0f) - 12582912.0f;
      ((int8_t *)row.q)[32 * block + (size_t)i] = (int8_t)rounded;
      sums[i / 16] += (int8_t)rounded;
    }
    store_sums(row, block, sums[0], sums[1]);
  }
}

#if defined(__x86_64__)

// MARK: - AVX2

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

ALWAYS_INLINE __m256i magnitude_bits(__m256 v) {
  return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}

ALWAYS_INLINE int32_t sum_of_4(__m128i v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

ALWAYS_INLINE uint32_t largest_of_8(__m256i v) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1)));
}

void ckernels_quantize_avx2(const float *x, void *row_bytes, size_t columns) {
  const activation_row row = activation_parts(row_bytes, columns);
  for (size_t block = 0; block < columns / 32; block++, x += 32) {
    __m256 v[4];
    __m256i maximum = _mm256_setzero_si256(), rounded[4];
    for (int i = 0; i < 4; i++) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      maximum = _mm256_max_epu32(maximum, magnitude_bits(v[i]));
    }
    const float factor = finish_block(row, block, largest_of_8(maximum));
    if (factor == 0) continue;
    for (int i = 0; i < 4; i++)
      rounded[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(factor)));
    const __m256i first = _mm256_add_epi32(rounded[0], rounded[1]);
    const __m256i second = _mm256_add_epi32(rounded[2], rounded[3]);
    store_sums(
        row, block,
        sum_of_4(_mm_add_epi32(
            _mm256_castsi256_si128(first), _mm256_extracti128_si256(first, 1))),
        sum_of_4(_mm_add_epi32(
            _mm256_castsi256_si128(second), _mm256_extracti128_si256(second, 1))));
    // Packing works within 128-bit lanes and leaves runs of 4 values as 0 2 4 6 1 3 5 7.
    const __m256i bytes = _mm256_packs_epi16(
        _mm256_packs_epi32(rounded[0], rounded[1]), _mm256_packs_epi32(rounded[2], rounded[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(
        (__m256i *)(row.q + 32 * block), _mm256_permutevar8x32_epi32(bytes, order));
  }
}

#pragma clang attribute pop

// MARK: - AVX-512

#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))), \
    apply_to = function)

void ckernels_quantize_avx512(const float *x, void *row_bytes, size_t columns) {
  const activation_row row = activation_parts(row_bytes, columns);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  for (size_t block = 0; block < columns / 32; block++, x += 32) {
    const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
    const __m512i maximum = _mm512_max_epu32(
        _mm512_and_si512(_mm512_castps_si512(first), magnitude),
        _mm512_and_si512(_mm512_castps_si512(second), magnitude));
    const float factor = finish_block(row, block, _mm512_reduce_max_epu32(maximum));
    if (factor == 0) continue;
    const __m512 factors = _mm512_set1_ps(factor);
    const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(first, factors));
    const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(second, factors));
    store_sums(row, block, _mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high));
    int8_t *q = (int8_t *)row.q + 32 * block;
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(high));
  }
}

#pragma clang attribute pop
#endif

// Matrix products for many tokens with AVX2, FMA and F16C; see packed.h.
#if defined(__x86_64__)
#include "formats_avx2.h"
#include "packed.h"

#pragma STDC FP_CONTRACT OFF
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi2"))), apply_to = function)

enum { TILE = 4, FLOAT_TILE = 6 };

/// Bytes are split into two planes of nibbles, whose 16-bit products can be added.
#define PLANES(type) \
  ((type) == TYPE_Q8_0 || (is_decoded(type) && decoded_offset(type) == 128) ? 2 : 1)

/// Keeps the compiler from adding the products of several steps in another order, which it does at
/// the price of spilling the weights.
#define KEEP(v) __asm__("" : "+x"(v))

/// Steps of 4 columns whose 16-bit products can be added without saturation, of one half of a group where
/// its halves have scales of their own.
ALWAYS_INLINE int safe_steps(uint32_t type) {
  switch (type) {
    case TYPE_Q5_0:
    case TYPE_Q5_1:
    case TYPE_Q2_K:
    case TYPE_Q3_K:
    case TYPE_MXFP4:
    case TYPE_IQ3_S:
    case TYPE_IQ1_S:
    case TYPE_IQ1_M:
    case TYPE_Q5_K: return 4;  // 4 * 2 * 31 * 127 = 31,496
    case TYPE_IQ2_XXS:
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S:
    case TYPE_IQ3_XXS: return 1;  // 2 * 124 * 127 = 31,496
    case TYPE_Q6_K: return 2;  // 2 * 2 * 63 * 127 = 32,004
    default: return 8;         // nibbles: 8 * 2 * 15 * 127 = 30,480
  }
}

/// sums[t][v] += 4 integer products in each of 8 lanes, over steps begin..<begin + count of 4
/// columns, for the two vectors of weights at `q`, the next step's `stride` bytes on.
ALWAYS_INLINE void add_steps(
    int tokens, int count, int safe, const uint8_t *q, size_t stride, const activation_row *acts,
    size_t column, __m256i (*totals)[2]) {
#pragma clang loop unroll(full)
  for (int step = 0; step < count; step += safe) {
    __m256i sums[TILE][2];
#pragma clang loop unroll(full)
    for (int s = step; s < step + safe; s++) {
      const __m256i *vectors = (const __m256i *)(q + (size_t)s * stride);
      const __m256i w[2] = {_mm256_load_si256(vectors), _mm256_load_si256(vectors + 1)};
#pragma clang loop unroll(full)
      for (int t = 0; t < tokens; t++) {
        const __m256i x = _mm256_set1_epi32((int)load_u32(acts[t].q + column + 4 * (size_t)s));
        for (int v = 0; v < 2; v++) {
          const __m256i pairs = _mm256_maddubs_epi16(w[v], x);
          sums[t][v] = s == step ? pairs : _mm256_add_epi16(sums[t][v], pairs);
          KEEP(sums[t][v]);
        }
      }
    }
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      for (int v = 0; v < 2; v++) {
        const __m256i quads = _mm256_madd_epi16(sums[t][v], _mm256_set1_epi16(1));
        totals[t][v] = step == 0 ? quads : _mm256_add_epi32(totals[t][v], quads);
      }
    }
  }
}

/// products[t][row] = the products of `groups` groups of a slice with `tokens` tokens.
ALWAYS_INLINE void multiply_quantized(
    uint32_t type, int tokens, const packed_slice *slice, size_t groups,
    const activation_row *acts, const scaled_sums *sums, float (*products)[PANEL_ROWS]) {
  const int halves = group_halves(type), planes = PLANES(type);
  __m256 out[TILE][2];
  for (int t = 0; t < tokens; t++) out[t][0] = out[t][1] = _mm256_setzero_ps();
  for (size_t g = 0; g < groups; g++) {
#pragma clang loop unroll(full)
    for (int part = 0; part < halves * planes; part++) {
      // A part is half of the columns, or, of two planes, half of the rows.
      const int half = halves == 2 ? part : 0, first = planes == 2 ? part : 0;
      const size_t stride = 4 * PANEL_ROWS * (size_t)planes;
      const size_t at = g * (size_t)halves + (size_t)half;
      __m256i totals[TILE][2];
      add_steps(
          tokens, 8 / halves, safe_steps(type),
          slice->q + (g * 8 + (size_t)half * 4) * stride + (size_t)first * 64, stride, acts,
          g * 32 + (size_t)half * 16, totals);
#pragma clang loop unroll(full)
      for (int t = 0; t < tokens; t++) {
        const __m256 x_scale = _mm256_broadcast_ss((const float *)(acts[t].scale + g * 4));
        const __m256 x_sum = _mm256_broadcast_ss(&sums[t].of[at]);
        if (planes == 2)
          totals[t][0] = _mm256_add_epi32(totals[t][0], _mm256_slli_epi32(totals[t][1], 4));
        for (int v = first; v < first + 2 / planes; v++) {
          const __m256 dot = _mm256_cvtepi32_ps(totals[t][v - first]);
          const __m256 scale = _mm256_load_ps(&slice->scale[at][v * 8]);
          const __m256 minimum = _mm256_load_ps(&slice->minimum[at][v * 8]);
          out[t][v] = _mm256_fmadd_ps(dot, _mm256_mul_ps(scale, x_scale), out[t][v]);
          out[t][v] = _mm256_fmadd_ps(minimum, x_sum, out[t][v]);
        }
      }
    }
  }
  for (int t = 0; t < tokens; t++) {
    _mm256_store_ps(products[t], out[t][0]);
    _mm256_store_ps(products[t] + 8, out[t][1]);
  }
}

/// As `multiply_quantized`, for float weights.
ALWAYS_INLINE void multiply_floats(
    int tokens, const packed_slice *slice, size_t columns, const float *const *x,
    float (*products)[PANEL_ROWS]) {
  __m256 out[FLOAT_TILE][2];
  for (int t = 0; t < tokens; t++) out[t][0] = out[t][1] = _mm256_setzero_ps();
  for (size_t column = 0; column < columns; column++) {
    const __m256 w[2] = {
        _mm256_load_ps(slice->floats[column]), _mm256_load_ps(slice->floats[column] + 8)};
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const __m256 value = _mm256_broadcast_ss(x[t] + column);
      for (int v = 0; v < 2; v++) out[t][v] = _mm256_fmadd_ps(w[v], value, out[t][v]);
    }
  }
  for (int t = 0; t < tokens; t++) {
    _mm256_store_ps(products[t], out[t][0]);
    _mm256_store_ps(products[t] + 8, out[t][1]);
  }
}

#define SYMBOL(name) ckernels_packed_avx2_##name
#define KERNEL_SET CKernelsAVX2
#include "packed_body.h"

#pragma clang attribute pop
#endif

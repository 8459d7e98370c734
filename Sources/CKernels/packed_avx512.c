// Matrix products for many tokens with AVX-512 and VNNI; see packed.h.
#if defined(__x86_64__)
#include "formats_avx2.h"
#include "packed.h"

#pragma STDC FP_CONTRACT OFF
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), \
    apply_to = function)

enum { TILE = 8, FLOAT_TILE = 12 };

#define PLANES(type) 1

/// products[t][row] = the products of `groups` groups of a slice with `tokens` tokens.
ALWAYS_INLINE void multiply_quantized(
    uint32_t type, int tokens, const packed_slice *slice, size_t groups,
    const activation_row *acts, const scaled_sums *sums, float (*products)[PANEL_ROWS]) {
  const int halves = group_halves(type);
  __m512 out[TILE];
  for (int t = 0; t < tokens; t++) out[t] = _mm512_setzero_ps();
  for (size_t g = 0; g < groups; g++) {
#pragma clang loop unroll(full)
    for (int half = 0; half < halves; half++) {
      const size_t at = g * (size_t)halves + (size_t)half;
      __m512i totals[TILE];
      for (int t = 0; t < tokens; t++) totals[t] = _mm512_setzero_si512();
#pragma clang loop unroll(full)
      for (int s = half * 4; s < half * 4 + 8 / halves; s++) {
        const size_t step = g * 8 + (size_t)s;
        const __m512i w = _mm512_load_si512(slice->q + step * 4 * PANEL_ROWS);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
          totals[t] = _mm512_dpbusd_epi32(
              totals[t], w, _mm512_set1_epi32((int)load_u32(acts[t].q + step * 4)));
      }
      const __m512 scale = _mm512_load_ps(slice->scale[at]);
      const __m512 minimum = _mm512_load_ps(slice->minimum[at]);
#pragma clang loop unroll(full)
      for (int t = 0; t < tokens; t++) {
        const __m512 x_scale = _mm512_set1_ps(load_float(acts[t].scale + g * 4));
        out[t] = _mm512_fmadd_ps(
            _mm512_cvtepi32_ps(totals[t]), _mm512_mul_ps(scale, x_scale), out[t]);
        out[t] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(sums[t].of[at]), out[t]);
      }
    }
  }
  for (int t = 0; t < tokens; t++) _mm512_store_ps(products[t], out[t]);
}

/// As `multiply_quantized`, for float weights.
ALWAYS_INLINE void multiply_floats(
    int tokens, const packed_slice *slice, size_t columns, const float *const *x,
    float (*products)[PANEL_ROWS]) {
  __m512 out[FLOAT_TILE];
  for (int t = 0; t < tokens; t++) out[t] = _mm512_setzero_ps();
  for (size_t column = 0; column < columns; column++) {
    const __m512 w = _mm512_load_ps(slice->floats[column]);
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++)
      out[t] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[t][column]), out[t]);
  }
  for (int t = 0; t < tokens; t++) _mm512_store_ps(products[t], out[t]);
}

#define SYMBOL(name) ckernels_packed_avx512_##name
#define KERNEL_SET CKernelsAVX512
#include "packed_body.h"

#pragma clang attribute pop
#endif

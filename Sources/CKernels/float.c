// Matrix products of F32, F16 and BF16 weights with f32 activations, for AVX2 and AVX-512.
//
// A row is taken in steps of two vectors, each with its own sums; a last step that the row does
// not fill is padded with zeros. portable.c has the reference.
#if defined(__x86_64__)
#include <immintrin.h>

#include "blocks.h"
#include "kernels.h"

#pragma STDC FP_CONTRACT OFF

enum { PREFETCH_BYTES = 2048 };

ALWAYS_INLINE size_t value_bytes(uint32_t type) { return type == TYPE_F32 ? 4 : 2; }

// MARK: - AVX2

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

ALWAYS_INLINE __m256 load_avx2(uint32_t type, const uint8_t *p) {
  switch (type) {
    case TYPE_F16: return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    case TYPE_BF16: {
      const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
      return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
    default: return _mm256_loadu_ps((const float *)p);
  }
}

ALWAYS_INLINE float horizontal_sum_avx2(__m256 a, __m256 b) {
  const __m256 v = _mm256_add_ps(a, b);
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#define SET(name) name##_avx2
#define SYMBOL(name) ckernels_matmul_avx2_##name
#define VECTOR __m256
#define LANES 8
#define TILE 4
#define FMADD _mm256_fmadd_ps
#define LOAD_FLOATS _mm256_loadu_ps
#include "float_body.h"
#undef SET
#undef SYMBOL
#undef VECTOR
#undef LANES
#undef TILE
#undef FMADD
#undef LOAD_FLOATS

#pragma clang attribute pop

// MARK: - AVX-512

#pragma clang attribute push( \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))), \
    apply_to = function)

ALWAYS_INLINE __m512 load_avx512(uint32_t type, const uint8_t *p) {
  switch (type) {
    case TYPE_F16: return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
    case TYPE_BF16: {
      const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
      return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    default: return _mm512_loadu_ps((const float *)p);
  }
}

ALWAYS_INLINE float horizontal_sum_avx512(__m512 a, __m512 b) {
  const __m512 v = _mm512_add_ps(a, b);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

#define SET(name) name##_avx512
#define SYMBOL(name) ckernels_matmul_avx512_##name
#define VECTOR __m512
#define LANES 16
#define TILE 8
#define FMADD _mm512_fmadd_ps
#define LOAD_FLOATS _mm512_loadu_ps
#include "float_body.h"
#undef SET
#undef SYMBOL
#undef VECTOR
#undef LANES
#undef TILE
#undef FMADD
#undef LOAD_FLOATS

#pragma clang attribute pop

#endif

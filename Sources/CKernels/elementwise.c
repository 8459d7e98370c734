// Norms, SwiGLU, softmax, attention of one head and the gated delta rule, once per instruction set.
#include <math.h>
#include <string.h>

#include "kernels.h"
#include "lanes.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef int32_t integers __attribute__((vector_size(64)));

/// IEEE half to single without the compiler's run-time library.
ALWAYS_INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
  const uint32_t rest = half & 0x7fff;
  uint32_t bits;
  if (rest >= 0x7c00) {
    bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
  } else if (rest >= 0x400) {
    bits = sign | ((rest << 13) + (112u << 23));
  } else {
    float magnitude = (float)rest * 0x1p-24f;
    memcpy(&bits, &magnitude, 4);
    bits |= sign;
  }
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/// IEEE single to half, rounding to nearest even.
static uint16_t float_to_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {  // subnormal half: let the adder round at 2^-24
    float shifted;
    memcpy(&shifted, &magnitude, 4);
    shifted += 0.5f;
    memcpy(&magnitude, &shifted, 4);
    return sign | (uint16_t)(magnitude - 0x3f000000);
  }
  magnitude += 0xfff + (magnitude >> 13 & 1);
  return sign | (uint16_t)((magnitude - (112u << 23)) >> 13);
}

#define SET(name) name##_portable
ALWAYS_INLINE lanes load_half16_portable(const uint16_t *source) {
  lanes result;
  for (int i = 0; i < 16; i++) result[i] = half_to_float(source[i]);
  return result;
}
#define LOAD_HALF16 load_half16_portable
#include "elementwise_body.h"
#include "delta_body.h"
#undef LOAD_HALF16
#undef SET

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
ALWAYS_INLINE lanes load_half16_avx2(const uint16_t *source) {
  union { lanes all; __m256 half[2]; } result;
  result.half[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)source));
  result.half[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(source + 8)));
  return result.all;
}
#define SET(name) name##_avx2
#define LOAD_HALF16 load_half16_avx2
#include "elementwise_body.h"
#include "delta_body.h"
#undef LOAD_HALF16
#undef SET
#pragma clang attribute pop

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c"))), apply_to = function)
ALWAYS_INLINE lanes load_half16_avx512(const uint16_t *source) {
  return (lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)source));
}
#define SET(name) name##_avx512
#define LOAD_HALF16 load_half16_avx512
#include "elementwise_body.h"
#include "delta_body.h"
#undef LOAD_HALF16
#undef SET
#pragma clang attribute pop

#define DISPATCH(set, name, ...)                                  \
  switch (set) {                                                  \
    case CKernelsAVX512: name##_avx512(__VA_ARGS__); return;      \
    case CKernelsAVX2: name##_avx2(__VA_ARGS__); return;          \
    case CKernelsPortable: name##_portable(__VA_ARGS__); return;  \
  }
#else
#define DISPATCH(set, name, ...) (void)set; name##_portable(__VA_ARGS__)
#endif

void ckernels_rms_norm(
    ckernels_set set, const float *x, const float *weight, float *out, size_t n, float epsilon) {
  DISPATCH(set, rms_norm, x, weight, out, n, epsilon)
}

void ckernels_layer_norm(
    ckernels_set set, const float *x, const float *weight, const float *bias, float *out, size_t n,
    float epsilon) {
  DISPATCH(set, layer_norm, x, weight, bias, out, n, epsilon)
}

void ckernels_sigmoid_multiply(
    ckernels_set set, const float *gate, const float *up, float *out, size_t n) {
  DISPATCH(set, sigmoid_multiply, gate, up, out, n)
}

void ckernels_convolve(
    ckernels_set set, const float *const *rows, const float *taps, size_t width, float *out,
    size_t n) {
  DISPATCH(set, convolve, rows, taps, width, out, n)
}

void ckernels_delta(ckernels_set set, const ckernels_delta_step *step) {
  DISPATCH(set, delta, step)
}

void ckernels_silu_multiply(
    ckernels_set set, const float *gate, const float *up, float *out, size_t n) {
  DISPATCH(set, silu_multiply, gate, up, out, n)
}

void ckernels_softmax(ckernels_set set, float *x, size_t n) {
  if (n == 0) return;
  DISPATCH(set, softmax, x, n)
}

void ckernels_clamped_swiglu(
    ckernels_set set, const float *gate, const float *up, float *out, size_t n, float alpha,
    float limit) {
  DISPATCH(set, clamped_swiglu, gate, up, out, n, alpha, limit)
}

void ckernels_attention(
    ckernels_set set, const ckernels_attention_head *head, const float *q, size_t positions,
    float *scores, float *out) {
  if (head->half) {
    DISPATCH(set, attention_half, head, q, positions, scores, out)
  } else {
    DISPATCH(set, attention_float, head, q, positions, scores, out)
  }
}

void ckernels_attention_block(
    ckernels_set set, const ckernels_attention_head *head, const float *const *q,
    size_t positions_before, size_t tokens, float *scores, float *const *outs) {
  if (tokens > CKernelsAttentionBlockTokens) __builtin_trap();
  switch (set) {
#if defined(__x86_64__)
    case CKernelsAVX512:
    case CKernelsAVX2: {
      const attention_task task = {head, q, positions_before, tokens, scores, outs};
      if (set == CKernelsAVX512)
        ckernels_packed_avx512_attention(&task);
      else
        ckernels_packed_avx2_attention(&task);
      return;
    }
#endif
    default:
      for (size_t t = 0; t < tokens; t++)
        ckernels_attention(set, head, q[t], positions_before + t + 1, scores, outs[t]);
  }
}

void ckernels_store_half(const float *x, uint16_t *out, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] = float_to_half(x[i]);
}

void ckernels_rope(float *x, const float *cosines, const float *sines, size_t dimension) {
  const size_t half = dimension / 2;
  for (size_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

void ckernels_add(const float *x, float *out, size_t n) {
  for (size_t i = 0; i < n; i++) out[i] += x[i];
}

void ckernels_add_scaled(
    ckernels_set set, const float *x, float scale, float *out, size_t n) {
  DISPATCH(set, add_scaled, x, scale, out, n)
}

void ckernels_clamp(float *x, size_t n, float limit) {
  for (size_t i = 0; i < n; i++) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}

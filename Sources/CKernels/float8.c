// Products of 8-bit floats with scales of their own (F8_E4M3, as checkpoints of DeepSeek-V3 and others have
// them): weight (r, c) is a byte times the scale of its block.
#include "blocks.h"
#include "kernels.h"
#include "lanes.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
  /// Columns of a step; those of blocks and matrices are multiples of it.
  STEP = 32,
  /// Rows, columns and tokens of what is expanded and multiplied together in prompts.
  PANEL_ROWS = 16,
  PANEL_COLUMNS = 512,
  PANEL_TOKENS = 64,
};

/// The scales of a row's blocks.
ALWAYS_INLINE const float *row_scales(const matmul_task *task, size_t row) {
  return task->scales->values + row / task->scales->rows * task->scales->stride;
}

void ckernels_matmul_portable_f8(const matmul_task *task) {
  for (size_t r = task->row_begin; r < task->row_end; r++) {
    const uint8_t *row = task->weights + r * task->columns;
    const float *scales = row_scales(task, r);
    for (size_t t = 0; t < task->tokens; t++) {
      const uint8_t *x = task->acts[t];
      double total = 0;
      for (size_t i = 0; i < task->columns; i++)
        total += (double)float_from_half(half_of_f8(row[i])) * F8_UNIT *
                 scales[i / task->scales->columns] * float_from_bits(load_u32(x + 4 * i));
      task->outs[t][r] = (float)total;
    }
  }
}

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
ALWAYS_INLINE __m256i halves_avx2(const uint8_t *p) {
  const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
  const __m256i most = _mm256_set1_epi16(0x7f << 7);
  const __m256i magnitude = _mm256_and_si256(_mm256_slli_epi16(words, 7), most);
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0x80)), 8);
  const __m256i nan = _mm256_and_si256(
      _mm256_cmpeq_epi16(magnitude, most), _mm256_set1_epi16(0x7e00));
  return _mm256_or_si256(_mm256_or_si256(magnitude, nan), sign);
}

ALWAYS_INLINE lanes expand_avx2(const uint8_t *p) {
  const __m256i halves = halves_avx2(p);
  union { lanes all; __m256 half[2]; } result;
  result.half[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
  result.half[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
  return result.all;
}
#define SET(name) name##_avx2
#define BY_ROWS ckernels_matmul_avx2_f8
#define BY_PANELS ckernels_packed_avx2_f8
#define PACKED_F32 ckernels_packed_avx2_f32
#include "float8_body.h"
#undef SET
#undef BY_ROWS
#undef BY_PANELS
#undef PACKED_F32
#pragma clang attribute pop

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c"))), apply_to = function)
ALWAYS_INLINE lanes expand_avx512(const uint8_t *p) {
  const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
  const __m256i most = _mm256_set1_epi16(0x7f << 7);
  __m256i halves = _mm256_and_si256(_mm256_slli_epi16(words, 7), most);
  halves = _mm256_mask_mov_epi16(
      halves, _mm256_cmpeq_epi16_mask(halves, most), _mm256_set1_epi16(0x7e00));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(words, _mm256_set1_epi16(0x80)), 8);
  return (lanes)_mm512_cvtph_ps(_mm256_or_si256(halves, sign));
}
#define SET(name) name##_avx512
#define BY_ROWS ckernels_matmul_avx512_f8
#define BY_PANELS ckernels_packed_avx512_f8
#define PACKED_F32 ckernels_packed_avx512_f32
#include "float8_body.h"
#undef SET
#undef BY_ROWS
#undef BY_PANELS
#undef PACKED_F32
#pragma clang attribute pop
#endif

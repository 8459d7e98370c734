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

ALWAYS_INLINE void accumulate_avx2(
    uint32_t type, int tokens, const uint8_t *p, const uint8_t *const *x, size_t column,
    __m256 (*sums)[2]) {
#pragma clang loop unroll(full)
  for (int half = 0; half < 2; half++) {
    const __m256 w = load_avx2(type, p + (size_t)half * 8 * value_bytes(type));
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const uint8_t *values = x[t] + 4 * (column + 8 * (size_t)half);
      sums[t][half] = _mm256_fmadd_ps(w, _mm256_loadu_ps((const float *)values), sums[t][half]);
    }
  }
}

ALWAYS_INLINE float horizontal_sum_avx2(__m256 a, __m256 b) {
  const __m256 v = _mm256_add_ps(a, b);
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

ALWAYS_INLINE void matmul_tile_avx2(
    uint32_t type, int tokens, const matmul_task *task, size_t token, size_t row_begin,
    size_t row_end) {
  enum { TILE = 4, STEP = 16 };
  const size_t columns = task->columns, whole = columns / STEP * STEP;
  const size_t size = value_bytes(type);
  const uint8_t *x[TILE], *tail_x[TILE];
  float tails[TILE][STEP] = {};
  for (int t = 0; t < tokens; t++) {
    x[t] = task->acts[token + (size_t)t];
    memcpy(tails[t], x[t] + 4 * whole, 4 * (columns - whole));
    tail_x[t] = (const uint8_t *)tails[t];
  }
  for (size_t r = row_begin; r < row_end; r++) {
    const uint8_t *p = task->weights + r * columns * size;
    __m256 sums[TILE][2] = {};
    for (size_t column = 0; column < whole; column += STEP, p += STEP * size) {
      __builtin_prefetch((const void *)((uintptr_t)p + PREFETCH_BYTES));
      accumulate_avx2(type, tokens, p, x, column, sums);
    }
    if (whole != columns) {
      uint8_t padded[4 * STEP] = {};
      memcpy(padded, p, (columns - whole) * size);
      accumulate_avx2(type, tokens, padded, tail_x, 0, sums);
    }
    for (int t = 0; t < tokens; t++)
      task->outs[token + (size_t)t][r] = horizontal_sum_avx2(sums[t][0], sums[t][1]);
  }
}

ALWAYS_INLINE void matmul_avx2(uint32_t type, const matmul_task *task) {
  const size_t rows = rows_per_block(task->columns * value_bytes(type));
  for (size_t begin = task->row_begin; begin < task->row_end; begin += rows) {
    const size_t end = task->row_end - begin < rows ? task->row_end : begin + rows;
    size_t t = 0;
    for (; t + 4 <= task->tokens; t += 4) matmul_tile_avx2(type, 4, task, t, begin, end);
    for (; t + 2 <= task->tokens; t += 2) matmul_tile_avx2(type, 2, task, t, begin, end);
    for (; t < task->tokens; t++) matmul_tile_avx2(type, 1, task, t, begin, end);
  }
}

void ckernels_matmul_avx2_f32(const matmul_task *task) { matmul_avx2(TYPE_F32, task); }
void ckernels_matmul_avx2_f16(const matmul_task *task) { matmul_avx2(TYPE_F16, task); }
void ckernels_matmul_avx2_bf16(const matmul_task *task) { matmul_avx2(TYPE_BF16, task); }

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

ALWAYS_INLINE void accumulate_avx512(
    uint32_t type, int tokens, const uint8_t *p, const uint8_t *const *x, size_t column,
    __m512 (*sums)[2]) {
#pragma clang loop unroll(full)
  for (int half = 0; half < 2; half++) {
    const __m512 w = load_avx512(type, p + (size_t)half * 16 * value_bytes(type));
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const uint8_t *values = x[t] + 4 * (column + 16 * (size_t)half);
      sums[t][half] = _mm512_fmadd_ps(w, _mm512_loadu_ps((const float *)values), sums[t][half]);
    }
  }
}

ALWAYS_INLINE float horizontal_sum_avx512(__m512 a, __m512 b) {
  const __m512 v = _mm512_add_ps(a, b);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

ALWAYS_INLINE void matmul_tile_avx512(
    uint32_t type, int tokens, const matmul_task *task, size_t token, size_t row_begin,
    size_t row_end) {
  enum { TILE = 8, STEP = 32 };
  const size_t columns = task->columns, whole = columns / STEP * STEP;
  const size_t size = value_bytes(type);
  const uint8_t *x[TILE], *tail_x[TILE];
  float tails[TILE][STEP] = {};
  for (int t = 0; t < tokens; t++) {
    x[t] = task->acts[token + (size_t)t];
    memcpy(tails[t], x[t] + 4 * whole, 4 * (columns - whole));
    tail_x[t] = (const uint8_t *)tails[t];
  }
  for (size_t r = row_begin; r < row_end; r++) {
    const uint8_t *p = task->weights + r * columns * size;
    __m512 sums[TILE][2] = {};
    for (size_t column = 0; column < whole; column += STEP, p += STEP * size) {
      __builtin_prefetch((const void *)((uintptr_t)p + PREFETCH_BYTES));
      accumulate_avx512(type, tokens, p, x, column, sums);
    }
    if (whole != columns) {
      uint8_t padded[4 * STEP] = {};
      memcpy(padded, p, (columns - whole) * size);
      accumulate_avx512(type, tokens, padded, tail_x, 0, sums);
    }
    for (int t = 0; t < tokens; t++)
      task->outs[token + (size_t)t][r] = horizontal_sum_avx512(sums[t][0], sums[t][1]);
  }
}

ALWAYS_INLINE void matmul_avx512(uint32_t type, const matmul_task *task) {
  const size_t rows = rows_per_block(task->columns * value_bytes(type));
  for (size_t begin = task->row_begin; begin < task->row_end; begin += rows) {
    const size_t end = task->row_end - begin < rows ? task->row_end : begin + rows;
    size_t t = 0;
    for (; t + 8 <= task->tokens; t += 8) matmul_tile_avx512(type, 8, task, t, begin, end);
    for (; t + 4 <= task->tokens; t += 4) matmul_tile_avx512(type, 4, task, t, begin, end);
    for (; t + 2 <= task->tokens; t += 2) matmul_tile_avx512(type, 2, task, t, begin, end);
    for (; t < task->tokens; t++) matmul_tile_avx512(type, 1, task, t, begin, end);
  }
}

void ckernels_matmul_avx512_f32(const matmul_task *task) { matmul_avx512(TYPE_F32, task); }
void ckernels_matmul_avx512_f16(const matmul_task *task) { matmul_avx512(TYPE_F16, task); }
void ckernels_matmul_avx512_bf16(const matmul_task *task) { matmul_avx512(TYPE_BF16, task); }

#pragma clang attribute pop

#endif

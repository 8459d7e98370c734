// What the kernel files of this target share with the dispatch table.
#pragma once
#include "CKernels.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/// One matrix product; `ckernels_matmul` has the meaning of the parameters.
typedef struct {
  const uint8_t *weights;
  size_t columns;
  size_t row_begin, row_end;
  const void *const *acts;
  float *const *outs;
  size_t tokens;
  /// Values from one row of packed float weights (of a matrix stored column after column, from one column)
  /// to the next; 0: they touch.
  size_t stride;
  /// Of F8_E4M3.
  const ckernels_scales *scales;
} matmul_task;

/// Attention of a block of tokens; `ckernels_attention_block` has the meaning of the parameters.
typedef struct {
  const ckernels_attention_head *head;
  const float *const *q;
  size_t positions_before, tokens;
  float *scores;
  float *const *outs;
} attention_task;

/// The first position that a token sees which is the last of `positions`.
static inline size_t first_seen(const ckernels_attention_head *head, size_t positions) {
  return head->window && positions > head->window ? positions - head->window : 0;
}

HIDDEN void ckernels_packed_avx2_attention(const attention_task *task);
HIDDEN void ckernels_packed_avx512_attention(const attention_task *task);

typedef void (*matmul_function)(const matmul_task *task);

/// Row-block size in bytes: a block of weight rows stays in the second-level cache while the
/// tiles of tokens pass over it, so a prefill reads the weights from memory once.
enum { ROW_BLOCK_BYTES = 1 << 17 };

static inline size_t rows_per_block(size_t row_bytes) {
  const size_t rows = row_bytes ? ROW_BLOCK_BYTES / row_bytes : 1;
  return rows ? rows : 1;
}

/// Every quantized type, with the end of its functions' names.
#define FOR_QUANTIZED_TYPES(DO) \
  DO(TYPE_Q4_0, q4_0) \
  DO(TYPE_Q4_1, q4_1) \
  DO(TYPE_Q5_0, q5_0) \
  DO(TYPE_Q5_1, q5_1) \
  DO(TYPE_Q8_0, q8_0) \
  DO(TYPE_Q2_K, q2_k) \
  DO(TYPE_Q3_K, q3_k) \
  DO(TYPE_Q4_K, q4_k) \
  DO(TYPE_Q5_K, q5_k) \
  DO(TYPE_Q6_K, q6_k) \
  DO(TYPE_Q8_K, q8_k) \
  DO(TYPE_IQ4_NL, iq4_nl) \
  DO(TYPE_IQ4_XS, iq4_xs) \
  DO(TYPE_MXFP4, mxfp4) \
  DO(TYPE_IQ2_XXS, iq2_xxs) \
  DO(TYPE_IQ2_XS, iq2_xs) \
  DO(TYPE_IQ2_S, iq2_s) \
  DO(TYPE_IQ3_XXS, iq3_xxs) \
  DO(TYPE_IQ3_S, iq3_s) \
  DO(TYPE_IQ1_S, iq1_s) \
  DO(TYPE_IQ1_M, iq1_m)

/// The float types.
#define FOR_FLOAT_TYPES(DO) \
  DO(TYPE_F32, f32)         \
  DO(TYPE_F16, f16)         \
  DO(TYPE_BF16, bf16)

/// Declares the kernels of a type: per set one that goes by rows of weights, and for the vector sets
/// one that packs them.
#define DECLARE_KERNELS(TYPE, NAME)                                 \
  HIDDEN void ckernels_matmul_portable_##NAME(const matmul_task *); \
  HIDDEN void ckernels_matmul_avx2_##NAME(const matmul_task *);     \
  HIDDEN void ckernels_matmul_avx512_##NAME(const matmul_task *);   \
  HIDDEN void ckernels_packed_avx2_##NAME(const matmul_task *);     \
  HIDDEN void ckernels_packed_avx512_##NAME(const matmul_task *);

FOR_FLOAT_TYPES(DECLARE_KERNELS)
DECLARE_KERNELS(TYPE_F8_E4M3, f8)
FOR_QUANTIZED_TYPES(DECLARE_KERNELS)

HIDDEN void ckernels_quantize_portable(const float *x, void *row, size_t columns);
HIDDEN void ckernels_quantize_avx2(const float *x, void *row, size_t columns);
HIDDEN void ckernels_quantize_avx512(const float *x, void *row, size_t columns);

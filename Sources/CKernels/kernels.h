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

/// Declares the kernels of a type: per set one that goes by rows of weights, and for the vector sets
/// one that packs them.
#define DECLARE_KERNELS(NAME)                                       \
  HIDDEN void ckernels_matmul_portable_##NAME(const matmul_task *); \
  HIDDEN void ckernels_matmul_avx2_##NAME(const matmul_task *);     \
  HIDDEN void ckernels_matmul_avx512_##NAME(const matmul_task *);   \
  HIDDEN void ckernels_packed_avx2_##NAME(const matmul_task *);     \
  HIDDEN void ckernels_packed_avx512_##NAME(const matmul_task *);

DECLARE_KERNELS(f32)
DECLARE_KERNELS(f16)
DECLARE_KERNELS(bf16)
DECLARE_KERNELS(q4_0)
DECLARE_KERNELS(q4_1)
DECLARE_KERNELS(q5_0)
DECLARE_KERNELS(q5_1)
DECLARE_KERNELS(q8_0)
DECLARE_KERNELS(q4_k)
DECLARE_KERNELS(q5_k)
DECLARE_KERNELS(q6_k)
DECLARE_KERNELS(q2_k)
DECLARE_KERNELS(q3_k)
DECLARE_KERNELS(q8_k)
DECLARE_KERNELS(iq4_nl)
DECLARE_KERNELS(iq4_xs)
DECLARE_KERNELS(mxfp4)
DECLARE_KERNELS(iq2_xxs)
DECLARE_KERNELS(iq2_xs)
DECLARE_KERNELS(iq2_s)
DECLARE_KERNELS(iq3_xxs)
DECLARE_KERNELS(iq3_s)
DECLARE_KERNELS(iq1_s)
DECLARE_KERNELS(iq1_m)

HIDDEN void ckernels_quantize_portable(const float *x, void *row, size_t columns);
HIDDEN void ckernels_quantize_avx2(const float *x, void *row, size_t columns);
HIDDEN void ckernels_quantize_avx512(const float *x, void *row, size_t columns);

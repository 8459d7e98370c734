// The public entries: one table of kernels, by instruction set and GGML type.
#include "blocks.h"
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

ckernels_set ckernels_best_set(void) {
  __builtin_cpu_init();
  // The builtin has no name for F16C: leaf 1, ECX bit 29. AVX2 support, which it does check,
  // says that the operating system saves the wide registers.
  unsigned a, b, c = 0, d;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  if (!f16c || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("bmi2"))
    return CKernelsPortable;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni"))
    return CKernelsAVX512;
  return CKernelsAVX2;
}

#define KERNELS(TYPE, NAME, AVX2_FROM, AVX512_FROM)                                          \
  [TYPE] = {                                                                                 \
      {ckernels_matmul_portable_##NAME, ckernels_matmul_avx2_##NAME,                         \
       ckernels_matmul_avx512_##NAME},                                                       \
      {ckernels_matmul_portable_##NAME, ckernels_packed_avx2_##NAME,                         \
       ckernels_packed_avx512_##NAME},                                                       \
      {UINT8_MAX, AVX2_FROM, AVX512_FROM}}
#else
ckernels_set ckernels_best_set(void) { return CKernelsPortable; }

#define KERNELS(TYPE, NAME, AVX2_FROM, AVX512_FROM) \
  [TYPE] = {{ckernels_matmul_portable_##NAME}, {ckernels_matmul_portable_##NAME}, {UINT8_MAX}}
#endif

/// The kernels of a type, by set, and the number of tokens from which packing pays.
///
/// The numbers are where the figures of `KernelBenchmark` cross.
static const struct {
  matmul_function by_rows[3], packed[3];
  uint8_t packed_from[3];
} kernels[TYPE_COUNT] = {
    KERNELS(TYPE_F32, f32, 12, 8),
    KERNELS(TYPE_F16, f16, 24, 16),
    KERNELS(TYPE_BF16, bf16, 24, 16),
    KERNELS(TYPE_F8_E4M3, f8, 8, 8),
    KERNELS(TYPE_Q4_0, q4_0, 12, 16),
    KERNELS(TYPE_Q4_1, q4_1, 8, 12),
    KERNELS(TYPE_Q5_0, q5_0, 8, 16),
    KERNELS(TYPE_Q5_1, q5_1, 6, 12),
    KERNELS(TYPE_Q8_0, q8_0, 28, 24),
    KERNELS(TYPE_Q4_K, q4_k, 12, 20),
    KERNELS(TYPE_Q5_K, q5_k, 12, 24),
    KERNELS(TYPE_Q6_K, q6_k, 20, 32),
    KERNELS(TYPE_Q2_K, q2_k, 6, 12),
    KERNELS(TYPE_Q3_K, q3_k, 6, 12),
    KERNELS(TYPE_Q8_K, q8_k, 64, 24),
    KERNELS(TYPE_IQ4_NL, iq4_nl, 12, 16),
    KERNELS(TYPE_IQ4_XS, iq4_xs, 20, 16),
    KERNELS(TYPE_MXFP4, mxfp4, 6, 12),
    KERNELS(TYPE_IQ2_XXS, iq2_xxs, 6, 12),
    KERNELS(TYPE_IQ2_XS, iq2_xs, 6, 12),
    KERNELS(TYPE_IQ2_S, iq2_s, 6, 12),
    KERNELS(TYPE_IQ3_XXS, iq3_xxs, 6, 12),
    KERNELS(TYPE_IQ3_S, iq3_s, 6, 12),
    KERNELS(TYPE_IQ1_S, iq1_s, 6, 6),
    KERNELS(TYPE_IQ1_M, iq1_m, 4, 6),
};

bool ckernels_supports(uint32_t type) {
  return type < TYPE_COUNT && kernels[type].by_rows[CKernelsPortable] != NULL;
}

size_t ckernels_activation_bytes(uint32_t type, size_t columns) {
  if (!ckernels_supports(type)) return 0;
  const size_t bytes =
      superblock_bytes(type) ? columns + columns / 32 * 4 + columns / 16 * 2 : columns * 4;
  return (bytes + 63) & ~(size_t)63;
}

void ckernels_quantize_activations(
    ckernels_set set, const float *x, void *row, size_t columns) {
  switch (set) {
#if defined(__x86_64__)
    case CKernelsAVX512: ckernels_quantize_avx512(x, row, columns); return;
    case CKernelsAVX2: ckernels_quantize_avx2(x, row, columns); return;
#endif
    default: ckernels_quantize_portable(x, row, columns); return;
  }
}

ckernels_method ckernels_best_method(ckernels_set set, uint32_t type, size_t tokens) {
  const bool known = ckernels_supports(type) && set != CKernelsPortable && set <= CKernelsAVX512;
  return known && tokens >= kernels[type].packed_from[set] ? CKernelsPacked : CKernelsByRows;
}

void ckernels_matmul(
    ckernels_set set, ckernels_method method, uint32_t type, const void *weights, size_t columns,
    size_t row_begin, size_t row_end, const void *const *acts, float *const *outs, size_t tokens,
    const ckernels_scales *scales) {
  if ((type == TYPE_F8_E4M3) != (scales != NULL)) __builtin_trap();
  // A type or set without a kernel is a bug of the caller, which asked `ckernels_supports`.
  if (!ckernels_supports(type) || set > CKernelsAVX512) __builtin_trap();
  const matmul_function function =
      method == CKernelsPacked ? kernels[type].packed[set] : kernels[type].by_rows[set];
  if (!function) __builtin_trap();
  const matmul_task task = {
      .weights = weights, .columns = columns, .row_begin = row_begin, .row_end = row_end,
      .acts = acts, .outs = outs, .tokens = tokens, .scales = scales};
  function(&task);
}

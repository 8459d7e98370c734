// Quantisers of weights, for packing, and the checksum of what has been packed.
//
// The formats are ggml's; how scales and quants are chosen is our own: the least squared error over many
// candidates. Every instruction set writes the same bits, so a packed file depends on its source alone:
// sums are taken in one order, and nothing is contracted.
#include <math.h>

#include "blocks.h"
#include "kernels.h"
#include "lanes.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#pragma STDC FP_CONTRACT OFF

/// `x` as half precision keeps it.
static float half_rounded(float x, uint16_t *half) {
  ckernels_store_half(&x, half, 1);
  return float_from_half(*half);
}

#define SET(name) name##_portable
#include "quantize_body.h"
#undef SET

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define SET(name) name##_avx2
#include "quantize_body.h"
#undef SET
#pragma clang attribute pop

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))), apply_to = function)
#define SET(name) name##_avx512
#include "quantize_body.h"
#undef SET
#pragma clang attribute pop
#endif

bool ckernels_can_quantize(uint32_t type) {
  return type == TYPE_Q4_0 || type == TYPE_Q8_0 || type == TYPE_Q4_K || type == TYPE_Q6_K;
}

bool ckernels_quantize_weights(
    ckernels_set set, uint32_t type, const float *x, void *blocks, size_t count) {
  if (!ckernels_can_quantize(type)) __builtin_trap();
  switch (set) {
#if defined(__x86_64__)
    case CKernelsAVX512: return quantize_weights_avx512(type, x, blocks, count);
    case CKernelsAVX2: return quantize_weights_avx2(type, x, blocks, count);
#endif
    default: return quantize_weights_portable(type, x, blocks, count);
  }
}

// CRC-32C (Castagnoli; RFC 3720, appendix B.4), reflected, by tables of 8 bytes at a time or by the
// processor's own instruction.

enum { CRC_POLYNOMIAL = 0x82f63b78 };

/// Bytes of each of the three streams that keep the processor's instruction busy for its latency.
enum { CRC_STREAM = 1024 };

/// crc_table[i][byte]: what a byte becomes that i + 1 bytes follow it, its own place included.
static uint32_t crc_table[8][256];
/// crc_shift[i][byte]: what byte i of a remainder becomes after CRC_STREAM zero bytes.
static uint32_t crc_shift[4][256];

static uint32_t crc_portable(uint32_t crc, const uint8_t *bytes, size_t count) {
  for (; count >= 8; bytes += 8, count -= 8) {
    const uint32_t low = load_u32(bytes) ^ crc, high = load_u32(bytes + 4);
    crc = crc_table[7][low & 0xff] ^ crc_table[6][low >> 8 & 0xff] ^
          crc_table[5][low >> 16 & 0xff] ^ crc_table[4][low >> 24] ^ crc_table[3][high & 0xff] ^
          crc_table[2][high >> 8 & 0xff] ^ crc_table[1][high >> 16 & 0xff] ^
          crc_table[0][high >> 24];
  }
  for (; count > 0; bytes++, count--) crc = crc >> 8 ^ crc_table[0][(crc ^ *bytes) & 0xff];
  return crc;
}

__attribute__((constructor)) static void make_crc_tables(void) {
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? CRC_POLYNOMIAL : 0);
    crc_table[0][byte] = crc;
  }
  for (int slice = 1; slice < 8; slice++)
    for (int byte = 0; byte < 256; byte++) {
      const uint32_t crc = crc_table[slice - 1][byte];
      crc_table[slice][byte] = crc >> 8 ^ crc_table[0][crc & 0xff];
    }
  static const uint8_t zeros[CRC_STREAM];
  for (int place = 0; place < 4; place++)
    for (uint32_t byte = 0; byte < 256; byte++)
      crc_shift[place][byte] = crc_portable(byte << 8 * place, zeros, CRC_STREAM);
}

#if defined(__x86_64__)
static uint32_t crc_shifted(uint32_t crc) {
  return crc_shift[0][crc & 0xff] ^ crc_shift[1][crc >> 8 & 0xff] ^
         crc_shift[2][crc >> 16 & 0xff] ^ crc_shift[3][crc >> 24];
}

static inline uint64_t load_u64(const void *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return v;
}

__attribute__((target("sse4.2"))) static uint32_t crc_sse42(
    uint32_t crc, const uint8_t *bytes, size_t count) {
  for (; count >= 3 * CRC_STREAM; bytes += 3 * CRC_STREAM, count -= 3 * CRC_STREAM) {
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < CRC_STREAM; i += 8) {
      a = _mm_crc32_u64(a, load_u64(bytes + i));
      b = _mm_crc32_u64(b, load_u64(bytes + CRC_STREAM + i));
      c = _mm_crc32_u64(c, load_u64(bytes + 2 * CRC_STREAM + i));
    }
    crc = crc_shifted(crc_shifted((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
  }
  uint64_t rest = crc;
  for (; count >= 8; bytes += 8, count -= 8) rest = _mm_crc32_u64(rest, load_u64(bytes));
  crc = (uint32_t)rest;
  for (; count > 0; bytes++, count--) crc = _mm_crc32_u8(crc, *bytes);
  return crc;
}
#endif

uint32_t ckernels_crc32c(ckernels_set set, uint32_t crc, const void *bytes, size_t count) {
#if defined(__x86_64__)
  // AVX2 implies SSE4.2.
  if (set != CKernelsPortable) return ~crc_sse42(~crc, bytes, count);
#endif
  (void)set;
  return ~crc_portable(~crc, bytes, count);
}

// The block layouts of GGML's tensor types, as they lie in a GGUF file (little endian).
//
// Every struct is packed: weights are used where they were read, at any alignment.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/// The GGML type ids the kernels know.
enum {
  TYPE_F32 = 0,
  TYPE_F16 = 1,
  TYPE_Q4_0 = 2,
  TYPE_Q4_1 = 3,
  TYPE_Q5_0 = 6,
  TYPE_Q5_1 = 7,
  TYPE_Q8_0 = 8,
  TYPE_Q2_K = 10,
  TYPE_Q3_K = 11,
  TYPE_Q4_K = 12,
  TYPE_Q5_K = 13,
  TYPE_Q6_K = 14,
  TYPE_Q8_K = 15,
  TYPE_IQ2_XXS = 16,
  TYPE_IQ2_XS = 17,
  TYPE_IQ3_XXS = 18,
  TYPE_IQ1_S = 19,
  TYPE_IQ4_NL = 20,
  TYPE_IQ3_S = 21,
  TYPE_IQ2_S = 22,
  TYPE_IQ4_XS = 23,
  TYPE_IQ1_M = 29,
  TYPE_BF16 = 30,
  TYPE_MXFP4 = 39,
  /// Our own number: ggml has no such type.
  TYPE_F8_E4M3 = 63,
  TYPE_COUNT = 64,
};

#define PACKED __attribute__((packed))

/// 32 weights d * (q - 8); value i is the low nibble of qs[i], value i + 16 the high one.
typedef struct PACKED {
  uint16_t d;
  uint8_t qs[16];
} block_q4_0;

/// 32 weights d * q + m.
typedef struct PACKED {
  uint16_t d, m;
  uint8_t qs[16];
} block_q4_1;

/// 32 weights d * (q - 16); bit i of qh is the fifth bit of value i.
typedef struct PACKED {
  uint16_t d;
  uint32_t qh;
  uint8_t qs[16];
} block_q5_0;

/// 32 weights d * q + m.
typedef struct PACKED {
  uint16_t d, m;
  uint32_t qh;
  uint8_t qs[16];
} block_q5_1;

/// 32 weights d * q.
typedef struct PACKED {
  uint16_t d;
  int8_t qs[32];
} block_q8_0;

/// 256 weights in 8 groups of 32: d * scale[g] * q - dmin * min[g], scales and mins of 6 bits.
/// Groups 2i and 2i + 1 are the low and the high nibbles of qs[32 * i ..< 32 * i + 32].
typedef struct PACKED {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
} block_q4_k;

/// As q4_K; bit g of qh[i] is the fifth bit of value i of group g.
typedef struct PACKED {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
} block_q5_k;

/// 256 weights in 16 groups of 16: d * scale[g] * (q - 32).
/// Each half of 128 values has 64 bytes of low nibbles and 32 bytes with the upper two bits.
typedef struct PACKED {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
} block_q6_k;

_Static_assert(sizeof(block_q4_0) == 18, "Q4_0 block");
_Static_assert(sizeof(block_q4_1) == 20, "Q4_1 block");
_Static_assert(sizeof(block_q5_0) == 22, "Q5_0 block");
_Static_assert(sizeof(block_q5_1) == 24, "Q5_1 block");
_Static_assert(sizeof(block_q8_0) == 34, "Q8_0 block");
_Static_assert(sizeof(block_q4_k) == 144, "Q4_K block");
_Static_assert(sizeof(block_q5_k) == 176, "Q5_K block");
_Static_assert(sizeof(block_q6_k) == 210, "Q6_K block");
static inline uint16_t load_u16(const void *p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline uint32_t load_u32(const void *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return v;
}

/// 1 sign, 4 exponent, 3 mantissa bits; no infinity (arXiv 2209.05433). As half precision, an eighth bit of
/// exponent less and seven bits of mantissa more, it is the 256th part: `F8_UNIT` makes up for that.
#define F8_UNIT 256.0f

static inline uint16_t half_of_f8(uint8_t bits) {
  const uint16_t magnitude = (uint16_t)((bits & 0x7f) << 7);
  return (uint16_t)((bits & 0x80) << 8) | (magnitude == 0x7f << 7 ? 0x7e00 : magnitude);
}

static inline float float_from_bits(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

/// IEEE half to single precision, exact; a signaling NaN becomes quiet, as the hardware does.
static inline float float_from_half(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff;
  if (exponent == 0) {
    const float magnitude = (float)mantissa * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) {
    const uint32_t quiet = mantissa ? 0x400000u : 0;
    return float_from_bits(sign | 0x7f800000u | quiet | mantissa << 13);
  }
  return float_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

static inline float float_from_bfloat(uint16_t v) { return float_from_bits((uint32_t)v << 16); }

#include "blocks_decoded.h"

/// Bytes of 256 weights of a quantized type; 0 for the others.
static inline size_t superblock_bytes(uint32_t type) {
  switch (type) {
    case TYPE_Q4_0: return 8 * sizeof(block_q4_0);
    case TYPE_Q4_1: return 8 * sizeof(block_q4_1);
    case TYPE_Q5_0: return 8 * sizeof(block_q5_0);
    case TYPE_Q5_1: return 8 * sizeof(block_q5_1);
    case TYPE_Q8_0: return 8 * sizeof(block_q8_0);
    case TYPE_Q4_K: return sizeof(block_q4_k);
    case TYPE_Q5_K: return sizeof(block_q5_k);
    case TYPE_Q6_K: return sizeof(block_q6_k);
    case TYPE_Q2_K: return sizeof(block_q2_k);
    case TYPE_Q3_K: return sizeof(block_q3_k);
    case TYPE_Q8_K: return sizeof(block_q8_k);
    case TYPE_IQ4_NL: return 8 * sizeof(block_iq4_nl);
    case TYPE_IQ4_XS: return sizeof(block_iq4_xs);
    case TYPE_MXFP4: return 8 * sizeof(block_mxfp4);
    case TYPE_IQ2_XXS: return sizeof(block_iq2_xxs);
    case TYPE_IQ2_XS: return sizeof(block_iq2_xs);
    case TYPE_IQ2_S: return sizeof(block_iq2_s);
    case TYPE_IQ3_XXS: return sizeof(block_iq3_xxs);
    case TYPE_IQ3_S: return sizeof(block_iq3_s);
    case TYPE_IQ1_S: return sizeof(block_iq1_s);
    case TYPE_IQ1_M: return sizeof(block_iq1_m);
    default: return 0;
  }
}

/// Whether the vector kernels first decode the format's weights to signed bytes; those of the others are
/// unsigned as they lie, or signed bytes.
static inline _Bool is_decoded(uint32_t type) {
  switch (type) {
    case TYPE_Q4_0:
    case TYPE_Q4_1:
    case TYPE_Q5_0:
    case TYPE_Q5_1:
    case TYPE_Q8_0:
    case TYPE_Q4_K:
    case TYPE_Q5_K:
    case TYPE_Q6_K: return 0;
    default: return superblock_bytes(type) != 0;
  }
}

/// Scales of a group: some formats have one for each 16 values.
static inline int group_halves(uint32_t type) {
  switch (type) {
    case TYPE_Q6_K:
    case TYPE_Q2_K:
    case TYPE_Q3_K:
    case TYPE_IQ2_XS:
    case TYPE_IQ2_S:
    case TYPE_IQ1_M: return 2;
    default: return 1;
  }
}

/// Whether the format's weights have a minimum; without one nothing is added, so that -0 stays.
static inline _Bool has_minimum(uint32_t type) {
  return type == TYPE_Q4_1 || type == TYPE_Q5_1 || type == TYPE_Q4_K || type == TYPE_Q5_K ||
         type == TYPE_Q2_K;
}

/// The 6-bit scales and mins of a q4_K or q5_K block, one byte each, group 0 lowest.
typedef struct {
  uint64_t scales, mins;
} group_scales;

static inline group_scales unpack_group_scales(const uint8_t *packed) {
  // Bytes 0-3: scales 0-3, bytes 4-7: mins 0-3 (6 bits each); bytes 8-11: the low nibbles of
  // scales and mins 4-7, whose upper two bits fill the top of bytes 0-7.
  const uint32_t a = load_u32(packed), b = load_u32(packed + 4), c = load_u32(packed + 8);
  const uint32_t high_scales = (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030);
  const uint32_t high_mins = ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030);
  return (group_scales){
      .scales = (uint64_t)high_scales << 32 | (a & 0x3f3f3f3f),
      .mins = (uint64_t)high_mins << 32 | (b & 0x3f3f3f3f),
  };
}

/// Where the parts of a quantized activation row of `columns` values begin.
typedef struct {
  const int8_t *q;       ///< [columns]
  const uint8_t *scale;  ///< f32 [columns / 32], at any alignment
  const uint8_t *sum16;  ///< i16 [columns / 16], at any alignment
} activation_row;

static inline activation_row activation_parts(const void *row, size_t columns) {
  const uint8_t *q = row;
  return (activation_row){(const int8_t *)q, q + columns, q + columns + columns / 32 * 4};
}

/// Activations of 256 values, padded with zeros: the tail of a row that ends within them.
typedef struct {
  int8_t q[256];
  float scale[8];
  int16_t sum16[16];
} activation_tail;

/// Copies the values of `row` from `column` on, fewer than 256.
static inline void copy_activation_tail(
    activation_row row, size_t column, size_t columns, activation_tail *tail) {
  const size_t count = columns - column;
  memset(tail, 0, sizeof *tail);
  memcpy(tail->q, row.q + column, count);
  memcpy(tail->scale, row.scale + column / 32 * 4, count / 32 * 4);
  memcpy(tail->sum16, row.sum16 + column / 16 * 2, count / 16 * 2);
}

// The block layouts of the formats that are decoded to signed bytes (`is_decoded`); blocks.h includes it.
#pragma once

/// 256 weights in 16 groups of 16: d * scale[g] * q - dmin * min[g], scales the low and mins the high
/// nibbles; q of two bits. Values 32 * i ..< 32 * i + 32 of each half of 128 are bits 2 * i of its 32 bytes.
typedef struct PACKED {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;
} block_q2_k;

/// 256 weights in 16 groups of 16: d * (scale[g] - 32) * (q - 4), the lower two bits of q as in q2_K; bit
/// i of hmask[j] is the third of value 32 * i + j.
typedef struct PACKED {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
} block_q3_k;

/// 256 weights d * q; the sums of each 16 are not used.
typedef struct PACKED {
  float d;
  int8_t qs[256];
  int16_t sums[16];
} block_q8_k;

/// 32 weights d * iq4_levels[q], nibbles as in q4_0.
typedef struct PACKED {
  uint16_t d;
  uint8_t qs[16];
} block_iq4_nl;

/// 256 weights in 8 groups of 32, each as iq4_NL's: d * (scale[g] - 32) * iq4_levels[q].
typedef struct PACKED {
  uint16_t d, scales_high;
  uint8_t scales_low[4];
  uint8_t qs[128];
} block_iq4_xs;

/// 32 weights 2^(e - 128) * mxfp4_levels[q], nibbles as in q4_0 (OCP Microscaling Formats 1.0, with the
/// values doubled).
typedef struct PACKED {
  uint8_t e;
  uint8_t qs[16];
} block_mxfp4;

/// 256 weights in 8 groups of 32, each 4 grid points of 8 and a word: 4 times 7 bits of signs, the eighth
/// making their number even, and a scale of 4 bits above: d * (scale + 1/2) / 4.
typedef struct PACKED {
  uint16_t d;
  struct PACKED {
    uint8_t points[4];
    uint32_t signs;
  } groups[8];
} block_iq2_xxs;

/// 256 weights in 32 grid points of 8: 9 bits, and 7 of signs; scales of 16 as iq2_XXS's.
typedef struct PACKED {
  uint16_t d;
  uint16_t points[32];
  uint8_t scales[8];
} block_iq2_xs;

/// As iq2_XS, with 8 bits of signs and 10 of grid points.
typedef struct PACKED {
  uint16_t d;
  uint8_t points[32];
  uint8_t signs[32];
  uint8_t high[8];
  uint8_t scales[8];
} block_iq2_s;

/// 256 weights in 64 grid points of 4; signs and scales, d * (scale + 1/2) / 2, as iq2_XXS's.
typedef struct PACKED {
  uint16_t d;
  uint8_t points[64];
  uint32_t signs[8];
} block_iq3_xxs;

/// As iq3_XXS, with 8 bits of signs and 9 of grid points; scales of 32 d * (1 + 2 * scale).
typedef struct PACKED {
  uint16_t d;
  uint8_t points[64];
  uint8_t high[8];
  uint8_t signs[32];
  uint8_t scales[4];
} block_iq3_s;

/// 256 weights in 8 groups of 32, each 4 grid points of 8 of 11 bits: d * (2 * scale + 1) * (q + delta),
/// delta 1/8, or -1/8 if the topmost bit is set. `high` has the points' upper 3 bits, scale and delta.
typedef struct PACKED {
  uint16_t d;
  uint8_t points[32];
  uint16_t high[8];
} block_iq1_s;

/// As iq1_S with scales of 16 and deltas of 8; the topmost nibbles of `scales` are d.
typedef struct PACKED {
  uint8_t points[32];
  uint8_t high[16];
  uint16_t scales[4];
} block_iq1_m;

/// The points of the codebooks: of 8 values with 2 bits each, of iq3 of 4 with 3 bits.
extern const uint16_t ckernels_grid_iq1[2048], ckernels_grid_iq2_xxs[256],
    ckernels_grid_iq2_xs[512], ckernels_grid_iq2_s[1024], ckernels_grid_iq3_xxs[256],
    ckernels_grid_iq3_s[512];

/// What those bits stand for. iq1's are 8 times its values, so that delta is one.
static const int8_t iq1_levels[4] = {-8, 0, 8}, iq2_levels[4] = {8, 25, 43},
                    iq3_xxs_levels[8] = {4, 12, 20, 28, 36, 44, 52, 62},
                    iq3_s_levels[8] = {1, 3, 5, 7, 9, 11, 13, 15};
static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t mxfp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

_Static_assert(sizeof(block_q2_k) == 84, "Q2_K block");
_Static_assert(sizeof(block_q3_k) == 110, "Q3_K block");
_Static_assert(sizeof(block_q8_k) == 292, "Q8_K block");
_Static_assert(sizeof(block_iq4_nl) == 18, "IQ4_NL block");
_Static_assert(sizeof(block_iq4_xs) == 136, "IQ4_XS block");
_Static_assert(sizeof(block_mxfp4) == 17, "MXFP4 block");
_Static_assert(sizeof(block_iq2_xxs) == 66, "IQ2_XXS block");
_Static_assert(sizeof(block_iq2_xs) == 74, "IQ2_XS block");
_Static_assert(sizeof(block_iq2_s) == 82, "IQ2_S block");
_Static_assert(sizeof(block_iq3_xxs) == 98, "IQ3_XXS block");
_Static_assert(sizeof(block_iq3_s) == 110, "IQ3_S block");
_Static_assert(sizeof(block_iq1_s) == 50, "IQ1_S block");
_Static_assert(sizeof(block_iq1_m) == 56, "IQ1_M block");

/// The 6-bit scales of a q3_K block, one byte each, group 0 lowest.
typedef struct {
  uint64_t first, second;
} q3_k_scales;

static inline q3_k_scales unpack_q3_k_scales(const uint8_t *packed) {
  // Bytes 0-7: the low nibbles of groups 0-7 and, above, 8-15; bytes 8-11: two bits of groups
  // i, i + 4, i + 8 and i + 12 each.
  const uint64_t low = load_u32(packed) | (uint64_t)load_u32(packed + 4) << 32;
  const uint64_t high = load_u32(packed + 8), bits = 0x03030303, nibbles = 0x0f0f0f0f0f0f0f0full;
  return (q3_k_scales){
      .first = (low & nibbles) | (high & bits) << 4 | (high >> 2 & bits) << 36,
      .second = (low >> 4 & nibbles) | (high >> 4 & bits) << 4 | (high >> 6 & bits) << 36,
  };
}

/// 7 signs as 8, whose number is even.
static inline uint8_t even_signs(uint32_t bits) {
  return (uint8_t)(bits | (uint32_t)__builtin_parity(bits) << 7);
}

/// The d of an iq1_M block.
static inline uint16_t iq1_m_d(const block_iq1_m *block) {
  uint32_t d = 0;
  for (int i = 0; i < 4; i++) d |= (block->scales[i] & 0xf000u) >> (12 - 4 * i);
  return (uint16_t)d;
}

/// 2^(e - 128).
static inline float mxfp4_scale(uint8_t e) {
  return float_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

// Products for many tokens: 16 rows of weights are unpacked a slice at a time into interleaved
// integers (or floats), which stay in the first-level cache while every token passes over them.
#pragma once
#include "blocks.h"
#include "kernels.h"

enum {
  /// Rows interleaved in a slice: two AVX2 vectors of 32-bit sums, or one of AVX-512.
  PANEL_ROWS = 16,
  /// Bytes of a slice's weights.
  SLICE_BYTES = 1 << 14,
  /// The most groups of 32 columns of a slice.
  SLICE_GROUPS = SLICE_BYTES / PANEL_ROWS / 32,
};

/// A slice of 16 rows. Quantized weights are scale * q + minimum with unsigned q.
typedef struct {
  union {
    /// [column / 4][row][4]; in two planes of nibbles, [column / 4][row / 8][plane][row % 8][4].
    _Alignas(64) uint8_t q[SLICE_BYTES];
    /// [column][row], of float weights.
    float floats[SLICE_BYTES / 4 / PANEL_ROWS][PANEL_ROWS];
  };
  /// [group][row]; [group][half][row] where a group has two scales.
  float scale[SLICE_GROUPS * 2][PANEL_ROWS];
  /// As `scale`; of the formats with an offset it is -offset * scale.
  float minimum[SLICE_GROUPS * 2][PANEL_ROWS];
} packed_slice;

/// Activation scale * sum of the activations of each group (half group, where it has two scales).
typedef struct {
  float of[SLICE_GROUPS * 2];
} scaled_sums;

static inline bool is_float(uint32_t type) { return superblock_bytes(type) == 0; }

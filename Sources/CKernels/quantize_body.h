// The quantisers of weights, once per instruction set: quantize.c includes this file with SET(name) naming the
// section's copy.
//
// Each chooses quants for many candidate scales, solves for the scale that fits these quants best (least
// squares), and keeps the candidate with the least squared error; scales of blocks of groups are then
// rounded, and the neighbours of every rounded one tried.

#include "lanes_body.h"

/// Rounded to even, for magnitudes below 2^22, and clamped.
ALWAYS_INLINE lanes SET(quants)(lanes x, float low, float high) {
  x = __builtin_elementwise_max(x, (lanes){} + low);
  x = __builtin_elementwise_min(x, (lanes){} + high);
  const lanes magic = (lanes){} + 12582912.0f;  // 1.5 * 2^23
  return (x + magic) - magic;
}

/// The value of `count` that is the farthest from zero.
ALWAYS_INLINE float SET(extreme)(const float *x, int count) {
  float extreme = 0;
  for (int i = 0; i < count; i++)
    if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
  return extreme;
}

// MARK: One scale

/// The scale d for which d * quants, `low` to `high`, is nearest to the `groups` * 16 values at x.
/// Candidates put the extreme value on, or a little off, the lowest quant.
ALWAYS_INLINE float SET(best_scale)(const float *x, int groups, float low, float high) {
  const float extreme = SET(extreme)(x, 16 * groups);
  if (extreme == 0) return 0;
  float best = 0, best_gain = -1;
  for (int step = -12; step <= 12; step++) {
    const float inverse = (low + 0.08f * (float)step) / extreme;
    if (!isfinite(inverse)) continue;
    lanes products = {}, squares = {};
    for (int g = 0; g < groups; g++) {
      const lanes v = load16(x + 16 * g);
      const lanes q = SET(quants)(v * inverse, low, high);
      products += v * q;
      squares += q * q;
    }
    const float xq = SET(sum16)(products), qq = SET(sum16)(squares);
    // The error is sum x^2 - xq^2 / qq.
    if (qq > 0 && xq * xq / qq > best_gain) {
      best_gain = xq * xq / qq;
      best = xq / qq;
    }
  }
  return best;
}

/// The squared error of d * quants, which are written to q.
ALWAYS_INLINE float SET(fit_scale)(
    const float *x, int groups, float d, float low, float high, float *q) {
  const float inverse = d != 0 ? 1 / d : 0;
  lanes errors = {};
  for (int g = 0; g < groups; g++) {
    const lanes v = load16(x + 16 * g);
    const lanes quants = SET(quants)(v * (isfinite(inverse) ? inverse : 0), low, high);
    const lanes difference = quants * d - v;
    errors += difference * difference;
    store16(q + 16 * g, quants);
  }
  return SET(sum16)(errors);
}

/// Blocks of 32 values with one scale: the better one of what least squares give and of the plain one.
ALWAYS_INLINE bool SET(one_scale)(
    const float *x, float low, float high, float plain, uint16_t *half, float *q) {
  uint16_t candidates[2];
  const float fitted = half_rounded(SET(best_scale)(x, 2, low, high), &candidates[0]);
  const float simple = half_rounded(plain, &candidates[1]);
  if (!isfinite(fitted) || !isfinite(simple)) return false;
  float other[32];
  const float fitted_error = SET(fit_scale)(x, 2, fitted, low, high, q);
  const float simple_error = SET(fit_scale)(x, 2, simple, low, high, other);
  const bool is_simple = simple_error < fitted_error;
  if (is_simple) memcpy(q, other, sizeof other);
  *half = candidates[is_simple];
  return true;
}

ALWAYS_INLINE bool SET(block_q4_0)(const float *x, block_q4_0 *block) {
  float q[32];
  uint16_t d;
  if (!SET(one_scale)(x, -8, 7, SET(extreme)(x, 32) / -8, &d, q)) return false;
  block->d = d;
  for (int i = 0; i < 16; i++)
    block->qs[i] = (uint8_t)((int)q[i] + 8) | (uint8_t)((int)q[i + 16] + 8) << 4;
  return true;
}

ALWAYS_INLINE bool SET(block_q8_0)(const float *x, block_q8_0 *block) {
  float q[32];
  uint16_t d;
  if (!SET(one_scale)(x, -127, 127, fabsf(SET(extreme)(x, 32)) / 127, &d, q)) return false;
  block->d = d;
  for (int i = 0; i < 32; i++) block->qs[i] = (int8_t)q[i];
  return true;
}

// MARK: Q6_K

ALWAYS_INLINE bool SET(block_q6_k)(const float *x, block_q6_k *block) {
  float scales[16], largest = 0;
  for (int g = 0; g < 16; g++) {
    scales[g] = SET(best_scale)(x + 16 * g, 1, -32, 31);
    if (fabsf(scales[g]) > fabsf(largest)) largest = scales[g];
  }
  uint16_t half;
  float d = half_rounded(largest / -128, &half);
  if (!isfinite(d)) return false;
  float best_error = INFINITY;
  // The scales for a d, then the d that fits scales and quants best, and again.
  for (int round = 0; round < 3; round++) {
    float q[256], error = 0;
    int8_t steps[16];
    for (int g = 0; g < 16; g++) {
      const float wanted = d != 0 ? rintf(scales[g] / d) : 0;
      float least = INFINITY;
      for (int off = -1; off <= 1; off++) {
        const float step = fminf(fmaxf(wanted + (float)off, -128), 127);
        float quants[16];
        const float found = SET(fit_scale)(x + 16 * g, 1, d * step, -32, 31, quants);
        if (found < least) {
          least = found;
          steps[g] = (int8_t)step;
          memcpy(q + 16 * g, quants, sizeof quants);
        }
      }
      error += least;
    }
    if (error < best_error) {
      best_error = error;
      block->d = half;
      memcpy(block->scales, steps, sizeof steps);
      for (int part = 0; part < 2; part++)
        for (int i = 0; i < 32; i++) {
          uint8_t b[4];
          for (int k = 0; k < 4; k++) b[k] = (uint8_t)((int)q[128 * part + 32 * k + i] + 32);
          block->ql[64 * part + i] = (b[0] & 15) | (b[2] & 15) << 4;
          block->ql[64 * part + 32 + i] = (b[1] & 15) | (b[3] & 15) << 4;
          block->qh[32 * part + i] =
              b[0] >> 4 | (b[1] >> 4) << 2 | (b[2] >> 4) << 4 | (b[3] >> 4) << 6;
        }
    }
    lanes products = {}, squares = {};
    for (int g = 0; g < 16; g++) {
      const lanes a = load16(q + 16 * g) * (float)steps[g];
      products += a * load16(x + 16 * g);
      squares += a * a;
    }
    const float squared = SET(sum16)(squares);
    if (squared == 0) break;
    const float next = half_rounded(SET(sum16)(products) / squared, &half);
    if (next == d || !isfinite(next)) break;
    d = next;
  }
  return isfinite(best_error);
}

// MARK: Q4_K

/// A scale and what is subtracted: value = scale * q - minimum, q 0 to 15.
typedef struct {
  float scale, minimum;
} SET(line);

/// The squared error of a line over 32 values, with the quants that suit it, which are written to q.
ALWAYS_INLINE float SET(fit_line)(const float *x, SET(line) line, float *q) {
  const float inverse = line.scale > 0 ? 1 / line.scale : 0;
  lanes errors = {};
  for (int g = 0; g < 2; g++) {
    const lanes v = load16(x + 16 * g) + line.minimum;
    const lanes quants = SET(quants)(v * (isfinite(inverse) ? inverse : 0), 0, 15);
    const lanes difference = quants * line.scale - v;
    errors += difference * difference;
    store16(q + 16 * g, quants);
  }
  return SET(sum16)(errors);
}

/// The line that fits given quants best, its minimum not negative.
ALWAYS_INLINE SET(line) SET(solve_line)(const float *x, const float *q) {
  lanes sums = {}, squares = {}, values = {}, products = {};
  for (int g = 0; g < 2; g++) {
    const lanes v = load16(x + 16 * g), quants = load16(q + 16 * g);
    sums += quants;
    squares += quants * quants;
    values += v;
    products += v * quants;
  }
  const float s = SET(sum16)(sums), ss = SET(sum16)(squares);
  const float v = SET(sum16)(values), vs = SET(sum16)(products);
  const float determinant = 32 * ss - s * s;
  SET(line) line = {0, fmaxf(0, -v / 32)};
  if (determinant > 0) {
    line.scale = (32 * vs - s * v) / determinant;
    line.minimum = (line.scale * s - v) / 32;
  }
  if (line.minimum < 0 || determinant <= 0) {
    line.scale = ss > 0 ? vs / ss : 0;
    line.minimum = 0;
  }
  if (line.scale < 0) line.scale = 0;
  return line;
}

/// The line that fits 32 values best of those tried.
ALWAYS_INLINE SET(line) SET(best_line)(const float *x) {
  float low = 0, high = x[0];
  for (int i = 0; i < 32; i++) {
    low = fminf(low, x[i]);
    high = fmaxf(high, x[i]);
  }
  SET(line) best = {0, -low};
  if (high <= low) return best;
  float best_error = INFINITY;
  for (int step = -10; step <= 5; step++) {
    // The extremes lie on, or a little beyond or within, the outermost quants.
    SET(line) line = {(high - low) / (15 + 0.2f * (float)step), -low};
    for (int turn = 0; turn < 3; turn++) {
      float q[32];
      const float error = SET(fit_line)(x, line, q);
      if (error < best_error) {
        best_error = error;
        best = line;
      } else if (turn > 0) {
        break;
      }
      line = SET(solve_line)(x, q);
    }
  }
  return best;
}

ALWAYS_INLINE bool SET(block_q4_k)(const float *x, block_q4_k *block) {
  SET(line) lines[8];
  float scale = 0, minimum = 0;
  for (int g = 0; g < 8; g++) {
    lines[g] = SET(best_line)(x + 32 * g);
    scale = fmaxf(scale, lines[g].scale);
    minimum = fmaxf(minimum, lines[g].minimum);
  }
  uint16_t halves[2];
  float d = half_rounded(scale / 63, &halves[0]);
  float dmin = half_rounded(minimum / 63, &halves[1]);
  if (!isfinite(d) || !isfinite(dmin)) return false;
  float best_error = INFINITY;
  // Scales and minima for a d and dmin, then the d and dmin that fit these best, and again.
  for (int round = 0; round < 3; round++) {
    float q[256], error = 0;
    uint8_t s[8], m[8];
    for (int g = 0; g < 8; g++) {
      const float wanted = d > 0 ? rintf(lines[g].scale / d) : 0;
      const float lowest = dmin > 0 ? rintf(lines[g].minimum / dmin) : 0;
      float least = INFINITY;
      for (int off = 0; off < 9; off++) {
        const float a = fminf(fmaxf(wanted + (float)(off / 3 - 1), 0), 63);
        const float b = fminf(fmaxf(lowest + (float)(off % 3 - 1), 0), 63);
        const SET(line) line = {d * a, dmin * b};
        float quants[32];
        const float found = SET(fit_line)(x + 32 * g, line, quants);
        if (found < least) {
          least = found;
          s[g] = (uint8_t)a;
          m[g] = (uint8_t)b;
          memcpy(q + 32 * g, quants, sizeof quants);
        }
      }
      error += least;
    }
    if (error < best_error) {
      best_error = error;
      block->d = halves[0];
      block->dmin = halves[1];
      for (int g = 0; g < 4; g++) {
        block->scales[g] = s[g] | (s[g + 4] >> 4) << 6;
        block->scales[g + 4] = m[g] | (m[g + 4] >> 4) << 6;
        block->scales[g + 8] = (s[g + 4] & 15) | (m[g + 4] & 15) << 4;
      }
      for (int pair = 0; pair < 4; pair++)
        for (int i = 0; i < 32; i++)
          block->qs[32 * pair + i] =
              (uint8_t)q[64 * pair + i] | (uint8_t)q[64 * pair + 32 + i] << 4;
    }
    // Two unknowns: the squares of d * a - dmin * b - x are least.
    float aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int g = 0; g < 8; g++) {
      const float b = (float)m[g];
      for (int part = 0; part < 2; part++) {
        const lanes v = load16(x + 32 * g + 16 * part);
        const lanes a = load16(q + 32 * g + 16 * part) * (float)s[g];
        aa += SET(sum16)(a * a);
        ab += SET(sum16)(a) * b;
        bb += 16 * b * b;
        ax += SET(sum16)(a * v);
        bx += SET(sum16)(v) * b;
      }
    }
    const float determinant = aa * bb - ab * ab;
    float next = aa > 0 ? ax / aa : 0, next_min = 0;
    if (determinant > 1e-6f * aa * bb) {
      next = (ax * bb - ab * bx) / determinant;
      next_min = (ab * ax - aa * bx) / determinant;
    }
    next = half_rounded(fmaxf(next, 0), &halves[0]);
    next_min = half_rounded(fmaxf(next_min, 0), &halves[1]);
    if ((next == d && next_min == dmin) || !isfinite(next) || !isfinite(next_min)) break;
    d = next;
    dmin = next_min;
  }
  return isfinite(best_error);
}

// MARK: Rows

#define QUANTIZE_BLOCKS(TYPE, NAME, COUNT)                                              \
  case TYPE: {                                                                          \
    block_##NAME *block = blocks;                                                       \
    for (size_t i = 0; i < count / COUNT; i++)                                          \
      if (!SET(block_##NAME)(x + COUNT * i, block + i)) return false;                   \
    return true;                                                                        \
  }

static bool SET(quantize_weights)(uint32_t type, const float *x, void *blocks, size_t count) {
  // One value that is not finite makes the sum so.
  lanes sums = {};
  for (size_t i = 0; i + 16 <= count; i += 16) sums += load16(x + i) * 0.0f;
  if (!(SET(sum16)(sums) == 0)) return false;
  switch (type) {
    QUANTIZE_BLOCKS(TYPE_Q4_0, q4_0, 32)
    QUANTIZE_BLOCKS(TYPE_Q8_0, q8_0, 32)
    QUANTIZE_BLOCKS(TYPE_Q4_K, q4_k, 256)
    QUANTIZE_BLOCKS(TYPE_Q6_K, q6_k, 256)
    default: return false;
  }
}
#undef QUANTIZE_BLOCKS

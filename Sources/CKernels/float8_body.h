// Products of F8_E4M3, written once: float8.c includes this file in one section per instruction set, after the
// section's `expand`. SET, BY_ROWS and BY_PANELS name its functions, PACKED_F32 is the product of expanded weights.

#include "lanes_body.h"

ALWAYS_INLINE void SET(by_rows)(int tokens, const matmul_task *task, size_t token) {
  const size_t block = task->scales->columns;
  const float *x[4];
  for (int t = 0; t < tokens; t++) x[t] = task->acts[token + (size_t)t];
  for (size_t r = task->row_begin; r < task->row_end; r++) {
    const uint8_t *row = task->weights + r * task->columns;
    const float *scales = row_scales(task, r);
    lanes totals[4] = {};
    for (size_t begin = 0; begin < task->columns; begin += block) {
      const size_t end = task->columns - begin < block ? task->columns : begin + block;
      lanes sums[4][2] = {};
      for (size_t column = begin; column < end; column += STEP) {
        __builtin_prefetch((const void *)((uintptr_t)(row + column) + 2048));
#pragma clang loop unroll(full)
        for (int half = 0; half < 2; half++) {
          const lanes w = SET(expand)(row + column + 16 * half);
#pragma clang loop unroll(full)
          for (int t = 0; t < tokens; t++)
            sums[t][half] += w * load16(x[t] + column + 16 * (size_t)half);
        }
      }
      const float scale = scales[begin / block] * F8_UNIT;
      for (int t = 0; t < tokens; t++) totals[t] += (sums[t][0] + sums[t][1]) * scale;
    }
    for (int t = 0; t < tokens; t++)
      task->outs[token + (size_t)t][r] = SET(sum16)(totals[t]);
  }
}

void BY_ROWS(const matmul_task *task) {
  size_t t = 0;
  for (; t + 4 <= task->tokens; t += 4) SET(by_rows)(4, task, t);
  for (; t + 2 <= task->tokens; t += 2) SET(by_rows)(2, task, t);
  for (; t < task->tokens; t++) SET(by_rows)(1, task, t);
}

/// Expands the weights of `rows` rows from `row` on, columns begin..<end.
ALWAYS_INLINE void SET(expand_panel)(
    const matmul_task *task, size_t row, size_t rows, size_t begin, size_t end,
    float (*panel)[PANEL_COLUMNS]) {
  for (size_t r = 0; r < rows; r++) {
    const uint8_t *weights = task->weights + (row + r) * task->columns;
    const float *scales = row_scales(task, row + r);
    for (size_t column = begin; column < end; column += 16) {
      const float scale = scales[column / task->scales->columns] * F8_UNIT;
      store16(panel[r] + (column - begin), SET(expand)(weights + column) * scale);
    }
  }
}

void BY_PANELS(const matmul_task *task) {
  _Alignas(64) float panel[PANEL_ROWS][PANEL_COLUMNS];
  _Alignas(64) float products[PANEL_TOKENS][PANEL_ROWS];
  const void *acts[PANEL_TOKENS];
  float *outs[PANEL_TOKENS];
  for (size_t row = task->row_begin; row < task->row_end; row += PANEL_ROWS) {
    const size_t left = task->row_end - row, rows = left < PANEL_ROWS ? left : PANEL_ROWS;
    for (size_t begin = 0; begin < task->columns; begin += PANEL_COLUMNS) {
      const size_t rest = task->columns - begin;
      const size_t count = rest < PANEL_COLUMNS ? rest : PANEL_COLUMNS;
      SET(expand_panel)(task, row, rows, begin, begin + count, panel);
      for (size_t first = 0; first < task->tokens; first += PANEL_TOKENS) {
        const size_t after = task->tokens - first;
        const size_t tokens = after < PANEL_TOKENS ? after : PANEL_TOKENS;
        for (size_t t = 0; t < tokens; t++) {
          acts[t] = (const float *)task->acts[first + t] + begin;
          outs[t] = products[t];
        }
        const matmul_task part = {
            .weights = (const uint8_t *)panel, .columns = count, .row_begin = 0, .row_end = rows,
            .acts = acts, .outs = outs, .tokens = tokens, .stride = PANEL_COLUMNS};
        PACKED_F32(&part);
        for (size_t t = 0; t < tokens; t++) {
          float *out = task->outs[first + t] + row;
          for (size_t r = 0; r < rows; r++)
            out[r] = begin == 0 ? products[t][r] : out[r] + products[t][r];
        }
      }
    }
  }
}

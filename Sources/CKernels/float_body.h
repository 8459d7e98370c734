// Products of float weights, written once: float.c includes this file in one section per instruction
// set, after the section's `load` and `horizontal_sum`. VECTOR is its register type of LANES floats,
// TILE the most tokens it sums at once; SET and SYMBOL name its functions.

ALWAYS_INLINE void SET(accumulate)(
    uint32_t type, int tokens, const uint8_t *p, const uint8_t *const *x, size_t column,
    VECTOR (*sums)[2]) {
#pragma clang loop unroll(full)
  for (int half = 0; half < 2; half++) {
    const VECTOR w = SET(load)(type, p + (size_t)half * LANES * value_bytes(type));
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++) {
      const uint8_t *values = x[t] + 4 * (column + LANES * (size_t)half);
      sums[t][half] = FMADD(w, LOAD_FLOATS((const float *)values), sums[t][half]);
    }
  }
}

ALWAYS_INLINE void SET(matmul_tile)(
    uint32_t type, int tokens, const matmul_task *task, size_t token, size_t row_begin,
    size_t row_end) {
  enum { STEP = 2 * LANES };
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
    VECTOR sums[TILE][2] = {};
    for (size_t column = 0; column < whole; column += STEP, p += STEP * size) {
      __builtin_prefetch((const void *)((uintptr_t)p + PREFETCH_BYTES));
      SET(accumulate)(type, tokens, p, x, column, sums);
    }
    if (whole != columns) {
      uint8_t padded[4 * STEP] = {};
      memcpy(padded, p, (columns - whole) * size);
      SET(accumulate)(type, tokens, padded, tail_x, 0, sums);
    }
    for (int t = 0; t < tokens; t++)
      task->outs[token + (size_t)t][r] = SET(horizontal_sum)(sums[t][0], sums[t][1]);
  }
}

ALWAYS_INLINE void SET(matmul)(uint32_t type, const matmul_task *task) {
  const size_t rows = rows_per_block(task->columns * value_bytes(type));
  for (size_t begin = task->row_begin; begin < task->row_end; begin += rows) {
    const size_t end = task->row_end - begin < rows ? task->row_end : begin + rows;
    size_t t = 0;
#if TILE >= 8
    for (; t + 8 <= task->tokens; t += 8) SET(matmul_tile)(type, 8, task, t, begin, end);
#endif
    for (; t + 4 <= task->tokens; t += 4) SET(matmul_tile)(type, 4, task, t, begin, end);
    for (; t + 2 <= task->tokens; t += 2) SET(matmul_tile)(type, 2, task, t, begin, end);
    for (; t < task->tokens; t++) SET(matmul_tile)(type, 1, task, t, begin, end);
  }
}

void SYMBOL(f32)(const matmul_task *task) { SET(matmul)(TYPE_F32, task); }
void SYMBOL(f16)(const matmul_task *task) { SET(matmul)(TYPE_F16, task); }
void SYMBOL(bf16)(const matmul_task *task) { SET(matmul)(TYPE_BF16, task); }

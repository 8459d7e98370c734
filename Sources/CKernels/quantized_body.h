// The loops over rows and tokens of a quantized product, written once: quantized_avx2.c and
// quantized_avx512.c include this file after their `accumulate` and `horizontal_sum`, with VECTOR
// naming their register type, TILE the most tokens it sums at once, and SYMBOL their functions.

/// The rows row_begin..<row_end for `tokens` tokens from `token` on.
ALWAYS_INLINE void matmul_tile(
    uint32_t type, int tokens, const matmul_task *task, size_t token, size_t row_begin,
    size_t row_end) {
  const size_t columns = task->columns, whole = columns / 256 * 256;
  const size_t step = superblock_bytes(type), row_bytes = columns / 32 * step / 8;
  activation_row acts[TILE], tail_acts[TILE];
  activation_tail tails[TILE];
  for (int t = 0; t < tokens; t++) {
    acts[t] = activation_parts(task->acts[token + (size_t)t], columns);
    if (whole == columns) continue;
    copy_activation_tail(acts[t], whole, columns, &tails[t]);
    tail_acts[t] = (activation_row){
        tails[t].q, (const uint8_t *)tails[t].scale, (const uint8_t *)tails[t].sum16};
  }
  for (size_t r = row_begin; r < row_end; r++) {
    const uint8_t *p = task->weights + r * row_bytes;
    VECTOR sums[TILE] = {};
    for (size_t column = 0; column < whole; column += 256, p += step) {
      for (size_t i = 0; i < step; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)p + PREFETCH_BYTES + i));
      accumulate(type, tokens, p, acts, column, sums);
    }
    if (whole != columns) {
      uint8_t padded[8 * sizeof(block_q8_0)] = {};
      memcpy(padded, p, (columns - whole) / 32 * step / 8);
      accumulate(type, tokens, padded, tail_acts, 0, sums);
    }
    for (int t = 0; t < tokens; t++) task->outs[token + (size_t)t][r] = horizontal_sum(sums[t]);
  }
}

ALWAYS_INLINE void matmul(uint32_t type, const matmul_task *task) {
  const size_t rows = rows_per_block(task->columns / 32 * superblock_bytes(type) / 8);
  for (size_t begin = task->row_begin; begin < task->row_end; begin += rows) {
    const size_t end = task->row_end - begin < rows ? task->row_end : begin + rows;
    size_t t = 0;
#if TILE >= 8
    for (; t + 8 <= task->tokens; t += 8) matmul_tile(type, 8, task, t, begin, end);
#endif
    for (; t + 4 <= task->tokens; t += 4) matmul_tile(type, 4, task, t, begin, end);
    for (; t + 2 <= task->tokens; t += 2) matmul_tile(type, 2, task, t, begin, end);
    for (; t < task->tokens; t++) matmul_tile(type, 1, task, t, begin, end);
  }
}

#define DEFINE(TYPE, NAME) \
  void SYMBOL(NAME)(const matmul_task *task) { matmul(TYPE, task); }

FOR_QUANTIZED_TYPES(DEFINE)
#undef DEFINE

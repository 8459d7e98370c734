// The packing of weights into slices and the loops over slices, rows and tokens, written once:
// packed_avx2.c and packed_avx512.c include this file after formats_avx2.h and their
// `multiply_quantized` and `multiply_floats`. PLANES(type) tells whether bytes are split into two
// planes of nibbles; SYMBOL names their functions and KERNEL_SET their set.

/// The most tokens multiplied at once.
ALWAYS_INLINE int tile_tokens(uint32_t type) { return is_float(type) ? FLOAT_TILE : TILE; }

/// Columns of a slice, a multiple of 256.
ALWAYS_INLINE size_t slice_columns(uint32_t type) {
  return SLICE_BYTES / PANEL_ROWS / (is_float(type) ? sizeof(float) : PLANES(type));
}

// MARK: - Packing

/// Writes the 8 x 8 transpose of 32-bit elements: element i of the vector at out + j * stride is
/// element j of in[i].
ALWAYS_INLINE void store_transposed(const __m256i in[8], void *out, size_t stride) {
  __m256i a[8], b[8];
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    a[2 * i] = _mm256_unpacklo_epi32(in[2 * i], in[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(in[2 * i], in[2 * i + 1]);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma clang loop unroll(full)
  for (size_t j = 0; j < 4; j++) {
    __m256i *low = (__m256i *)((uint8_t *)out + j * stride);
    __m256i *high = (__m256i *)((uint8_t *)out + (j + 4) * stride);
    _mm256_store_si256(low, _mm256_permute2x128_si256(b[j], b[j + 4], 0x20));
    _mm256_store_si256(high, _mm256_permute2x128_si256(b[j], b[j + 4], 0x31));
  }
}

/// The scales of 8 groups, or of both halves of each, and the minimums of unsigned weights.
ALWAYS_INLINE void packed_scales(
    uint32_t type, const uint8_t *p, __m256 scale[2], __m256 minimum[2]) {
  if (is_decoded(type))
    decoded_scales(type, p, scale, minimum);
  else
    scales(type, p, scale, minimum);
  if (has_minimum(type)) return;
  if (type == TYPE_Q6_K) {
    const __m128i halves = _mm_shuffle_epi8(
        q6_k_scales(p), _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    const __m256i low = _mm256_cvtepi8_epi32(halves);
    const __m256i high = _mm256_cvtepi8_epi32(_mm_srli_si128(halves, 8));
    scale[1] = _mm256_mul_ps(scale[0], _mm256_cvtepi32_ps(high));
    scale[0] = _mm256_mul_ps(scale[0], _mm256_cvtepi32_ps(low));
  }
  const int offset = is_decoded(type)    ? decoded_offset(type)
                     : type == TYPE_Q8_0 ? 128
                                         : value_offset(type);
  for (int h = 0; h < group_halves(type); h++)
    minimum[h] = _mm256_mul_ps(scale[h], _mm256_set1_ps((float)-offset));
}

/// The 32 integers of group `g` of a superblock, unsigned.
ALWAYS_INLINE __m256i packed_values(uint32_t type, const uint8_t *p, int g) {
  if (is_decoded(type))
    return _mm256_add_epi8(
        decoded_values(type, p, g), _mm256_set1_epi8((char)decoded_offset(type)));
  const __m256i w = values(type, p, g);
  return type == TYPE_Q8_0 ? _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80)) : w;
}

/// Packs scales and minimums of a superblock of 8 rows as those of groups `first` and on.
ALWAYS_INLINE void pack_scales(
    uint32_t type, const uint8_t *const *p, packed_slice *slice, size_t first, size_t row) {
  const size_t halves = (size_t)group_halves(type), stride = halves * sizeof slice->scale[0];
  __m256 scale[8][2], minimum[8][2];
  for (int r = 0; r < 8; r++) packed_scales(type, p[r], scale[r], minimum[r]);
  for (size_t h = 0; h < halves; h++) {
    __m256i s[8], m[8];
    for (int r = 0; r < 8; r++) {
      s[r] = _mm256_castps_si256(scale[r][h]);
      m[r] = _mm256_castps_si256(minimum[r][h]);
    }
    store_transposed(s, &slice->scale[first * halves + h][row], stride);
    store_transposed(m, &slice->minimum[first * halves + h][row], stride);
  }
}

/// Packs a superblock of 16 rows, row r at p[r], as groups first..<first + 8 of the slice.
ALWAYS_INLINE void pack_superblock(
    uint32_t type, const uint8_t *const *p, packed_slice *slice, size_t first) {
  for (size_t row = 0; row < PANEL_ROWS; row += 8) {
    pack_scales(type, p + row, slice, first, row);
    uint8_t *q = slice->q + first * 32 * PANEL_ROWS * PLANES(type) + row * 4 * PLANES(type);
#pragma clang loop unroll(full)
    for (int g = 0; g < 8; g++, q += 32 * PANEL_ROWS * PLANES(type)) {
      __m256i w[8], high[8];
      for (size_t r = 0; r < 8; r++) w[r] = packed_values(type, p[row + r], g);
      if (PLANES(type) == 1) {
        store_transposed(w, q, 4 * PANEL_ROWS);
        continue;
      }
      for (int r = 0; r < 8; r++) {
        high[r] = high_bits(w[r], -4, 15);
        w[r] = high_bits(w[r], 0, 15);
      }
      store_transposed(w, q, 8 * PANEL_ROWS);
      store_transposed(high, q + 32, 8 * PANEL_ROWS);
    }
  }
}

/// Packs columns begin..<end of the rows that start at p[row].
ALWAYS_INLINE void pack_quantized(
    uint32_t type, const uint8_t **p, size_t begin, size_t end, packed_slice *slice) {
  const size_t step = superblock_bytes(type);
  for (size_t r = 0; r < PANEL_ROWS; r++) p[r] += begin / 256 * step;
  size_t column = begin;
  for (; column + 256 <= end; column += 256) {
    pack_superblock(type, p, slice, (column - begin) / 32);
    for (size_t r = 0; r < PANEL_ROWS; r++) p[r] += step;
  }
  if (column == end) return;
  uint8_t padded[PANEL_ROWS][8 * sizeof(block_q8_0)] = {};
  for (size_t r = 0; r < PANEL_ROWS; r++) {
    memcpy(padded[r], p[r], (end - column) / 32 * step / 8);
    p[r] = padded[r];
  }
  pack_superblock(type, p, slice, (column - begin) / 32);
}

/// As `pack_quantized`, for float weights.
ALWAYS_INLINE void pack_floats(
    uint32_t type, const uint8_t **p, size_t begin, size_t end, packed_slice *slice) {
  const size_t size = type == TYPE_F32 ? 4 : 2;
  for (size_t row = 0; row < PANEL_ROWS; row += 8) {
    for (size_t column = begin; column < end; column += 8) {
      __m256i w[8];
      for (size_t r = 0; r < 8; r++) {
        const uint8_t *values = p[row + r] + column * size;
        uint8_t padded[32] = {};
        if (end - column < 8) values = memcpy(padded, values, (end - column) * size);
        w[r] = _mm256_castps_si256(float_values(type, values));
      }
      store_transposed(w, &slice->floats[column - begin][row], sizeof slice->floats[0]);
    }
  }
}

/// As `pack_floats`, for a matrix stored column after column; rows that it lacks are zero.
ALWAYS_INLINE void pack_columns(
    uint32_t type, const matmul_task *task, size_t row, size_t begin, size_t end,
    packed_slice *slice) {
  const size_t size = type == TYPE_F32 ? 4 : 2, rows = task->row_end;
  const size_t stride = task->stride ? task->stride : rows;
  for (size_t column = begin; column < end; column++) {
    const uint8_t *values = task->weights + (column * stride + row) * size;
    uint8_t padded[PANEL_ROWS * 4] = {};
    if (rows - row < PANEL_ROWS) values = memcpy(padded, values, (rows - row) * size);
    float *out = slice->floats[column - begin];
    _mm256_store_ps(out, float_values(type, values));
    _mm256_store_ps(out + 8, float_values(type, values + 8 * size));
  }
}

/// Packs columns begin..<end of 16 rows from `row` on; rows that the task lacks repeat its last.
ALWAYS_INLINE void pack_slice(
    uint32_t type, const matmul_task *task, size_t row, size_t begin, size_t end,
    packed_slice *slice) {
  const size_t stride = task->stride ? task->stride : task->columns;
  const size_t row_bytes = is_float(type) ? stride * (type == TYPE_F32 ? 4 : 2)
                                          : task->columns / 32 * superblock_bytes(type) / 8;
  const uint8_t *p[PANEL_ROWS];
  for (size_t r = 0; r < PANEL_ROWS; r++) {
    const size_t last = task->row_end - 1;
    p[r] = task->weights + (row + r < last ? row + r : last) * row_bytes;
  }
  if (is_float(type))
    pack_floats(type, p, begin, end, slice);
  else
    pack_quantized(type, p, begin, end, slice);
}

// MARK: - Loops

/// The scaled sums of columns begin..<end of one token.
ALWAYS_INLINE void scale_sums(
    uint32_t type, activation_row act, size_t begin, size_t end, scaled_sums *sums) {
  float *out = sums->of;
  size_t g = begin / 32;
  for (; g + 8 <= end / 32; g += 8, out += 8 * group_halves(type)) {
    const __m256i sum16 = _mm256_loadu_si256((const __m256i *)(act.sum16 + g * 4));
    const __m256 scale = _mm256_loadu_ps((const float *)(act.scale + g * 4));
    if (group_halves(type) == 1) {
      const __m256i sum32 = _mm256_madd_epi16(sum16, _mm256_set1_epi16(1));
      _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(sum32), scale));
      continue;
    }
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum16)));
    const __m256 high =
        _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum16, 1)));
    const __m256 a = _mm256_unpacklo_ps(scale, scale), b = _mm256_unpackhi_ps(scale, scale);
    _mm256_storeu_ps(out, _mm256_mul_ps(low, _mm256_permute2f128_ps(a, b, 0x20)));
    _mm256_storeu_ps(out + 8, _mm256_mul_ps(high, _mm256_permute2f128_ps(a, b, 0x31)));
  }
  // The last groups of a row whose last superblock is not full: no format with two scales has such.
  for (; g < end / 32; g++, out++) {
    const int16_t low = (int16_t)load_u16(act.sum16 + g * 4);
    const int16_t high = (int16_t)load_u16(act.sum16 + g * 4 + 2);
    *out = (float)(low + high) * load_float(act.scale + g * 4);
  }
}

/// products[t][row] = the products of columns begin..<end for tokens from `token` on.
ALWAYS_INLINE void multiply_slice(
    uint32_t type, int tokens, const matmul_task *task, const packed_slice *slice, size_t begin,
    size_t end, size_t token, float (*products)[PANEL_ROWS]) {
  if (is_float(type)) {
    const float *x[FLOAT_TILE];
    for (int t = 0; t < tokens; t++)
      x[t] = (const float *)task->acts[token + (size_t)t] + begin;
    multiply_floats(tokens, slice, end - begin, x, products);
    return;
  }
  activation_row acts[TILE];
  scaled_sums sums[TILE];
  for (int t = 0; t < tokens; t++) {
    acts[t] = activation_parts(task->acts[token + (size_t)t], task->columns);
    scale_sums(type, acts[t], begin, end, &sums[t]);
    acts[t].q += begin;
    acts[t].scale += begin / 32 * 4;
  }
  multiply_quantized(type, tokens, slice, (end - begin) / 32, acts, sums, products);
}

/// Multiplies a slice by `tokens` tokens from `token` on; its products begin a row's sums or are
/// added to them.
ALWAYS_INLINE void multiply_tile(
    uint32_t type, int tokens, const matmul_task *task, const packed_slice *slice, size_t row,
    size_t begin, size_t end, size_t token) {
  _Alignas(64) float products[TILE > FLOAT_TILE ? TILE : FLOAT_TILE][PANEL_ROWS];
  multiply_slice(type, tokens, task, slice, begin, end, token, products);
  const size_t rows = task->row_end - row < PANEL_ROWS ? task->row_end - row : PANEL_ROWS;
  for (int t = 0; t < tokens; t++) {
    float *out = task->outs[token + (size_t)t] + row;
    if (begin == 0)
      memcpy(out, products[t], rows * sizeof(float));
    else
      for (size_t r = 0; r < rows; r++) out[r] += products[t][r];
  }
}

/// The product of a task's rows, or, `transposed`, of a float matrix stored column after column.
ALWAYS_INLINE void matmul(uint32_t type, bool transposed, const matmul_task *task) {
  const size_t step = slice_columns(type);
  const int tile = tile_tokens(type);
  packed_slice slice;
  for (size_t row = task->row_begin; row < task->row_end; row += PANEL_ROWS) {
    // A row of no columns has sums too: zeros.
    for (size_t begin = 0; begin == 0 || begin < task->columns; begin += step) {
      const size_t end = task->columns - begin < step ? task->columns : begin + step;
      if (transposed)
        pack_columns(type, task, row, begin, end, &slice);
      else
        pack_slice(type, task, row, begin, end, &slice);
      size_t t = 0;
      for (; t + (size_t)tile <= task->tokens; t += (size_t)tile)
        multiply_tile(type, tile, task, &slice, row, begin, end, t);
#pragma clang loop unroll(full)
      for (int rest = 8; rest > 0; rest /= 2) {
        if (rest >= tile || t + (size_t)rest > task->tokens) continue;
        multiply_tile(type, rest, task, &slice, row, begin, end, t);
        t += (size_t)rest;
      }
    }
  }
}

#define DEFINE(TYPE, NAME) \
  void SYMBOL(NAME)(const matmul_task *task) { matmul(TYPE, false, task); }

FOR_FLOAT_TYPES(DEFINE)
FOR_QUANTIZED_TYPES(DEFINE)
#undef DEFINE

// MARK: - Attention

/// Attention of one head for a block of tokens; `ckernels_attention_block` has the meaning of the
/// task. Positions that a token does not see get weight zero; those that none sees are left out, a
/// multiple of a slice, so that sums are taken in the same order whichever tokens share a block.
ALWAYS_INLINE void attend(uint32_t type, const attention_task *task) {
  const ckernels_attention_head *head = task->head;
  const size_t size = type == TYPE_F32 ? 4 : 2, slice = slice_columns(type);
  const size_t base = first_seen(head, task->positions_before + 1) / slice * slice;
  const size_t positions = task->positions_before + task->tokens - base;
  float *scores[CKernelsAttentionBlockTokens];
  for (size_t t = 0; t < task->tokens; t++) scores[t] = task->scores + t * (positions + 1);
  const matmul_task products = {
      .weights = (const uint8_t *)head->k + base * head->k_stride * size,
      .columns = head->dimension, .row_end = positions, .stride = head->k_stride,
      .acts = (const void *const *)task->q, .outs = scores, .tokens = task->tokens};
  matmul(type, false, &products);
  for (size_t t = 0; t < task->tokens; t++) {
    const size_t all = task->positions_before + t + 1;
    const size_t begin = first_seen(head, all) - base, end = all - base;
    for (size_t p = begin; p < end; p++) scores[t][p] *= head->scale;
    // The place after a token's last score is free.
    if (head->has_sink) scores[t][end] = head->sink;
    ckernels_softmax(KERNEL_SET, scores[t] + begin, end - begin + head->has_sink);
    for (size_t p = 0; p < begin; p++) scores[t][p] = 0;
    for (size_t p = end; p < positions; p++) scores[t][p] = 0;
  }
  const matmul_task mix = {
      .weights = (const uint8_t *)head->v + base * head->v_stride * size,
      .columns = positions, .row_end = head->value_dimension, .stride = head->v_stride,
      .acts = (const void *const *)scores, .outs = task->outs, .tokens = task->tokens};
  matmul(type, true, &mix);
}

void SYMBOL(attention)(const attention_task *task) {
  if (task->head->half)
    attend(TYPE_F16, task);
  else
    attend(TYPE_F32, task);
}

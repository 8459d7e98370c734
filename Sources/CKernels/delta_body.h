// What layers with a recurrent state compute between their matrix products, compiled once per instruction set by
// elementwise.c, after elementwise_body.h.

/// 16 channels of the convolution, from channel `c` on, `count` of which there are.
ALWAYS_INLINE lanes SET(convolved16)(
    const float *const *rows, const float *taps, size_t width, size_t c, size_t count) {
  lanes sum = {};
  for (size_t j = 0; j < width; j++) {
    lanes tap = {}, value = {};
    for (size_t lane = 0; lane < count; lane++) tap[lane] = taps[(c + lane) * width + j];
    if (count == 16)
      value = load16(rows[j] + c);
    else
      for (size_t lane = 0; lane < count; lane++) value[lane] = rows[j][c + lane];
    sum += tap * value;
  }
  return sum / (SET(exp16)(-sum) + 1.0f);
}

static void SET(convolve)(
    const float *const *rows, const float *taps, size_t width, float *out, size_t n) {
  size_t c = 0;
  for (; c + 16 <= n; c += 16) store16(out + c, SET(convolved16)(rows, taps, width, c, 16));
  if (c < n) {
    float tail[16];
    store16(tail, SET(convolved16)(rows, taps, width, c, n - c));
    memcpy(out + c, tail, (n - c) * sizeof(float));
  }
}

/// `count` vectors of columns of one step, from column `c` on: so few that their part of the state is still in
/// the nearest cache when it is gone through for the second time.
ALWAYS_INLINE void SET(delta_columns)(const ckernels_delta_step *s, size_t c, size_t count) {
  const size_t n = s->dimension;
  lanes found[4] = {}, read[4] = {};
  for (size_t i = 0; i < n; i++)
    for (size_t v = 0; v < count; v++)
      found[v] += load16(s->before + i * n + c + 16 * v) * s->key[i];
  for (size_t v = 0; v < count; v++)
    found[v] = (load16(s->value + c + 16 * v) - found[v] * s->decay) * s->rate;
  for (size_t i = 0; i < n; i++)
    for (size_t v = 0; v < count; v++) {
      const lanes kept = load16(s->before + i * n + c + 16 * v) * s->decay + found[v] * s->key[i];
      store16(s->after + i * n + c + 16 * v, kept);
      read[v] += kept * s->query[i];
    }
  for (size_t v = 0; v < count; v++) store16(s->out + c + 16 * v, read[v]);
}

static void SET(delta)(const ckernels_delta_step *s) {
  const size_t n = s->dimension;
  size_t c = 0;
  for (; c + 64 <= n; c += 64) SET(delta_columns)(s, c, 4);
  for (; c + 16 <= n; c += 16) SET(delta_columns)(s, c, 1);
  for (; c < n; c++) {
    float found = 0, read = 0;
    for (size_t i = 0; i < n; i++) found += s->before[i * n + c] * s->key[i];
    found = (s->value[c] - found * s->decay) * s->rate;
    for (size_t i = 0; i < n; i++) {
      const float kept = s->before[i * n + c] * s->decay + found * s->key[i];
      s->after[i * n + c] = kept;
      read += kept * s->query[i];
    }
    s->out[c] = read;
  }
}

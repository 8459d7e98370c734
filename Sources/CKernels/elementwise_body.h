// The float kernels between the matrix products, written once over 16-lane vectors and compiled
// once per instruction set: elementwise.c includes this file in one section per set, with SET(name)
// naming the section's copy and LOAD_HALF16 its half-precision load.
//
// Reductions keep 16 partial sums and add them in one fixed order, so a result never depends on how
// tokens, heads or rows were handed to threads.

#include "lanes_body.h"

/// e^x to about 2 ulp: x = n ln2 + r, a degree-6 polynomial in r, then 2^n by its exponent bits
/// (the scheme of Cephes' expf). NaN stays NaN, which the clamping alone would make a number.
ALWAYS_INLINE lanes SET(exp16)(lanes x) {
  const lanes low = (lanes){} - 87.0f, high = (lanes){} + 88.0f;
  const integers nans = ~(x == x);
  x = __builtin_elementwise_min(__builtin_elementwise_max(x, low), high);
  const lanes round = (lanes){} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  lanes shifted = x * 1.44269504f + round;
  lanes n = shifted - round;
  lanes r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  integers exponent = ((integers)shifted - (integers)round + 127) << 23;
  return (lanes)((integers)(p * (lanes)exponent) | nans);
}

static void SET(rms_norm)(const float *x, const float *weight, float *out, size_t n, float epsilon) {
  lanes sums = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    lanes v = load16(x + i);
    sums += v * v;
  }
  float sum = SET(sum16)(sums);
  for (; i < n; i++) sum += x[i] * x[i];
  const float scale = 1.0f / sqrtf(sum / (float)n + epsilon);
  for (i = 0; i < n; i++) out[i] = x[i] * scale * weight[i];
}

static void SET(layer_norm)(
    const float *x, const float *weight, const float *bias, float *out, size_t n, float epsilon) {
  lanes sums = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) sums += load16(x + i);
  float sum = SET(sum16)(sums);
  for (; i < n; i++) sum += x[i];
  const float mean = sum / (float)n;
  lanes squares = {};
  for (i = 0; i + 16 <= n; i += 16) {
    const lanes v = load16(x + i) - mean;
    squares += v * v;
  }
  float square = SET(sum16)(squares);
  for (; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / sqrtf(square / (float)n + epsilon);
  for (i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/// up * gate * sigmoid(gate), or without the second factor.
ALWAYS_INLINE lanes SET(gated16)(lanes gate, lanes up, bool linear) {
  const lanes numerator = linear ? gate : (lanes){} + 1.0f;
  return numerator / (SET(exp16)(-gate) + 1.0f) * up;
}

ALWAYS_INLINE void SET(gated)(
    const float *gate, const float *up, float *out, size_t n, bool linear) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    store16(out + i, SET(gated16)(load16(gate + i), load16(up + i), linear));
  if (i < n) {
    float g[16] = {0}, u[16] = {0}, o[16];
    memcpy(g, gate + i, (n - i) * sizeof(float));
    memcpy(u, up + i, (n - i) * sizeof(float));
    store16(o, SET(gated16)(load16(g), load16(u), linear));
    memcpy(out + i, o, (n - i) * sizeof(float));
  }
}

static void SET(silu_multiply)(const float *gate, const float *up, float *out, size_t n) {
  SET(gated)(gate, up, out, n, true);
}

static void SET(sigmoid_multiply)(const float *gate, const float *up, float *out, size_t n) {
  SET(gated)(gate, up, out, n, false);
}

/// x, or `limit` where x is larger; NaN stays NaN.
ALWAYS_INLINE lanes SET(at_most)(lanes x, float limit) {
  const lanes limits = (lanes){} + limit;
  const integers larger = x > limits;
  return (lanes)(((integers)limits & larger) | ((integers)x & ~larger));
}

ALWAYS_INLINE lanes SET(clamped_swiglu16)(lanes gate, lanes up, float alpha, float limit) {
  const lanes g = SET(at_most)(gate, limit);
  const lanes u = -SET(at_most)(-SET(at_most)(up, limit), limit);
  return (u + 1.0f) * (g / (SET(exp16)(g * -alpha) + 1.0f));
}

static void SET(clamped_swiglu)(
    const float *gate, const float *up, float *out, size_t n, float alpha, float limit) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    store16(out + i, SET(clamped_swiglu16)(load16(gate + i), load16(up + i), alpha, limit));
  if (i < n) {
    float g[16] = {0}, u[16] = {0}, o[16];
    memcpy(g, gate + i, (n - i) * sizeof(float));
    memcpy(u, up + i, (n - i) * sizeof(float));
    store16(o, SET(clamped_swiglu16)(load16(g), load16(u), alpha, limit));
    memcpy(out + i, o, (n - i) * sizeof(float));
  }
}

static void SET(softmax)(float *x, size_t n) {
  float maximum = x[0];
  for (size_t i = 1; i < n; i++) maximum = x[i] > maximum ? x[i] : maximum;
  lanes sums = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    lanes e = SET(exp16)(load16(x + i) - maximum);
    store16(x + i, e);
    sums += e;
  }
  float sum = 0;
  if (i < n) {
    float tail[16];
    for (size_t j = 0; j < 16; j++) tail[j] = i + j < n ? x[i + j] - maximum : -1000.0f;
    store16(tail, SET(exp16)(load16(tail)));
    for (size_t j = 0; i + j < n; j++) {
      x[i + j] = tail[j];
      sum += tail[j];
    }
  }
  sum += SET(sum16)(sums);
  const float scale = 1.0f / sum;
  for (i = 0; i < n; i++) x[i] *= scale;
}

static void SET(add_scaled)(const float *x, float scale, float *out, size_t n) {
  size_t i = 0;
  for (; i + 16 <= n; i += 16)
    store16(out + i, __builtin_elementwise_fma(load16(x + i), (lanes){} + scale, load16(out + i)));
  for (; i < n; i++) out[i] = fmaf(x[i], scale, out[i]);
}

ALWAYS_INLINE lanes SET(load_cache)(const void *base, size_t index, bool half) {
  return half ? LOAD_HALF16((const uint16_t *)base + index) : load16((const float *)base + index);
}

ALWAYS_INLINE float SET(load_cache_one)(const void *base, size_t index, bool half) {
  return half ? half_to_float(((const uint16_t *)base)[index]) : ((const float *)base)[index];
}

ALWAYS_INLINE void SET(attend)(
    const ckernels_attention_head *head, bool half, const float *q, size_t positions,
    float *scores, float *out) {
  const size_t first = first_seen(head, positions), seen = positions - first;
  const size_t vectored = head->dimension & ~(size_t)15;
  for (size_t p = 0; p < seen; p++) {
    const size_t row = (first + p) * head->k_stride;
    lanes sums = {};
    for (size_t d = 0; d < vectored; d += 16)
      sums += load16(q + d) * SET(load_cache)(head->k, row + d, half);
    float score = SET(sum16)(sums);
    for (size_t d = vectored; d < head->dimension; d++)
      score += q[d] * SET(load_cache_one)(head->k, row + d, half);
    scores[p] = score * head->scale;
  }
  if (head->has_sink) scores[seen] = head->sink;
  SET(softmax)(scores, seen + head->has_sink);
  const void *v = head->v;
  const size_t stride = head->v_stride, start = first * stride, dimension = head->value_dimension;
  size_t d = 0;
  for (; d + 64 <= dimension; d += 64) {
    lanes a0 = {}, a1 = {}, a2 = {}, a3 = {};
    for (size_t p = 0; p < seen; p++) {
      const size_t at = start + p * stride + d;
      const lanes weight = (lanes){} + scores[p];
      a0 += weight * SET(load_cache)(v, at, half);
      a1 += weight * SET(load_cache)(v, at + 16, half);
      a2 += weight * SET(load_cache)(v, at + 32, half);
      a3 += weight * SET(load_cache)(v, at + 48, half);
    }
    store16(out + d, a0);
    store16(out + d + 16, a1);
    store16(out + d + 32, a2);
    store16(out + d + 48, a3);
  }
  for (; d + 16 <= dimension; d += 16) {
    lanes sum = {};
    for (size_t p = 0; p < seen; p++)
      sum += SET(load_cache)(v, start + p * stride + d, half) * scores[p];
    store16(out + d, sum);
  }
  for (; d < dimension; d++) {
    float sum = 0;
    for (size_t p = 0; p < seen; p++)
      sum += SET(load_cache_one)(v, start + p * stride + d, half) * scores[p];
    out[d] = sum;
  }
}

static void SET(attention_half)(
    const ckernels_attention_head *head, const float *q, size_t positions, float *scores,
    float *out) {
  SET(attend)(head, true, q, positions, scores, out);
}

static void SET(attention_float)(
    const ckernels_attention_head *head, const float *q, size_t positions, float *scores,
    float *out) {
  SET(attend)(head, false, q, positions, scores, out);
}

#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// An instruction set the kernels are written for; a larger value needs a newer processor.
typedef enum __attribute__((enum_extensibility(closed))) : uint32_t {
  /// Plain C, on any processor: the reference the other sets are tested against.
  CKernelsPortable = 0,
  /// AVX2, FMA, F16C and BMI2.
  CKernelsAVX2 = 1,
  /// AVX-512 F, BW, VL, DQ and VNNI, on top of the above.
  CKernelsAVX512 = 2,
} ckernels_set;

/// The largest set that the running processor and operating system offer.
ckernels_set ckernels_best_set(void);

/// Whether the kernels take weights of GGML type id `type`:
/// F32 0, F16 1, Q4_0 2, Q4_1 3, Q5_0 6, Q5_1 7, Q8_0 8, Q2_K 10 to Q8_K 15, the IQ formats 16 to 23 and 29,
/// BF16 30, MXFP4 39; and, by a number of our own, F8_E4M3 63, which has scales apart.
bool ckernels_supports(uint32_t type);

/// Bytes of one activation row for weights of `type`, a multiple of 64; 0 if `type` is unsupported.
///
/// Float weights (F32, F16, BF16) take the f32 activations themselves. All quantized weights take
/// the one format that `ckernels_quantize_activations` writes.
size_t ckernels_activation_bytes(uint32_t type, size_t columns);

/// Quantizes `columns` (a multiple of 32) activations: int8 q[columns], then for each 32 values a
/// float scale = max|x| / 127, then for each 16 values the int16 sum of their q.
///
/// Every set writes the same bits. q is in -127...127, rounded half to even. A block whose scale
/// would be subnormal is written as zeros; a block with a NaN or an infinity gets scale NaN and
/// q = 0, so that every product of the row is NaN too.
void ckernels_quantize_activations(
    ckernels_set set, const float *_Nonnull x, void *_Nonnull row, size_t columns);

/// How a matrix product goes about the weights.
typedef enum __attribute__((enum_extensibility(closed))) : uint32_t {
  /// Each row is unpacked for a few tokens at a time, in registers.
  CKernelsByRows = 0,
  /// Rows are unpacked into the cache, interleaved, once for all tokens.
  CKernelsPacked = 1,
} ckernels_method;

/// The faster method for a product of `tokens` tokens, by a table of what was measured. The portable
/// set has one method only.
ckernels_method ckernels_best_method(ckernels_set set, uint32_t type, size_t tokens);

/// The scales of a matrix of F8_E4M3: weight (r, c) is its byte times
/// values[r / rows * stride + c / columns].
typedef struct {
  const float *_Nonnull values;
  size_t rows;
  /// A multiple of 32, as the columns of the matrix are.
  size_t columns;
  size_t stride;
} ckernels_scales;

/// outs[t][r] = dot(row r of `weights`, acts[t]) for r in row_begin..<row_end, t in 0..<tokens.
///
/// Rows are contiguous blocks of `type`; `weights` may have any alignment, and acts[t] too.
/// `columns` is a multiple of the block size. The bits of outs[t][r] depend on the set, on the
/// method, on row r and on acts[t] alone, never on the row range or on the number of tokens.
/// `scales` are those of F8_E4M3, null for any other type.
void ckernels_matmul(
    ckernels_set set, ckernels_method method, uint32_t type, const void *_Nonnull weights,
    size_t columns, size_t row_begin, size_t row_end, const void *_Nonnull const *_Nonnull acts,
    float *_Nonnull const *_Nonnull outs, size_t tokens, const ckernels_scales *_Nullable scales);

/// Expands `count` values (whole blocks, any alignment) to f32, with the bits that
/// `gguf.quants.dequantize` of the Python package gguf gives; those of F8_E4M3 without their scales.
void ckernels_dequantize(
    uint32_t type, const void *_Nonnull blocks, float *_Nonnull out, size_t count);

// Packing (quantize.c).

/// Whether weights can be quantized to GGML type id `type`: Q4_0, Q8_0, Q4_K, Q6_K.
bool ckernels_can_quantize(uint32_t type);

/// Quantizes `count` values (whole blocks) to `type`, with the least squared error of many candidates.
/// Every set writes the same bits. Returns false, with `blocks` undefined, if a value is not finite or too
/// large for a scale of half precision.
bool ckernels_quantize_weights(
    ckernels_set set, uint32_t type, const float *_Nonnull x, void *_Nonnull blocks, size_t count);

/// The CRC-32C (Castagnoli) of bytes that follow others whose CRC-32C is `crc`; 0 for the first.
uint32_t ckernels_crc32c(
    ckernels_set set, uint32_t crc, const void *_Nonnull bytes, size_t count);

/// Makes `count` blocks of MXFP4, 17 bytes each, of blocks of 16 bytes, two neighbouring values in each, and
/// their scales, which lie apart (arrange.c).
void ckernels_merge_mxfp4(
    const uint8_t *_Nonnull blocks, const uint8_t *_Nonnull scales, uint8_t *_Nonnull out,
    size_t count);

// Float kernels between the matrix products (elementwise.c).

/// out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]; `out` may be `x`.
void ckernels_rms_norm(
    ckernels_set set, const float *_Nonnull x, const float *_Nonnull weight, float *_Nonnull out,
    size_t n, float epsilon);
/// out[i] = (x[i] - mean(x)) / sqrt(variance(x) + epsilon) * weight[i] + bias[i]; `out` may be `x`.
void ckernels_layer_norm(
    ckernels_set set, const float *_Nonnull x, const float *_Nonnull weight,
    const float *_Nonnull bias, float *_Nonnull out, size_t n, float epsilon);
/// out[i] = sigmoid(gate[i]) * up[i]; `out` may be either input.
void ckernels_sigmoid_multiply(
    ckernels_set set, const float *_Nonnull gate, const float *_Nonnull up, float *_Nonnull out,
    size_t n);
/// out[c] = silu(sum_j taps[c * width + j] * rows[j][c]): a channel's convolution over the latest `width`
/// tokens, its own last, of `n` channels.
void ckernels_convolve(
    ckernels_set set, const float *_Nonnull const *_Nonnull rows, const float *_Nonnull taps,
    size_t width, float *_Nonnull out, size_t n);

/// One head of one token by the gated delta rule (arXiv 2412.06464): the state S, a matrix [key, value] of
/// `dimension` by `dimension`, fades to decay * S, what it holds for the key is replaced by the value at `rate`,
/// and the query reads it.
typedef struct {
  size_t dimension;
  /// `after` may be `before`.
  const float *_Nonnull before;
  float *_Nonnull after;
  const float *_Nonnull key, *_Nonnull query, *_Nonnull value;
  float decay, rate;
  float *_Nonnull out;
} ckernels_delta_step;
void ckernels_delta(ckernels_set set, const ckernels_delta_step *_Nonnull step);
/// out[i] = silu(gate[i]) * up[i]; `out` may be either input.
void ckernels_silu_multiply(
    ckernels_set set, const float *_Nonnull gate, const float *_Nonnull up, float *_Nonnull out,
    size_t n);
/// out[i] = (clamp(up[i], -limit, limit) + 1) * g * sigmoid(alpha * g), g = min(gate[i], limit); `out` may be
/// either input.
void ckernels_clamped_swiglu(
    ckernels_set set, const float *_Nonnull gate, const float *_Nonnull up, float *_Nonnull out,
    size_t n, float alpha, float limit);
/// Softmax in place.
void ckernels_softmax(ckernels_set set, float *_Nonnull x, size_t n);
/// The keys and values that a query head attends to.
typedef struct {
  /// Rows of half (`half`) or single precision, one for each position.
  const void *_Nonnull k, *_Nonnull v;
  bool half;
  /// Values of a query and of a row of k; of a row of v and of an output.
  size_t dimension, value_dimension;
  /// Values from one row to the next. The rows of v may lie within those of k.
  size_t k_stride, v_stride;
  /// What products are multiplied by.
  float scale;
  /// How many positions a token sees, up to its own; 0: all.
  size_t window;
  /// Whether there is one score more, which has no value: it takes its share of the softmax.
  bool has_sink;
  float sink;
} ckernels_attention_head;

/// Attention of one query: out[d] = sum_p softmax(q.k_p * scale)_p v_p[d], over the positions
/// 0..<positions that it sees. `scores` is scratch, [positions + 1].
void ckernels_attention(
    ckernels_set set, const ckernels_attention_head *_Nonnull head, const float *_Nonnull q,
    size_t positions, float *_Nonnull scores, float *_Nonnull out);
/// The most tokens of an attention block.
enum { CKernelsAttentionBlockTokens = 16 };
/// Causal attention of one query head for a block of tokens: as `ckernels_attention` for each token t,
/// over its own positions 0...positions_before + t. The bits of outs[t] depend on its q and positions
/// alone, but are not those of `ckernels_attention`. All rows of k and v must be finite.
/// `scores` is scratch, [tokens, positions_before + tokens + 1].
void ckernels_attention_block(
    ckernels_set set, const ckernels_attention_head *_Nonnull head,
    const float *_Nonnull const *_Nonnull q, size_t positions_before, size_t tokens,
    float *_Nonnull scores, float *_Nonnull const *_Nonnull outs);
/// Rounds n floats to IEEE half precision, to nearest even.
void ckernels_store_half(const float *_Nonnull x, uint16_t *_Nonnull out, size_t n);
/// Rotates the pairs (i, i + dimension / 2) of one head: RoPE in the GPT-NeoX layout.
void ckernels_rope(
    float *_Nonnull x, const float *_Nonnull cosines, const float *_Nonnull sines,
    size_t dimension);
/// out[i] += x[i].
void ckernels_add(const float *_Nonnull x, float *_Nonnull out, size_t n);
/// out[i] += x[i] * scale, in one rounding.
void ckernels_add_scaled(
    ckernels_set set, const float *_Nonnull x, float scale, float *_Nonnull out, size_t n);
/// Clamps to [-limit, limit].
void ckernels_clamp(float *_Nonnull x, size_t n, float limit);

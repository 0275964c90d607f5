// The arithmetic of FORMAT.md as tables of functions: one table an instruction set, and in it one for each number of lanes.
// All instruction sets give the same bits.
//
// Buffers are as in place.h, 64-byte aligned. Lanes beyond the last sample hold a copy of it, and gradients of 0.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/artifact.h"
#include "core/place.h"

namespace tkt {

constexpr uint32_t kMaxLanes = 16, kLaneCounts = 3;

// Samples side by side: as few as hold the batch, so that a batch of one costs no memory for fifteen others.
inline uint32_t lanes_for(uint32_t batch) { return batch == 1 ? 1 : batch <= 8 ? 8 : kMaxLanes; }
inline uint32_t lane_index(uint32_t lanes) { return lanes == 1 ? 0 : lanes == 8 ? 1 : 2; }

// Data or gradient of a buffer for the batch at work; group g begins at data + g * group_stride.
struct Tensor {
  float *data;
  size_t group_stride;  // floats
  Place place;

  Tensor from_group(uint32_t group) const { return {data + group * group_stride, group_stride, place}; }
};

// Rows of a transposed matrix: entry k has the weight values[from[k]] and reads the source that `codes` names. Of a matrix
// in blocks an entry has `block` weights side by side, for as many rows. Narrow indices where both fit.
struct Transposed {
  uint32_t rows, entries, block;
  const uint32_t *row_ptr;           // [rows + 1]
  const uint16_t *from16, *codes16;  // [entries], or
  const uint32_t *from32, *codes32;  // [entries]
};

// A correlation over images, all distances in vectors:
//   y[row][j][i] = start + sum over the row's entries of w * x[base(row) + offsets[code] + j * in_row + i * in_column]
// for j < height, i < width, where start is bias[row], or what y holds if `accumulate`. The entries are those of `weight`
// or, if it is nullptr, of `transposed`.
struct Correlation {
  const Matrix *weight;
  const Transposed *transposed;
  uint32_t first_row, rows;  // of the matrix; `row` above counts from first_row
  // Rows [n shared_rows, (n + 1) shared_rows) have the same entries. Of `transposed` the first alone is stored, and the
  // weights of the r-th after it lie r * shared_step behind its own; row b of a block has the code of its first plus
  // b * code_step.
  uint32_t shared_rows, shared_step, code_step;
  const float *values, *bias;
  const int32_t *offsets;  // [code]
  uint32_t rows_per_base;  // base(row) = (first_row + row) / rows_per_base * base_step
  uint32_t base_step;
  uint32_t height, width;
  uint32_t strip;  // lines worked on at a time, so that what they read stays in the cache
  uint32_t block;  // codes at a time in the weight gradient, for the same reason
  int32_t in_origin;
  uint32_t in_row, in_column;
  uint32_t out_origin, out_plane, out_row, out_column;
  bool accumulate;
};

// Kernel, stride and padding of pooling, along both axes.
struct Window {
  uint32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

struct SgdStep {
  float weight_decay, momentum, minus_learning_rate;
  bool nesterov;
};

struct AdamStep {
  float weight_decay, keep;  // L2 into the gradient; what decoupled decay leaves of a weight, 1 without
  float beta1, beta2, one_minus_beta1, one_minus_beta2, step_size, inverse_sqrt, epsilon;
};

// What batch normalisation does to one channel.
struct ChannelScale {
  float mean, scale, shift;  // y = (x - mean) * scale + shift
};
struct ChannelGradient {
  float mean, scale, constant, slope;  // dx = scale * (dy - constant - (x - mean) * slope)
};

// Normalisation of `width` consecutive elements, `count` times a sample. weight and bias may be nullptr; `saved` keeps mean
// and 1 / deviation, (groups, count, 2, lanes).
struct LayerNorm {
  uint32_t count, width;
  const float *weight, *bias;
  float epsilon;
  float *saved;
};

// Functions of one element, with their derivative by what the backward pass keeps.
enum UnaryOp : uint32_t { kRelu, kLeakyRelu, kRelu6, kHardswish, kSigmoid, kTanh, kGelu, kGeluTanh, kUnaryOps };

struct Unary {
  void (*forward)(const float *x, float *y, size_t count, float attribute);
  // dx = dy f'(kept), or dx += if `accumulate`; kept is y where the operator table says so, else x.
  void (*backward)(const float *kept, const float *dy, float *dx, size_t count, float attribute, bool accumulate);
};

// For one number of lanes.
struct LaneKernels {
  uint32_t lanes;

  // samples (count, elements) row-major -> normalised buffer; false if a normalised value is not finite.
  bool (*ingest)(const float *samples, uint32_t count, const InputSpec &input, const Tensor &x);

  // y = W x + bias for the rows [first, last). bias (rows) may be nullptr. x and y are flat.
  void (*product)(const Matrix &weight, const float *values, const float *bias, const Tensor &x, const Tensor &y,
                  uint32_t groups, uint32_t first, uint32_t last);

  // dx = W^T dy, or dx += W^T dy if `accumulate`, for elements [first, last) of dx; the second for a dense W.
  void (*transposed_product)(const Transposed &weight, const float *values, const Tensor &dy, const Tensor &dx,
                             uint32_t groups, bool accumulate, uint32_t first, uint32_t last);
  void (*dense_transposed_product)(const Matrix &weight, const float *values, const Tensor &dy, const Tensor &dx,
                                   uint32_t groups, bool accumulate, uint32_t first, uint32_t last);
  // dx += W^T dy in the order of W's rows; for one lane alone, which has not the two above.
  void (*scatter_product)(const Matrix &weight, const float *values, const Tensor &dy, const Tensor &dx,
                          uint32_t groups);

  // Gradients of the entries of rows [first, last), the first at out[0]; of pruned ones 0, here and of a correlation.
  void (*weight_gradient)(const Matrix &weight, const Tensor &dy, const Tensor &x, uint32_t groups, uint32_t first,
                          uint32_t last, float *out);

  void (*correlate)(const Correlation &c, const Tensor &x, const Tensor &y, uint32_t groups);
  // For one lane alone: dx += by the entries of `weight`; the correlation is the forward one, with dx in place of x and dy in place of y.
  void (*scatter_correlation)(const Correlation &c, const Tensor &dy, const Tensor &dx, uint32_t groups);
  void (*correlation_gradient)(const Correlation &c, const Tensor &x, const Tensor &dy, uint32_t groups, float *out);

  // out[c - first] = the sum of channel c over positions and samples.
  void (*channel_sums)(const Tensor &t, uint32_t groups, uint32_t first, uint32_t last, float *out);

  // Of one channel: the sum of x; of x - centre and of its square; of dy (x - mean). Samples beyond the last do not count.
  float (*sum)(const Tensor &x, uint32_t samples, uint32_t channel);
  void (*deviations)(const Tensor &x, uint32_t samples, uint32_t channel, float centre, float *sum, float *squares);
  float (*sum_of_products)(const Tensor &x, const Tensor &dy, uint32_t samples, uint32_t channel, float mean);

  // y and dx have zeros outside what they write. The gradient goes to the first of equal largest elements.
  void (*max_pool)(const Window &w, const Tensor &x, const Tensor &y, uint32_t groups);
  void (*max_pool_gradient)(const Window &w, const Tensor &x, const Tensor &dy, const Tensor &dx, uint32_t groups);
  void (*average_pool)(const Window &w, bool count_padding, const Tensor &x, const Tensor &y, uint32_t groups);
  void (*average_pool_gradient)(const Window &w, bool count_padding, const Tensor &dy, const Tensor &dx,
                                uint32_t groups);
  void (*global_average)(const Tensor &x, const Tensor &y, uint32_t groups);
  void (*global_average_gradient)(const Tensor &dy, const Tensor &dx, uint32_t groups, bool accumulate);

  void (*layer_norm)(const LayerNorm &n, const Tensor &x, const Tensor &y, uint32_t groups);
  void (*layer_norm_gradient)(const LayerNorm &n, const Tensor &x, const Tensor &dy, const Tensor &dx, uint32_t groups,
                              bool accumulate);
  // Gradients of elements [first, last) of the weight or, with `bias`, of the bias.
  void (*layer_norm_sums)(const LayerNorm &n, const Tensor &x, const Tensor &dy, uint32_t groups, bool bias,
                          uint32_t first, uint32_t last, float *out);

  // One group of (classes, lanes): exponentials, their maximum and sum per sample.
  void (*softmax)(const float *z, uint32_t classes, float *exponentials, float *maximum, float *sum);
};

struct Kernels {
  uint32_t name;  // tkt_kernels
  LaneKernels lanes[kLaneCounts];
  Unary unary[kUnaryOps];

  void (*add)(const float *a, const float *b, float *y, size_t count);
  void (*multiply)(const float *a, const float *b, float *y, size_t count, bool accumulate);
  void (*scale_channel)(const ChannelScale &c, const float *x, float *y, size_t count);
  void (*scale_channel_gradient)(const ChannelGradient &c, const float *x, const float *dy, float *dx, size_t count,
                                 bool accumulate);
  void (*scale)(float factor, float *values, size_t count);

  // To the nearest half float, ties to even; what is larger than all becomes the largest; NaN stays NaN. And back, exactly.
  void (*halve)(const float *x, uint16_t *half, size_t count);
  void (*expand)(const uint16_t *half, float *x, size_t count);

  bool (*all_finite)(const float *values, size_t count);
  void (*sgd)(const SgdStep &step, float *values, const float *gradients, float *velocity, size_t count);
  void (*adam)(const AdamStep &step, float *values, const float *gradients, float *moment1, float *moment2,
               size_t count);
};

// nullptr if this build or this processor has not the kernels asked for. AUTO always finds some.
const Kernels *find_kernels(uint32_t name);

// Those of single instruction sets; nullptr if not in this build. Call only what the processor has.
const Kernels *scalar_kernels();
const Kernels *avx2_kernels();
const Kernels *avx512_kernels();
const Kernels *neon_kernels();

}  // namespace tkt

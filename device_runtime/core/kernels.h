// The arithmetic of FORMAT.md as a table of functions, one table an instruction set. All of them give the same bits.
//
// A buffer is (groups, elements, 16): 16 samples side by side, element after element, group after group, 64-byte
// aligned. The last group may hold fewer samples; what its other lanes hold is finite for finite input and never used.
#pragma once

#include <stdint.h>

#include "core/artifact.h"

namespace tkt {

constexpr uint32_t kLanes = 16;

inline uint32_t groups_of(uint32_t samples) { return (samples + kLanes - 1) / kLanes; }

struct AdamStep {
  float weight_decay, beta1, beta2, one_minus_beta1, one_minus_beta2, step_size, inverse_sqrt, epsilon;
};

struct SgdStep {
  float weight_decay, momentum, minus_learning_rate;
};

struct Kernels {
  uint32_t name;  // tkt_kernels

  // samples (count, elements) row-major -> normalised buffer; false if a normalised value is not finite.
  bool (*ingest)(const float *samples, uint32_t count, const InputSpec &input, float *x);

  // y = W x + bias, or y += W x if `accumulate`. bias (rows) may be nullptr.
  void (*product)(const Matrix &weight, const float *values, const float *bias, const float *x, float *y,
                  uint32_t groups, bool accumulate);

  // dx = W^T dy, or dx += W^T dy, for a dense W.
  void (*dense_transposed_product)(const Matrix &weight, const float *values, const float *dy, float *dx,
                                   uint32_t groups, bool accumulate);

  // gradients (nnz) of W over `samples` samples.
  void (*weight_gradient)(const Matrix &weight, const float *dy, const float *x, uint32_t samples, float *gradients);
  void (*bias_gradient)(uint32_t rows, const float *dy, uint32_t samples, float *gradients);

  // Over `count` floats of buffers, a multiple of 16.
  void (*relu)(const float *x, float *y, uint64_t count);
  void (*relu_gradient)(const float *y, const float *dy, float *dx, uint64_t count, bool accumulate);
  void (*add)(const float *a, const float *b, float *y, uint64_t count);

  // One group: exponentials (classes, 16), their maximum, sum and logf(sum) per sample.
  void (*softmax)(const float *z, uint32_t classes, float *exponentials, float *maximum, float *sum, float *log_sum);

  // Over arrays padded to a multiple of 16 with zeros, which stay zeros.
  bool (*all_finite)(const float *values, uint32_t count);
  void (*sgd)(const SgdStep &step, float *values, const float *gradients, float *velocity, uint32_t count);
  void (*adam)(const AdamStep &step, float *values, const float *gradients, float *moment1, float *moment2,
               uint32_t count);
};

// nullptr if this build or this processor has not the kernels asked for. AUTO always finds some.
const Kernels *find_kernels(uint32_t name);

// Those of single instruction sets; nullptr if not in this build. Call only what the processor has.
const Kernels *scalar_kernels();
const Kernels *avx2_kernels();
const Kernels *avx512_kernels();
const Kernels *neon_kernels();

}  // namespace tkt

// A trainer as it lies in the arena: pointers into the arena and into the artifact, and nothing that needs an end.
#pragma once

#include "core/artifact.h"
#include "core/kernels.h"
#include "core/operators.h"
#include "ticket_runtime.h"

namespace tkt {

// (groups, elements, 16) as in kernels.h. The gradient is nullptr where no parameter lies before the buffer.
struct Buffer {
  float *data, *gradient;
  uint32_t elements;
  bool gradient_written;  // in this backward pass
};

struct Parameter {
  Matrix matrix;
  float *values, *gradients;  // [nnz]
};

struct NodeState {
  const Operator *op;
  const uint32_t *inputs, *params;
  uint32_t input_count, param_count, output;
  void *own;  // what the operator's lay_out made
};

// What a checkpoint restores besides arrays.
struct Progress {
  uint64_t step, epoch, seed;
  uint32_t position;
  double beta1_power, beta2_power;
};

}  // namespace tkt

struct tkt_trainer {
  tkt::Artifact artifact;
  tkt_options options;
  const tkt::Kernels *kernels;
  tkt::Progress progress;
  uint32_t value_count, padded_count;             // padded to whole vectors
  float *values, *gradients, *moment1, *moment2;  // [padded_count]; moments may be nullptr
  tkt::NodeState *nodes;
  tkt::Buffer *buffers;
  tkt::Parameter *params;
  uint32_t samples, groups;  // of the batch at work

  tkt::Buffer &output() { return buffers[artifact.graph.buffer_count - 1]; }
  uint64_t floats(const tkt::Buffer &buffer) const { return uint64_t(groups) * buffer.elements * tkt::kLanes; }
};

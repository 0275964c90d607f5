// A trainer as it lies in the arena: pointers into the arena and into the artifact, and nothing that needs an end.
#pragma once

#include "core/artifact.h"
#include "core/kernels.h"
#include "core/operators.h"
#include "ticket_runtime.h"

namespace tkt {

// As in place.h. The gradient is nullptr where no parameter lies before the buffer.
struct Buffer {
  float *data[2];  // on the way forward, and on the way back
  float *gradient;
  uint16_t *half;  // of the data, for the way back; nullptr: it is kept as it is, computed again, or not needed
  Place place, gradient_place;
  uint32_t root;          // the buffer whose memory it uses
  bool writes_half;       // once it is written, the halves are made
  bool expanded;          // in this backward pass the root's halves have become floats again
  bool gradient_written;  // in this backward pass
};

struct Parameter {
  Matrix matrix;
  float *values, *gradients;  // [stored]; gradients is nullptr where none are kept
};

struct NodeState {
  const Operator *op;
  const uint32_t *inputs, *params, *attrs;
  uint32_t input_count, param_count, output;
  bool recomputed, begins_segment;  // as in memory_plan.h
  void *own;                        // what the operator's lay_out made
};

// What a checkpoint restores besides arrays.
struct Progress {
  uint64_t step, epoch, seed;
  uint32_t position;
  double beta1_power, beta2_power;
};

struct Team;  // threads.h

// What becomes of the weight gradients of a backward pass.
enum class GradientUse : uint32_t {
  kStore,   // the first part of a batch
  kAdd,     // further parts
  kUpdate,  // plain SGD at once: nothing is stored
};

}  // namespace tkt

struct tkt_trainer {
  tkt::Artifact artifact;
  tkt_options options;
  const tkt::Kernels *kernels;
  const tkt::LaneKernels *lane_kernels;
  tkt::Progress progress;
  uint32_t value_count, trained_count;            // values; those of them that have a gradient, which come first
  float *values, *gradients, *moment1, *moment2;  // [value_count], then [trained_count]; nullptr where none are kept
  float *scratch;                                 // the gradients of some rows, a thread
  uint32_t scratch_floats;
  tkt::NodeState *nodes;
  tkt::Buffer *buffers;
  tkt::Parameter *params;
  tkt::Team *team;       // nullptr: the caller's thread alone
  uint32_t lanes, part;  // samples side by side; samples worked on at a time

  // Of the part of a batch at work.
  uint32_t first_sample, samples, groups;
  bool training, diverged;
  bool returning;  // on the way back, where nodes may run forward a second time
  float learning_rate;
  tkt::GradientUse gradient_use;

  tkt::Buffer &output() { return buffers[artifact.graph.buffer_count - 1]; }
  tkt::Tensor data(uint32_t buffer) const {
    const tkt::Buffer &b = buffers[buffer];
    return {b.data[returning], size_t(b.place.size) * lanes, b.place};
  }
  tkt::Tensor gradient(uint32_t buffer) const {
    const tkt::Buffer &b = buffers[buffer];
    return {b.gradient, size_t(b.gradient_place.size) * lanes, b.gradient_place};
  }
};

// batch_norm (Ioffe and Szegedy 2015), layer_norm (Ba et al. 2016) and softmax as an operator.
//
// A batch with a single value a channel has no deviation: it is normalised by the running statistics, which stay.
#include <string.h>

#include "core/gradients.h"
#include "core/math.h"
#include "core/memory_plan.h"
#include "core/node_functions.h"
#include "core/runs.h"
#include "core/step.h"
#include "core/threads.h"

namespace tkt {
namespace {

enum BatchNormParam : uint32_t { kWeight, kBias, kRunningMean, kRunningVar };

// [channels] each. The running statistics of a step wait in `next` until it is known to be good.
struct BatchNormState {
  float *mean, *inverse, *next_mean, *next_var;
  bool gathered;
};

bool is_frozen(const NodeState &node) { return node.attrs[2] != 0; }

uint64_t values_per_channel(const tkt_trainer &trainer, const Place &p) {
  return uint64_t(trainer.samples) * p.rows * p.length;
}

float as_float(uint64_t count) { return float(double(count)); }  // exact in between: one rounding

bool uses_batch_statistics(const tkt_trainer &trainer, const NodeState &node, const Place &p) {
  return trainer.training && !is_frozen(node) && values_per_channel(trainer, p) > 1;
}

float inverse_deviation(float variance, float epsilon) { return 1.0f / __builtin_sqrtf(variance + epsilon); }

// Of channels [first, last). What a running statistic cannot become makes the step diverge, before anything is updated.
void gather_statistics(tkt_trainer &trainer, const NodeState &node, BatchNormState &s, uint32_t first, uint32_t last) {
  const Tensor x = trainer.data(node.inputs[0]);
  const uint64_t n = values_per_channel(trainer, x.place);
  const float epsilon = attribute_f32(node.attrs, 0), momentum = attribute_f32(node.attrs, 1);
  const float inverse_n = 1.0f / as_float(n), unbiased = as_float(n) / as_float(n - 1);
  for (uint32_t c = first; c < last; ++c) {
    // A plain sum of so many values is too rough a mean where the deviation is small: it only is what is measured from.
    const float centre = trainer.lane_kernels->sum(x, trainer.samples, c) * inverse_n;
    float off, squares;
    trainer.lane_kernels->deviations(x, trainer.samples, c, centre, &off, &squares);
    off = off * inverse_n;
    const float mean = centre + off, spread = squares * inverse_n - off * off;
    const float variance = spread > 0 ? spread : 0.0f;
    s.mean[c] = mean;
    s.inverse[c] = inverse_deviation(variance, epsilon);
    s.next_mean[c] = fused_f32(momentum, mean - s.next_mean[c], s.next_mean[c]);
    s.next_var[c] = fused_f32(momentum, variance * unbiased - s.next_var[c], s.next_var[c]);
    if (!is_finite(s.next_mean[c]) || !is_finite(s.next_var[c])) {
      __atomic_store_n(&trainer.diverged, true, __ATOMIC_RELAXED);  // several threads may say so
    }
  }
}

void use_running_statistics(const tkt_trainer &trainer, const NodeState &node, BatchNormState &s, uint32_t channels) {
  const float *mean = trainer.params[node.params[kRunningMean]].values;
  const float *variance = trainer.params[node.params[kRunningVar]].values;
  const float epsilon = attribute_f32(node.attrs, 0);
  for (uint32_t c = 0; c < channels; ++c) {
    s.mean[c] = mean[c];
    s.inverse[c] = inverse_deviation(variance[c], epsilon);
  }
}

// What there is to do before the channels.
void prepare_statistics(tkt_trainer &trainer, const NodeState &node, BatchNormState &s) {
  const Place &x = trainer.buffers[node.inputs[0]].place;
  if (trainer.training && trainer.first_sample == 0) {
    s.gathered = false;
    memcpy(s.next_mean, trainer.params[node.params[kRunningMean]].values, x.channels * sizeof(float));
    memcpy(s.next_var, trainer.params[node.params[kRunningVar]].values, x.channels * sizeof(float));
  }
  if (uses_batch_statistics(trainer, node, x)) {
    s.gathered = true;
  } else {
    use_running_statistics(trainer, node, s, x.channels);
  }
}

// A gradient of 0 where there is no sample.
void clear_idle_lanes(const tkt_trainer &trainer, const Tensor &t) {
  const uint32_t used = trainer.samples % trainer.lanes;
  if (used == 0) return;
  float *group = t.data + (trainer.groups - 1) * t.group_stride;
  const uint32_t elements = t.place.elements();
  for (uint32_t e = 0; e < elements; ++e) {
    float *lanes = group + size_t(t.place.at(e)) * trainer.lanes;
    for (uint32_t l = used; l < trainer.lanes; ++l) lanes[l] = 0.0f;
  }
}

}  // namespace

const char *batch_norm_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape shape = artifact.graph.shape(node.index + 1);
  if (shape.rank > 3) return "needs an input of rank 1 to 3";
  for (uint32_t i = 0; i < node.param_count; ++i) {
    if (!artifact.matrix(node.params[i]).is_vector(shape.extent[0])) return "has a parameter of another shape";
  }
  const float epsilon = attribute_f32(node.attrs, 0), momentum = attribute_f32(node.attrs, 1);
  if (!(epsilon > 0) || !(epsilon - epsilon == 0)) return "has an epsilon that is not finite and above 0";
  if (!(momentum >= 0 && momentum <= 1)) return "has a momentum outside 0 to 1";
  return node.attrs[2] > 1 ? "has a frozen other than 0 and 1" : shapes_are_equal(artifact, node);
}

void *batch_norm_lay_out(const Artifact &artifact, const Node &node, const MemoryPlan &, Arena &arena) {
  const uint32_t channels = artifact.graph.shape(node.index + 1).extent[0];
  BatchNormState *s = arena.take<BatchNormState>(kBookkeeping, 1);
  float *arrays = arena.take<float>(kActivations, 4 * uint64_t(channels));
  if (s == nullptr) return nullptr;
  *s = {arrays, arrays + channels, arrays + 2 * size_t(channels), arrays + 3 * size_t(channels), false};
  return s;
}

// A second run takes the statistics of the first, which must not count twice.
void batch_norm_forward(tkt_trainer &trainer, const NodeState &node) {
  BatchNormState &s = *static_cast<BatchNormState *>(node.own);
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  const uint32_t channels = x.place.channels;
  if (!trainer.returning) prepare_statistics(trainer, node, s);
  const bool batch = uses_batch_statistics(trainer, node, x.place) && !trainer.returning;
  const float *weight = trainer.params[node.params[kWeight]].values, *bias = trainer.params[node.params[kBias]].values;
  const uint64_t cost = 4 * uint64_t(trainer.groups) * x.place.elements();
  range_in_parts(trainer, channels, 1, cost, [&](uint32_t first, uint32_t last) {
    if (batch) gather_statistics(trainer, node, s, first, last);
    for (uint32_t c = first; c < last; ++c) {
      const ChannelScale scale = {s.mean[c], weight[c] * s.inverse[c], bias[c]};
      for_each_run_of_channel(trainer.lanes, trainer.groups, c, {x, y}, [&](float *const *at, size_t floats) {
        trainer.kernels->scale_channel(scale, at[0], at[1], floats);
      });
    }
  });
}

void batch_norm_backward(tkt_trainer &trainer, const NodeState &node) {
  const BatchNormState &s = *static_cast<const BatchNormState *>(node.own);
  const Tensor x = trainer.data(node.inputs[0]), dy = trainer.gradient(node.output);
  const LaneKernels &kernels = *trainer.lane_kernels;
  const bool batch = uses_batch_statistics(trainer, node, x.place);
  const float inverse_n = 1.0f / as_float(values_per_channel(trainer, x.place));
  const Parameter &weight = trainer.params[node.params[kWeight]];
  const Contribution dx = contribution(trainer, node.inputs[0]);
  const uint32_t channels = x.place.channels;
  const uint64_t cost = 4 * uint64_t(trainer.groups) * x.place.elements();
  in_parts(trainer, cost, [&](uint32_t part, uint32_t parts) {
    const uint32_t last = part_begin(channels, 1, part + 1, parts);
    for (uint32_t c = part_begin(channels, 1, part, parts); c < last; ++c) {
      // The sums before anything is overwritten: dx may lie over dy, and the weights may be updated at once.
      const float product = kernels.sum_of_products(x, dy, trainer.samples, c, s.mean[c]) * s.inverse[c];
      const float weight_before = weight.values[c];
      float total;
      kernels.channel_sums(dy, trainer.groups, c, c + 1, &total);
      use_gradients_of_part(trainer, part, node.params[kWeight], c, c + 1,
                            [=](uint32_t, uint32_t, float *out) { *out = product; });
      use_gradients_of_part(trainer, part, node.params[kBias], c, c + 1,
                            [=](uint32_t, uint32_t, float *out) { *out = total; });
      if (!dx.wanted) continue;
      ChannelGradient g = {s.mean[c], weight_before * s.inverse[c], 0, 0};
      if (batch) {
        g.constant = total * inverse_n;
        g.slope = product * inverse_n * s.inverse[c];
      }
      for_each_run_of_channel(trainer.lanes, trainer.groups, c, {x, dy, dx.into}, [&](float *const *at, size_t floats) {
        trainer.kernels->scale_channel_gradient(g, at[0], at[1], at[2], floats, dx.accumulate);
      });
    }
  });
  if (dx.wanted) clear_idle_lanes(trainer, dx.into);
}

void batch_norm_commit(tkt_trainer &trainer, const NodeState &node) {
  BatchNormState &s = *static_cast<BatchNormState *>(node.own);
  if (!s.gathered) return;
  s.gathered = false;
  const Parameter &mean = trainer.params[node.params[kRunningMean]];
  memcpy(mean.values, s.next_mean, mean.matrix.stored * sizeof(float));
  memcpy(trainer.params[node.params[kRunningVar]].values, s.next_var, mean.matrix.stored * sizeof(float));
}

namespace {

uint32_t layer_norm_width(const Shape &shape, uint32_t dimensions) {
  uint32_t width = 1;
  for (uint32_t i = 0; i < dimensions; ++i) width *= shape.extent[shape.rank - 1 - i];
  return width;
}

LayerNorm layer_norm_of(const tkt_trainer &trainer, const NodeState &node) {
  const Shape shape = trainer.artifact.graph.shape(node.output);
  const uint32_t width = layer_norm_width(shape, node.attrs[1]);
  LayerNorm n = {shape.elements() / width,      width, nullptr, nullptr, attribute_f32(node.attrs, 0),
                 static_cast<float *>(node.own)};
  if (node.param_count == 2) {
    n.weight = trainer.params[node.params[0]].values;
    n.bias = trainer.params[node.params[1]].values;
  }
  return n;
}

}  // namespace

const char *layer_norm_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape shape = artifact.graph.shape(node.index + 1);
  const float epsilon = attribute_f32(node.attrs, 0);
  if (!(epsilon > 0) || !(epsilon - epsilon == 0)) return "has an epsilon that is not finite and above 0";
  if (node.attrs[1] < 1 || node.attrs[1] > shape.rank) return "has a number of dimensions outside 1 to its rank";
  if (node.param_count == 1) return "has a weight without a bias";
  for (uint32_t i = 0; i < node.param_count; ++i) {
    if (!artifact.matrix(node.params[i]).is_vector(layer_norm_width(shape, node.attrs[1]))) {
      return "has a parameter of another shape";
    }
  }
  return shapes_are_equal(artifact, node);
}

void *layer_norm_lay_out(const Artifact &artifact, const Node &node, const MemoryPlan &plan, Arena &arena) {
  const Shape shape = artifact.graph.shape(node.index + 1);
  const uint32_t count = shape.elements() / layer_norm_width(shape, node.attrs[1]);
  return arena.take<float>(kActivations, 2 * uint64_t(count) * plan.groups * plan.lanes);
}

void layer_norm_forward(tkt_trainer &trainer, const NodeState &node) {
  trainer.lane_kernels->layer_norm(layer_norm_of(trainer, node), trainer.data(node.inputs[0]),
                                   trainer.data(node.output), trainer.groups);
}

// The input's gradient first: it needs the weight as it was.
void layer_norm_backward(tkt_trainer &trainer, const NodeState &node) {
  const LayerNorm n = layer_norm_of(trainer, node);
  const Tensor x = trainer.data(node.inputs[0]), dy = trainer.gradient(node.output);
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (dx.wanted) trainer.lane_kernels->layer_norm_gradient(n, x, dy, dx.into, trainer.groups, dx.accumulate);
  for (uint32_t i = 0; i < node.param_count; ++i) {
    use_gradients(trainer, node.params[i], uint64_t(n.count) * trainer.groups,
                  [&](uint32_t first, uint32_t last, float *out) {
                    trainer.lane_kernels->layer_norm_sums(n, x, dy, trainer.groups, i == 1, first, last, out);
                  });
  }
}

const char *softmax_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape shape = artifact.graph.shape(node.index + 1);
  return shape.rank == 1 ? shapes_are_equal(artifact, node) : "needs an input of rank 1";
}

void softmax_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  const uint32_t elements = x.place.elements(), lanes = trainer.lanes;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    alignas(64) float maximum[kMaxLanes], sum[kMaxLanes];
    float *out = y.data + g * y.group_stride;
    trainer.lane_kernels->softmax(x.data + g * x.group_stride, elements, out, maximum, sum);
    for (uint32_t e = 0; e < elements; ++e) {
      for (uint32_t l = 0; l < lanes; ++l) out[size_t(e) * lanes + l] = out[size_t(e) * lanes + l] / sum[l];
    }
  }
}

// dx = y (dy - sum of y dy)
void softmax_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  const Tensor y = trainer.data(node.output), dy = trainer.gradient(node.output);
  const uint32_t elements = y.place.elements(), lanes = trainer.lanes;
  for (uint32_t g = 0; g < trainer.groups; ++g) {
    const float *p = y.data + g * y.group_stride, *gradient = dy.data + g * dy.group_stride;
    float *into = dx.into.data + g * dx.into.group_stride;
    float product[kMaxLanes] = {};
    for (uint32_t e = 0; e < elements; ++e) {
      for (uint32_t l = 0; l < lanes; ++l)
        product[l] = product[l] + p[size_t(e) * lanes + l] * gradient[size_t(e) * lanes + l];
    }
    for (uint32_t e = 0; e < elements; ++e) {
      for (uint32_t l = 0; l < lanes; ++l) {
        const size_t at = size_t(e) * lanes + l;
        const float v = p[at] * (gradient[at] - product[l]);
        into[at] = dx.accumulate ? into[at] + v : v;
      }
    }
  }
}

}  // namespace tkt

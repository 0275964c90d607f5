// max_pool, avg_pool and global_avg_pool: what a node must look like; the work is in kernels_pool.inl.
#include "core/node_functions.h"
#include "core/step.h"
#include "core/threads.h"

namespace tkt {
namespace {

Window window_of(const uint32_t *a) { return {a[0], a[1], a[2], a[3], a[4], a[5]}; }

bool axis_is_sound(uint32_t kernel, uint32_t stride, uint32_t pad, uint32_t in, uint32_t out) {
  constexpr uint32_t kMaxWindow = 256;
  return kernel >= 1 && kernel <= kMaxWindow && stride >= 1 && stride <= kMaxWindow && pad <= kernel / 2 &&
         in + 2 * pad >= kernel && out == (in + 2 * pad - kernel) / stride + 1;
}

const char *window_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  if (in.rank != out.rank || in.rank < 2 || in.rank > 3) return "needs input and output of rank 2 or 3";
  const Place x = place_of(in, {0, 0, 0, 0}), y = place_of(out, {0, 0, 0, 0});
  const Window w = window_of(node.attrs);
  if (in.rank == 2 && (w.kernel_h != 1 || w.stride_h != 1 || w.pad_h != 0)) {
    return "is one-dimensional, but has attributes of a height";
  }
  const bool sound = axis_is_sound(w.kernel_h, w.stride_h, w.pad_h, x.rows, y.rows) &&
                     axis_is_sound(w.kernel_w, w.stride_w, w.pad_w, x.length, y.length);
  return sound && x.channels == y.channels ? nullptr : "has a kernel, stride or padding that does not give its output";
}

}  // namespace

const char *max_pool_broken_rule(const Artifact &artifact, const Node &node) {
  return window_broken_rule(artifact, node);
}

void max_pool_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  groups_in_parts(trainer, x.place.elements(), [&](uint32_t first, uint32_t last) {
    trainer.lane_kernels->max_pool(window_of(node.attrs), x.from_group(first), y.from_group(first), last - first);
  });
}

void max_pool_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = added_contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  const Tensor x = trainer.data(node.inputs[0]), dy = trainer.gradient(node.output);
  groups_in_parts(trainer, 2 * uint64_t(x.place.elements()), [&](uint32_t first, uint32_t last) {
    trainer.lane_kernels->max_pool_gradient(window_of(node.attrs), x.from_group(first), dy.from_group(first),
                                            dx.into.from_group(first), last - first);
  });
}

const char *avg_pool_broken_rule(const Artifact &artifact, const Node &node) {
  return node.attrs[6] > 1 ? "has a count_include_pad other than 0 and 1" : window_broken_rule(artifact, node);
}

void avg_pool_forward(tkt_trainer &trainer, const NodeState &node) {
  const Tensor x = trainer.data(node.inputs[0]), y = trainer.data(node.output);
  groups_in_parts(trainer, x.place.elements(), [&](uint32_t first, uint32_t last) {
    trainer.lane_kernels->average_pool(window_of(node.attrs), node.attrs[6] != 0, x.from_group(first),
                                       y.from_group(first), last - first);
  });
}

void avg_pool_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = added_contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  const Tensor dy = trainer.gradient(node.output);
  groups_in_parts(trainer, dx.into.place.elements(), [&](uint32_t first, uint32_t last) {
    trainer.lane_kernels->average_pool_gradient(window_of(node.attrs), node.attrs[6] != 0, dy.from_group(first),
                                                dx.into.from_group(first), last - first);
  });
}

const char *global_avg_pool_broken_rule(const Artifact &artifact, const Node &node) {
  const Shape in = artifact.graph.shape(node.inputs[0]), out = artifact.graph.shape(node.index + 1);
  if (in.rank < 2 || in.rank > 3) return "needs an input of rank 2 or 3";
  return out.rank == 1 && out.extent[0] == in.extent[0] ? nullptr : "does not give one element a channel";
}

void global_avg_pool_forward(tkt_trainer &trainer, const NodeState &node) {
  trainer.lane_kernels->global_average(trainer.data(node.inputs[0]), trainer.data(node.output), trainer.groups);
}

void global_avg_pool_backward(tkt_trainer &trainer, const NodeState &node) {
  const Contribution dx = contribution(trainer, node.inputs[0]);
  if (!dx.wanted) return;
  trainer.lane_kernels->global_average_gradient(trainer.gradient(node.output), dx.into, trainer.groups, dx.accumulate);
}

}  // namespace tkt
